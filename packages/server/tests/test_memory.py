"""What a hostile crowd costs a real server: defined answers, memory within its bound, and others served meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_schema import limits as shared
from tallypost_schema import receipts
from tallypost_server import limits

pytestmark = pytest.mark.long

Spawn = Callable[..., Any]
Document = Callable[..., bytes]
JSON = {"content-type": "application/json"}
# As docs/server/operating.md has it: bodies that are held, lines that wait, what is decoded at once, and the program.
RESIDENT_BYTES_MAX = 512 << 20
SLOW = 1000


def resident_bytes(process: int) -> int:
    """The most that a process has had in memory at once."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("Linux tells it")


@contextlib.contextmanager
def served_meanwhile(server: Any, report: Document, today: str) -> Iterator[list[float]]:
    """Somebody else who posts all the time: each is stored, and how long each took is told."""
    seconds: list[float] = []
    ended, problems = threading.Event(), []

    def post() -> None:
        number = 0
        with server.client(timeout=20) as client:
            while not ended.is_set():
                number += 1
                body = report(id=f"{number:032x}", day=today)
                begin = time.monotonic()
                answer = client.post("/v1/reports", content=body, headers=JSON)
                seconds.append(time.monotonic() - begin)
                # Told to come again is an answer too, as long as there is one.
                if answer.status_code not in (200, 503):
                    problems.append(answer.text)
                if answer.status_code == 200 and not receipts.is_receipt_of(answer.content, body):
                    problems.append("a receipt of something else")

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()
    assert [] == problems
    assert seconds


def test_thousand_slow_senders_are_held_within_the_bound(spawn: Spawn, report: Document, today: str) -> None:
    """Each sends the half of a large body and stops: what is held is bounded, more is told to come again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    server = spawn()
    host, _, port = server.address.rpartition(":")
    half = b"x" * (shared.wire_bytes_max // 2)
    head = "POST /v1/reports HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"content-length: {2 * len(half)}\r\n\r\n"
    slow = []
    try:
        with served_meanwhile(server, report, today) as seconds:
            for _ in range(SLOW):
                one = socket.create_connection((host, int(port)))
                one.settimeout(10)
                slow.append(one)
                with contextlib.suppress(OSError):  # Whoever is told to come again is not read to its end.
                    one.sendall(head.encode() + half)
            until = len(seconds) + 20
            while len(seconds) < until:
                time.sleep(0.01)
        assert resident_bytes(server.process.pid) < RESIDENT_BYTES_MAX
        assert sum(map(len, [half] * SLOW)) > limits.held_bytes_max  # There was more than may be held.
    finally:
        for one in slow:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def hostile() -> dict[str, tuple[bytes, dict[str, str], set[int]]]:
    """Bodies, their headers, and what may be answered."""
    zeros = b"0" * (shared.decoded_bytes_max + 1)
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(19, window_log=27)
    ).compressobj()
    window = wide.compress(os.urandom(600_000)) + wide.flush()
    zstd, gzipped = {"content-encoding": "zstd"}, {"content-encoding": "gzip"}
    return {
        "a zstd bomb": (zstandard.compress(zeros * 16), zstd, {413}),
        "a gzip bomb": (gzip.compress(zeros), gzipped, {413}),
        "many frames": (zstandard.compress(b"") * 10_000, zstd, {413}),
        "frames that add up": (zstandard.compress(zeros[: 1 << 20]) * 60, zstd, {413}),
        "a huge window": (window, zstd, {413}),
        "skippable frames": (b"\x50\x2a\x4d\x18\x00\x00\x00\x00" * 1000, zstd, {413}),
        "deep": (b"[" * 100_000, {}, {400}),
        "deep and closed": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, {}, {400}),
        "lone surrogates": (b'{"v":1,"kind":"\\ud800"}', {}, {400, 422}),
        "nan": (b'{"v":NaN}', {}, {400}),
        "keys twice": (b'{"v":1,"v":1}', {}, {400}),
        "huge integers": (b'{"v":' + b"9" * 500_000 + b"}", {}, {400, 422}),
        "many containers": (zstandard.compress(b'{"a":[' + b"{}," * 2_000_000 + b"{}]}"), zstd, {400}),
        "many keys": (json.dumps({str(n): n for n in range(60_000)}).encode(), {}, {422}),
    }


def test_bombs_get_their_answers_within_the_bound(spawn: Spawn, report: Document, today: str) -> None:
    """All kinds at once, from eight senders: each answer is the defined one, and nobody else waits for long."""
    server = spawn()
    bodies, wrong = hostile(), []

    def post(sender: int) -> None:
        with server.client(timeout=30) as client:
            for _ in range(3):
                for name, (body, headers, allowed) in bodies.items():
                    answer = client.post("/v1/reports", content=body, headers={**JSON, **headers})
                    if answer.status_code not in allowed | {503}:
                        wrong.append((name, answer.status_code, answer.text[:200]))

    with served_meanwhile(server, report, today) as seconds:
        senders = [threading.Thread(target=post, args=(number,)) for number in range(8)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    assert [] == wrong
    assert resident_bytes(server.process.pid) < RESIDENT_BYTES_MAX
    assert 10 > max(seconds)
