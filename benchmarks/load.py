"""The load: some connections, kept alive, each with one request under way at any time.

Takes   a port of this machine, a file of whole requests, bounds of count and time, and a rate or none.
Gives   how many were answered with which status, and how long each took; as JSON on standard output.
Never   builds, compresses or parses a document while the clock runs; never leaves the loopback.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from .harness import percentile

ANSWER_SECONDS_MAX = 10.0
LENGTH_BYTES = 4


def frame(requests: Sequence[bytes]) -> bytes:
    """A file of requests: each behind its length."""
    return b"".join(len(request).to_bytes(LENGTH_BYTES, "little") + request for request in requests)


def framed(content: bytes) -> Iterator[bytes]:
    """The requests of such a file."""
    at = 0
    while at < len(content):
        begin = at + LENGTH_BYTES
        at = begin + int.from_bytes(content[at:begin], "little")
        yield content[begin:at]


class Connection:
    """One connection, and what has come of the answer to its request."""

    __slots__ = ("began", "came", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.came = b""
        self.began = 0.0

    def send(self, request: bytes, due: float | None = None) -> None:
        """Send; the time until the answer counts from now, or from when it was due."""
        self.began = time.perf_counter() if due is None else due
        # Blocking, with a limit: a request is smaller than the socket's buffer, which is empty by now.
        self.socket.sendall(request)

    def receive(self) -> int:
        """The answer's status once all of it is there, else 0."""
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("the server closed a connection with a request under way")
        self.came += piece
        status = status_of(self.came)
        if status:
            self.came = b""
        return status


def status_of(answer: bytes) -> int:
    """The status of a whole answer with a Content-Length, 0 while some of it is missing."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = answer[:end].lower()
    at = head.index(b"content-length:") + 15
    stop = head.find(b"\r\n", at)
    length = int(head[at:] if stop < 0 else head[at:stop])
    return int(answer[9:12]) if len(answer) >= end + 4 + length else 0


def load(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    count_max: int,
    per_second: float | None = None,
) -> dict[str, Any]:
    """Send until the time or the count is over, and wait for what is under way.

    Without a rate each answer is followed by the next request. With one, requests are due at even distances: who comes
    late because no connection is free counts as long as it was kept from being sent.
    """
    following = cycle(requests)
    statuses: dict[int, int] = {}
    durations: list[float] = []
    # Of the selectors that are everywhere, the one whose waits are not of whole milliseconds. A load that spun instead
    # of waiting would take the core on which the system's own threads write for the server.
    selector = selectors.SelectSelector()
    idle = deque(Connection(port) for _ in range(connections))
    for connection in idle:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    begin, processor = time.perf_counter(), time.process_time()
    end, sent = begin + seconds, 0
    while True:
        now, wait = time.perf_counter(), ANSWER_SECONDS_MAX
        while idle and now < end and sent < count_max:
            due = None if per_second is None else begin + sent / per_second
            if due is not None and due > now:
                wait = due - now
                break
            idle.popleft().send(next(following), due)
            sent += 1
            now = time.perf_counter()
        if len(idle) == connections and (now >= end or sent >= count_max):
            break
        ready = selector.select(wait)
        if not ready and wait == ANSWER_SECONDS_MAX:
            raise TimeoutError(f"no answer to {connections - len(idle)} requests within {ANSWER_SECONDS_MAX:g} s")
        for key, _ in ready:
            connection = key.data
            status = connection.receive()
            if not status:
                continue
            now = time.perf_counter()
            durations.append(now - connection.began)
            statuses[status] = statuses.get(status, 0) + 1
            if per_second is None and now < end and sent < count_max:
                connection.send(next(following))
                sent += 1
            else:
                idle.append(connection)
    elapsed = time.perf_counter() - begin
    busy = (time.process_time() - processor) / elapsed
    for key in list(selector.get_map().values()):
        key.data.socket.close()
    selector.close()
    return {
        "statuses": statuses,
        "per_second": len(durations) / elapsed,
        "p50_ms": percentile(durations, 0.5) * 1e3,
        "p99_ms": percentile(durations, 0.99) * 1e3,
        "busy": busy,
    }


def main(arguments: Sequence[str]) -> None:
    port, file, connections, seconds, count_max, *rate = arguments
    answered = load(
        int(port),
        list(framed(Path(file).read_bytes())),
        connections=int(connections),
        seconds=float(seconds),
        count_max=int(count_max),
        per_second=float(rate[0]) if rate else None,
    )
    print(json.dumps(answered))


if __name__ == "__main__":
    main(sys.argv[1:])
