"""The real server in a process of its own, over sockets."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_schema import receipts
from tallypost_server.serving import log_to_stderr

Spawn = Callable[..., Any]
Document = Callable[..., bytes]
Stored = Callable[[], list[dict[str, Any]]]
JSON = {"content-type": "application/json"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: text for key, text in os.environ.items() if not key.startswith("TALLYPOST")}
    program = [sys.executable, "-m", "tallypost_server", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False, env=environment)


def connect(server: Any) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer that tells its length; what follows it stays where it is."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, head
        head += piece
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(head.split(b" ")[1]), body


def head(length: int, *lines: str) -> bytes:
    text = ["POST /v1/reports HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {length}"]
    return "\r\n".join([*text, *lines, "", ""]).encode()


def test_sigterm_drains_seals_and_ends_with_0(
    spawn: Spawn, report: Document, data: Path, stored: Stored, today: str
) -> None:
    """A request that has begun is answered 200, its segment is sealed, and the port is free again."""
    server = spawn()
    body = report(day=today)
    with connect(server) as connection:
        connection.sendall(head(len(body)) + body[:10])
        time.sleep(0.1)  # The head must have arrived; there is nothing to look at that says so.
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[10:])
        status, answer = read_answer(connection)

    assert 200 == status
    assert receipts.is_receipt_of(answer, body)
    assert 0 == server.process.wait(15)
    assert 1 == len(list((data / "segments").glob("*.zst")))
    assert [] == list((data / "segments" / "open").iterdir())
    assert 1 == len(stored())
    again = spawn(listen=server.address)
    assert server.address == again.address


def test_sigkill_right_after_a_200_loses_nothing(
    spawn: Spawn, report: Document, data: Path, stored: Stored, today: str
) -> None:
    """What was answered is in a segment after the next start, on the same folder and port."""
    server = spawn()
    bodies = [report(id=format(number, "032x"), day=today) for number in range(50)]
    with server.client() as client:
        answers = [client.post("/v1/reports", content=body, headers=JSON) for body in bodies]
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    assert all(receipts.is_receipt_of(answer.content, body) for answer, body in zip(answers, bodies, strict=True))

    again = spawn(listen=server.address)

    assert 50 == len({line["stream"] for line in stored()}) == len(stored())
    assert 1 == len(list((data / "segments").glob("*.zst")))
    assert [] == list((data / "segments" / "open").iterdir())
    again.process.send_signal(signal.SIGTERM)
    assert 0 == again.process.wait(15)


def test_sigkill_under_load_loses_nothing_that_was_answered(
    spawn: Spawn, report: Document, stored: Stored, today: str
) -> None:
    """Many senders at once, killed at any moment: every receipt is kept, nothing is stored twice."""
    server = spawn("--seal-bytes", "20000")
    acknowledged: list[str] = []

    def post(sender: int) -> None:
        with server.client() as client:
            for number in range(100_000):
                name = f"{sender:016x}{number:016x}"
                try:
                    answer = client.post("/v1/reports", content=report(id=name, day=today), headers=JSON)
                except OSError:
                    return
                except Exception as failure:
                    if type(failure).__module__.startswith("httpx"):
                        return
                    raise
                if answer.status_code == 200:
                    acknowledged.append(name)

    senders = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for sender in senders:
        sender.start()
    while len(acknowledged) < 200:
        time.sleep(0.01)
    server.process.kill()
    for sender in senders:
        sender.join()

    spawn(listen=server.address)

    streams = [line["stream"] for line in stored()]
    assert set(acknowledged) <= set(streams)
    assert len(set(streams)) == len(streams)


def test_second_serve_on_a_folder_ends_with_1(spawn: Spawn, data: Path) -> None:
    """Two servers never work on one folder, and the second says why."""
    spawn()

    second = command("serve", "--data", str(data), "--listen", "127.0.0.1:0")

    assert (1, "") == (second.returncode, second.stdout)
    assert f"another tallypost-server serves {data}" in second.stderr


def test_serve_on_a_taken_port_ends_with_1_and_leaves_the_lock(spawn: Spawn, data: Path, tmp_path: Path) -> None:
    """The message names the address."""
    server = spawn()

    second = command("serve", "--data", str(tmp_path / "other"), "--listen", server.address)

    assert 1 == second.returncode
    assert f"cannot listen on {server.address}" in second.stderr


def test_serve_on_a_path_works_again_after_a_kill(spawn: Spawn, report: Document, tmp_path: Path, today: str) -> None:
    """A socket that a killed server left is taken over; one that is in use is not."""
    where = f"unix:{tmp_path / 'tallypost.sock'}"
    server = spawn(listen=where)
    taken = command("serve", "--data", str(tmp_path / "other"), "--listen", where)
    server.process.kill()
    server.process.wait()

    again = spawn(listen=where)

    assert 1 == taken.returncode
    with again.client() as client:
        assert 200 == client.post("/v1/reports", content=report(day=today), headers=JSON).status_code
    again.process.send_signal(signal.SIGTERM)
    assert 0 == again.process.wait(15)
    assert not (tmp_path / "tallypost.sock").exists()


def test_status_and_show_work_beside_serve(
    spawn: Spawn, batch: Document, report: Document, data: Path, today: str
) -> None:
    """Other commands need no lock, and see what is open as well as what is sealed."""
    server = spawn()
    with server.client() as client:
        client.post("/v1/events", content=batch(2), headers=JSON)
        client.post("/v1/events", content=batch(1, first=4, lost=1, terminal=6), headers=JSON)
        client.post("/v1/reports", content=report(day=today), headers=JSON)

    facts = json.loads(command("status", "--json", "--data", str(data)).stdout)
    shown = command("show", "ab" * 16, "--data", str(data))
    shown_report = command("--data", str(data), "show", "0f" * 16)

    assert (1, 0) == (facts["segments"]["open"], facts["segments"]["sealed"])
    assert facts["segments"]["bytes"] > 0
    assert 0 <= facts["lag"]["oldest_unarchived_s"] < 60
    event = {"name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {"format": "pdf", "pages": 3}}
    expected: list[dict[str, Any]] = [
        {"index": 0, **event},
        {"index": 1, **event},
        {"gap": [2, 3]},
        {"lost": [4, 4]},
        {"index": 5, **event},
        {"gap": [6, 6]},
    ]
    assert expected == [json.loads(line) for line in shown.stdout.splitlines()]
    assert [{"index": 0, "doc": json.loads(report(day=today))}] == [
        json.loads(line) for line in shown_report.stdout.splitlines()
    ]
    server.process.send_signal(signal.SIGTERM)
    assert 0 == server.process.wait(15)
    assert shown.stdout == command("show", "ab" * 16, "--data", str(data)).stdout


def test_connection_stays_usable_after_a_body_that_is_too_large(spawn: Spawn, report: Document, today: str) -> None:
    """The answer arrives although the sender is still writing, and the next request is taken."""
    server = spawn()
    with connect(server) as connection:
        connection.sendall(head(1_500_000) + b" " * 1_500_000)
        assert 413 == read_answer(connection)[0]
        body = report(day=today)
        connection.sendall(head(len(body)) + body)
        assert 200 == read_answer(connection)[0]


def test_chunked_bodies_are_taken_and_bounded(spawn: Spawn, report: Document, today: str) -> None:
    """A body that does not announce its length is bounded all the same."""
    server = spawn()
    with server.client() as client:

        def pieces(body: bytes) -> Any:
            yield from (body[place : place + 50_000] for place in range(0, len(body), 50_000))

        large = client.post("/v1/reports", content=pieces(b" " * 1_200_000), headers=JSON)
        small = client.post("/v1/reports", content=pieces(report(day=today)), headers=JSON)

    assert [413, 200] == [large.status_code, small.status_code]


def test_framing_that_is_broken_gets_a_plain_400(spawn: Spawn) -> None:
    """What is no HTTP gets no JSON, and the connection ends."""
    server = spawn()
    with connect(server) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")

        assert 400 == read_answer(connection)[0]
        assert b"" == connection.recv(1)


def test_requests_on_one_connection_are_answered_in_order(spawn: Spawn, report: Document, today: str) -> None:
    """Pipelined requests each have their answer."""
    server = spawn()
    body = report(day=today)
    with connect(server) as connection:
        connection.sendall((head(len(body)) + body) * 3)
        for _ in range(3):
            status, answer = read_answer(connection)
            assert 200 == status
            assert receipts.is_receipt_of(answer, body)


def test_logs_have_no_address_and_no_payload(spawn: Spawn, report: Document, data: Path, today: str) -> None:
    """Whatever is posted, standard error names neither sender nor content."""
    server = spawn()
    with server.client(headers={"x-forwarded-for": "203.0.113.9"}) as client:
        client.post("/v1/reports", content=report(day=today, app="example.org/secret-app"), headers=JSON)
        client.post("/v1/reports", content=b'{"secret":', headers=JSON)
        client.post("/v1/reports", content=report(day=today, counters={"secret": 1}), headers=JSON)
    with connect(server) as connection:
        connection.sendall(b"secret\r\n\r\n")
        read_answer(connection)
    server.process.send_signal(signal.SIGTERM)
    said = server.process.communicate(timeout=15)[1]

    assert "secret" not in said
    assert "203.0.113.9" not in said
    assert "127.0.0.1:" not in said
    for path in data.rglob("*"):
        if path.is_file():
            assert b"203.0.113.9" not in path.read_bytes()


def test_log_in_json_is_an_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    """For whatever gathers logs: time, level, logger, message, and what was raised."""
    kept = logging.getLogger().handlers[:]
    try:
        log_to_stderr("json")
        try:
            raise ValueError("no\nline")
        except ValueError:
            logging.getLogger("tallypost_server.x").exception("it %s", "broke\n")
    finally:
        logging.getLogger().handlers[:] = kept

    (line,) = capfd.readouterr().err.splitlines()
    entry = json.loads(line)
    assert ("error", "tallypost_server.x", "it broke\n") == (entry["level"], entry["logger"], entry["message"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["at"])
    assert "no\nline" in entry["exception"]
