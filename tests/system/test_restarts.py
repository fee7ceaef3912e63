"""What is left when containers end, politely and not."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.system

Json = dict[str, Any]
NewDocument = Callable[..., Json]
Post = Callable[..., httpx.Response]
Show = Callable[[str], list[Json]]
UntilReady = Callable[[], None]

# Waits for a line, then kills all it may: everything but the container's first process, which ends with the server.
KILL_ON_A_LINE = "import os; print('armed', flush=True); input(); os.kill(-1, 9)"


@pytest.fixture(autouse=True)
def running_afterwards(containers: Any, until_ready: UntilReady) -> Iterator[None]:
    """Leave the server running, however a test ended."""
    yield
    containers.compose("start", "server")
    until_ready()


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_report_acknowledged_is_kept_when_the_container_is_killed_at_once(
    attempt: int, containers: Any, post: Post, new_report: NewDocument, show: Show, until_ready: UntilReady
) -> None:
    """A 200 means on disk: the death of everything in the container right after it changes nothing."""
    report = new_report()
    containers.identity("server")  # Known beforehand, the kill comes some milliseconds after the answer.

    answer = post(report)
    containers.kill("server")
    containers.compose("start", "server")
    until_ready()

    assert 200 == answer.status_code, answer.text
    assert [report["id"]] == [entry["doc"]["id"] for entry in show(report["id"])]


def test_server_killed_within_its_container_comes_back_healthy_by_itself(
    containers: Any, post: Post, new_report: NewDocument, show: Show, until_ready: UntilReady
) -> None:
    """The engine starts a server anew whose processes died, the document answered an instant before is there."""
    report = new_report()
    starts_before = containers.inspect("server")["RestartCount"]
    command = [
        containers.engine,
        "exec",
        "--interactive",
        containers.identity("server"),
        "python",
        "-c",
        KILL_ON_A_LINE,
    ]

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        assert "armed\n" == killer.stdout.readline()
        answer = post(report)
        killer.stdin.write("\n")
        killer.stdin.flush()
        killer.wait(timeout=20)
    wait_for(lambda: containers.inspect("server")["RestartCount"] > starts_before)
    until_ready()

    assert 200 == answer.status_code, answer.text
    assert [report["id"]] == [entry["doc"]["id"] for entry in show(report["id"])]
    wait_for(lambda: containers.inspect("server")["State"]["Health"]["Status"] == "healthy")


def test_sender_while_the_server_is_away_is_told_to_try_again(
    containers: Any, post: Post, new_report: NewDocument
) -> None:
    """The proxy answers for a server that is not there, in its form and with a time to wait."""
    containers.compose("stop", "server")

    answer = post(new_report())

    assert 503 == answer.status_code
    assert 0 < int(answer.headers["retry-after"])
    assert "application/json" == answer.headers["content-type"].partition(";")[0]
    assert answer.json()["error"]["retry"] is True


def test_server_at_another_address_is_found_by_the_proxy(
    containers: Any, post: Post, new_report: NewDocument, until_ready: UntilReady
) -> None:
    """When the server comes back under another address, another container having taken its own, documents reach it."""

    def address() -> list[str]:
        return [
            network["IPAddress"] for network in containers.inspect("server")["NetworkSettings"]["Networks"].values()
        ]

    before = address()

    containers.compose("stop", "server")
    other = containers.compose("run", "--no-deps", "--detach", "example", "sleep", "60").stdout.split()[-1]
    try:
        containers.compose("start", "server")
        until_ready()
        after = address()
        answer = post(new_report())
    finally:
        containers.remove(other)
        containers.compose("stop", "server")

    assert before != after
    assert 200 == answer.status_code, answer.text


def test_server_stopped_politely_ends_with_0_and_seals_what_it_had(
    containers: Any, post: Post, new_report: NewDocument
) -> None:
    """After SIGTERM no segment is open, and each sealed one is what its manifest says."""
    report = new_report()

    answer = post(report)
    begun = time.monotonic()
    containers.compose("stop", "server")
    seconds = time.monotonic() - begun
    segments = containers.segments()

    assert 200 == answer.status_code, answer.text
    assert 0 == containers.inspect("server")["State"]["ExitCode"]
    assert seconds < 18
    assert [] == segments.open
    assert [answer.json()["stored"]] == [line["sha256"] for line in segments.lines() if line["stream"] == report["id"]]
    for name, held in segments.sealed.items():
        manifest = segments.manifest(name)
        assert (len(held), hashlib.sha256(held).hexdigest()) == (manifest["bytes"], manifest["sha256"])


def test_reports_acknowledged_under_load_are_all_in_segments_after_a_kill(
    containers: Any, http: httpx.Client, new_report: NewDocument, until_ready: UntilReady
) -> None:
    """Whatever was answered 200 before the container was killed in the middle of its work lies in a sealed segment."""
    acknowledged: set[str] = set()
    over = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=http.base_url, timeout=20, trust_env=False) as client:
            while not over.is_set():
                try:
                    answer = client.post("/v1/reports", json=new_report())
                except httpx.TransportError:  # Half an answer is none.
                    continue
                if answer.status_code == httpx.codes.OK:
                    acknowledged.add(answer.json()["stored"])

    senders = [threading.Thread(target=send, daemon=True) for _ in range(8)]
    for sender in senders:
        sender.start()
    try:
        wait_for(lambda: len(acknowledged) > 100)
        containers.kill("server")
    finally:
        over.set()
        for sender in senders:
            sender.join()
    containers.compose("start", "server")
    until_ready()
    containers.compose("stop", "server")
    segments = containers.segments()

    assert [] == segments.open
    assert acknowledged <= {line["sha256"] for line in segments.lines()}


def wait_for(holds: Callable[[], bool], seconds_max: float = 30) -> None:
    """Look until something is so."""
    deadline = time.monotonic() + seconds_max
    while not holds():
        assert time.monotonic() < deadline, f"it was not so within {seconds_max} s"
        time.sleep(0.1)
