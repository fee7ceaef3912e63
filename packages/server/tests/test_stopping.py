"""SIGTERM in the middle of many posts, as real processes over sockets."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_schema import receipts

Spawn = Callable[..., Any]
Document = Callable[..., bytes]
Stored = Callable[[], list[dict[str, Any]]]

SENDERS = 32


class Senders:
    """Threads that post without a pause, each document once, until they are told that the server stops."""

    def __init__(self, address: str, report: Document, today: str) -> None:
        host, _, port = address.rpartition(":")
        self._address, self._report, self._today = (host, int(port)), report, today
        self.acknowledged: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.cut_off: list[str] = []
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Return once so many documents were acknowledged."""
        until = time.monotonic() + 30
        while len(self.acknowledged) < count:
            assert time.monotonic() < until, self.answers
            time.sleep(0.01)

    def join(self) -> None:
        """Return once each has been told."""
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _send(self, number: int) -> None:
        sequence = 0
        while True:
            with socket.create_connection(self._address, timeout=10) as connection:
                # Some keep their connection, some make one for a few documents.
                for turn in range(3 if number % 4 == 0 else 1_000_000):
                    sequence += 1
                    body = self._report(id=f"{number:016x}{sequence:016x}", day=self._today)
                    whole = _whole(body)
                    # In one piece, which the hot path takes, or in two.
                    pieces = [whole] if turn % 3 else [whole[:-20], whole[-20:]]
                    try:
                        for piece in pieces:
                            connection.sendall(piece)
                        head, told = _answer(connection)
                    except OSError as failure:
                        self.answers[repr(failure)] += 1
                        return
                    if head.startswith(b"HTTP/1.1 200 "):
                        assert receipts.is_receipt_of(told, body)
                        self.acknowledged.add(hashlib.sha256(body).hexdigest())
                        self.answers["stored"] += 1
                    else:
                        assert head.startswith(b"HTTP/1.1 503 "), head
                        # A connection that stayed open would be cut off at whatever came next.
                        code, ending = json.loads(told)["error"]["code"], b"connection: close" in head
                        if code == "starting":  # The other worker was the one that was ready.
                            continue
                        self.answers[code if ending and connection.recv(1) == b"" else f"{code}, and stays open"] += 1
                        return
                    if b"connection: close" in head:
                        break


def _whole(body: bytes, line: bytes = b"") -> bytes:
    head = b"POST /v1/reports HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return head + line + b"content-length: %d\r\n\r\n" % len(body) + body


def _answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of an answer."""
    told = b""
    while True:
        head, found, body = told.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return head, body
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError("cut off")
        told += piece


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_answers_whoever_had_come_and_keeps_what_it_acknowledged(
    spawn: Spawn, report: Document, data: Path, stored: Stored, today: str, workers: int
) -> None:
    """Each request that was sent is stored or told *stopping*, none is cut off; it ends with 0 within 15 s."""
    server = spawn("--workers", str(workers), "--seal-bytes", "50000")
    senders = Senders(server.address, report, today)
    senders.wait_for(300)

    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(20)
    seconds = time.monotonic() - begun
    senders.join()

    assert {"stored": len(senders.acknowledged), "stopping": SENDERS} == senders.answers
    assert (0, True) == (status, seconds < 15)
    assert senders.acknowledged <= {line["sha256"] for line in stored()}
    assert [] == list((data / "segments" / "open").iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_has_newcomers_refused_while_what_has_begun_goes_on(
    spawn: Spawn, report: Document, today: str, workers: int
) -> None:
    """Whoever comes when nobody takes connections any more is not left waiting in the socket."""
    server = spawn("--workers", str(workers))
    host, _, port = server.address.rpartition(":")
    body = report(day=today)
    with socket.create_connection((host, int(port)), timeout=10) as begun:
        begun.sendall(_whole(body, b"expect: 100-continue\r\n")[: -len(body)])
        assert begun.recv(100).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 5
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except ConnectionError:
                break
            assert time.monotonic() < until, "somebody listens, and nobody answers"
            time.sleep(0.02)
        assert server.process.poll() is None
        begun.sendall(body)
        head, told = _answer(begun)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert receipts.is_receipt_of(told, body)
    assert 0 == server.process.wait(15)
