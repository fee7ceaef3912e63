from __future__ import annotations

import asyncio
import datetime
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallypost_server.clock import SystemClock
from tallypost_server.notify import Manager
from tallypost_server.testing import FakeClock


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        yield listener


def test_tell_sends_lines_to_the_socket(manager_socket: socket.socket) -> None:
    """A file's name as it is."""
    manager = Manager({"NOTIFY_SOCKET": manager_socket.getsockname()}, clock=SystemClock())

    manager.tell("READY=1", "STATUS=x")

    assert b"READY=1\nSTATUS=x" == manager_socket.recv(100)


def test_tell_reaches_a_socket_without_a_file() -> None:
    """A name that begins with @ lies in no folder."""
    name = f"tallypost-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        Manager({"NOTIFY_SOCKET": "@" + name}, clock=SystemClock()).tell("READY=1")

        assert b"READY=1" == listener.recv(100)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "1000000"}, {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "y"}]
)
async def test_nothing_is_told_where_nobody_asks(environment: dict[str, str]) -> None:
    """A server in a terminal or a container has no manager, and one without a watchdog is not told again and again."""
    await Manager(environment, clock=SystemClock()).keep_telling()


@pytest.mark.anyio
async def test_watchdog_is_told_twice_within_its_time(manager_socket: socket.socket) -> None:
    """As long as the loop turns."""
    clock = FakeClock(datetime.datetime(2026, 11, 24, tzinfo=datetime.timezone.utc))
    manager = Manager({"NOTIFY_SOCKET": manager_socket.getsockname(), "WATCHDOG_USEC": "60000000"}, clock=clock)
    manager_socket.setblocking(False)
    telling = asyncio.create_task(manager.keep_telling())
    for _ in range(3):
        await asyncio.sleep(0)
        assert b"WATCHDOG=1" == manager_socket.recv(100)
        clock.advance(29)
        await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            manager_socket.recv(100)
        clock.advance(1)
    telling.cancel()


def test_manager_that_is_gone_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Serving goes on."""
    manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, clock=SystemClock())

    manager.tell("READY=1")
    manager.tell("STOPPING=1")

    assert 1 == caplog.text.count("cannot be told")


def test_server_tells_when_it_takes_documents_and_when_it_stops(data: Path, manager_socket: socket.socket) -> None:
    """Under a manager with a watchdog: ready, alive, stopping."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("TALLYPOST")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tallypost_server", "--data", str(data), "serve", "--listen", "127.0.0.1:0"],
        env=environment | {"NOTIFY_SOCKET": manager_socket.getsockname(), "WATCHDOG_USEC": "200000"},
        stderr=subprocess.DEVNULL,
    )
    try:
        told = {manager_socket.recv(100)}
        while not {b"READY=1", b"WATCHDOG=1"} <= told:
            told.add(manager_socket.recv(100))
        process.send_signal(signal.SIGTERM)
        while b"STOPPING=1" not in told:
            told.add(manager_socket.recv(100))
        assert 0 == process.wait(20)
    finally:
        process.kill()
        process.wait()

    assert {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"} == told
