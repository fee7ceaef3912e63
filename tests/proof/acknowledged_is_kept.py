"""Acknowledged means kept: a server that is killed under load has every document that it gave a receipt for.

Takes   a folder, seconds, a seed, how many workers.
Gives   how often the server was killed, and how many documents were acknowledged and found.
Never   looks into the server: documents go in over HTTP, and are found in the files of its data folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import zstandard

from .server import free_port, start

DECLARATION = """
application = "example.org/proof"
contact = "privacy@example.org"
consent_version = 1
[counters."proof/inc"]
why = "To be found again"
owner = "the proof"
expires = "never"
"""
SENDERS = 8
ROOM_BYTES = 256 << 20


def prove(folder: Path, *, seconds: float, seed: int, workers: int = 1) -> dict[str, Any]:
    """Post, kill and start for so many seconds, on a disk that now and then has no room."""
    rng = random.Random(seed)
    data = folder / "data"
    (data / "applications").mkdir(parents=True)
    (data / "applications" / "proof.toml").write_text(DECLARATION)
    port = free_port()
    posted: dict[str, bytes] = {}
    acknowledged: set[str] = set()
    declined: Counter[str] = Counter()
    ended = threading.Event()
    senders = [
        threading.Thread(target=_send, args=(port, number, posted, acknowledged, declined, ended))
        for number in range(SENDERS)
    ]
    # What the server may use beyond what it keeps free for sealing; the ballast takes all of that, and more.
    options = ["--workers", str(workers), "--reserve-bytes", str(max(1, shutil.disk_usage(folder).free - ROOM_BYTES))]
    server = start(data, port, *options)
    for sender in senders:
        sender.start()
    until, kills, worker_kills = time.monotonic() + seconds, 0, 0
    try:
        while time.monotonic() < until:
            time.sleep(rng.random() * 1.5)
            if rng.random() < 0.2:
                _fill(folder / "ballast")
                time.sleep(rng.random())
            living = children_of(server.pid) if workers > 1 else []
            if living and rng.random() < 0.5:  # One of them; whoever started it starts another.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(living), signal.SIGKILL)
                    worker_kills += 1
            else:
                server.send_signal(signal.SIGKILL)
                server.wait()
                kills += 1
                (folder / "ballast").unlink(missing_ok=True)
                server = start(data, port, *options)
            (folder / "ballast").unlink(missing_ok=True)
    finally:
        ended.set()
        for sender in senders:
            sender.join()
        (folder / "ballast").unlink(missing_ok=True)
        statuses = [_ended(server)]
    # What a worker left that was killed at the very end the next start seals.
    statuses.append(_ended(start(data, port, *options)))
    assert statuses == [0, 0], f"the server ended with {statuses} after SIGTERM"
    assert not list((data / "segments" / "open").iterdir()), "something is not sealed"
    lines = [line for path in (data / "segments").glob("*.jsonl.zst") for line in _lines(path)]
    stored = {line["sha256"]: line for line in lines}
    missing = acknowledged - set(stored)
    invented = set(stored) - set(posted)
    altered = [one for one, line in stored.items() if one in posted and line["doc"] != json.loads(posted[one])]
    assert not missing, f"{len(missing)} acknowledged documents are in no segment"
    assert not invented, f"{len(invented)} documents that nobody posted"
    assert not altered, f"{len(altered)} documents are not what was posted"
    assert acknowledged, "nothing was acknowledged"
    found = {"kills": kills, "worker_kills": worker_kills, "declined_for_space": declined["no_space"]}
    return {**found, "acknowledged": len(acknowledged), "stored": len(lines)}


def children_of(process: int) -> list[int]:
    """The processes that a process has started and not yet buried."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def _ended(server: subprocess.Popen[bytes]) -> int:
    server.terminate()
    return server.wait(30)


def _fill(ballast: Path) -> None:
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * ROOM_BYTES)


def _send(
    port: int,
    number: int,
    posted: dict[str, bytes],
    acknowledged: set[str],
    declined: Counter[str],
    ended: threading.Event,
) -> None:
    sequence = 0
    connection: http.client.HTTPConnection | None = None
    while not ended.is_set():
        sequence += 1
        document = _report(number * 10_000_000 + sequence)
        name = hashlib.sha256(document).hexdigest()
        posted[name] = document
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", "/v1/reports", document, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                assert json.loads(body)["stored"] == name
                acknowledged.add(name)
            else:
                declined[json.loads(body)["error"]["code"]] += 1
                time.sleep(0.01)
        except (OSError, http.client.HTTPException):
            connection = None
            time.sleep(0.05)


def _report(identity: int) -> bytes:
    program = {"program": "proof", "version": "1", "python": "3.12", "os": "linux", "arch": "x86_64"}
    document = {
        "v": 1,
        "kind": "report",
        "x": 0.5,
        "id": f"{identity:032x}",
        "app": "example.org/proof",
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "previous": None,
        "config": None,
        "programs": [{**program, "counters": {"proof/inc": identity}, "stacks": {}}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _lines(path: Path) -> list[dict[str, Any]]:
    content = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
    return [json.loads(line) for line in content.splitlines()]
