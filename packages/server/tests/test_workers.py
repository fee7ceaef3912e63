"""Several workers behind one socket, as real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallypost_schema import receipts
from tallypost_server import limits
from tallypost_server.clock import SystemClock
from tallypost_server.metrics import Metrics
from tallypost_server.notify import Manager
from tallypost_server.shared_metrics import SharedMetrics
from tallypost_server.testing import FaultyDisk
from tallypost_server.workers import Supervisor, worker_of

Spawn = Callable[..., Any]
Document = Callable[..., bytes]
Stored = Callable[[], list[dict[str, Any]]]
JSON = {"content-type": "application/json"}


class Senders:
    """Threads that post, each document once, and note what was acknowledged."""

    def __init__(self, server: Any, report: Document, today: str) -> None:
        self._server, self._report, self._today = server, report, today
        self.acknowledged: list[str] = []
        self._stopping = False
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(4)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Return once so many more were acknowledged."""
        until, before = time.monotonic() + 30, len(self.acknowledged)
        while len(self.acknowledged) < before + count:
            assert time.monotonic() < until, "nothing more is acknowledged"
            time.sleep(0.01)

    def _post(self, sender: int) -> None:
        number = 0
        while not self._stopping:
            # A connection for each few: the kernel gives it to any worker.
            with self._server.client() as client:
                for _ in range(5):
                    number += 1
                    name = f"{sender:016x}{number:016x}"
                    body = self._report(id=name, day=self._today)
                    try:
                        answer = client.post("/v1/reports", content=body, headers=JSON)
                    except httpx.TransportError:
                        break
                    if answer.status_code == 200:
                        assert receipts.is_receipt_of(answer.content, body)
                        self.acknowledged.append(name)


def children_of(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_store_what_they_acknowledge_and_end_with_0(
    spawn: Spawn, report: Document, data: Path, stored: Stored, today: str
) -> None:
    """Each has a segment of its own; at SIGTERM all are sealed, and the names tell whose they are."""
    server = spawn("--workers", "2", "--seal-bytes", "5000")
    with Senders(server, report, today) as senders:
        senders.wait_for(200)
        with server.client() as client:
            pages = [client.get("/metrics").text for _ in range(3)]
        server.process.send_signal(signal.SIGTERM)
        assert 0 == server.process.wait(20)

    assert set(senders.acknowledged) <= {line["stream"] for line in stored()}
    assert [] == list((data / "segments" / "open").iterdir())
    boots = {path.name.split("-")[3] for path in (data / "segments").glob("*.zst")}
    assert 2 == len(boots)
    assert {"0", "1"} == set(re.findall(r'tallypost_ready\{worker="(\d)"\} 1', pages[-1]))
    assert 1 == pages[-1].count("# TYPE tallypost_ready gauge")


def test_worker_that_is_killed_loses_nothing_and_is_started_again(
    spawn: Spawn, report: Document, data: Path, stored: Stored, today: str
) -> None:
    """Its heir seals what it left behind, and leaves alone what the other has open."""
    server = spawn("--workers", "2")
    with Senders(server, report, today) as senders:
        senders.wait_for(50)
        before = children_of(server.process.pid)
        os.kill(before[0], signal.SIGKILL)
        until = time.monotonic() + 20
        while len(set(children_of(server.process.pid)) - set(before)) < 1 or not list(
            (data / "segments").glob("*.zst")
        ):
            assert time.monotonic() < until, "no heir, or it sealed nothing"
            time.sleep(0.05)
        senders.wait_for(50)
        assert before[1] in children_of(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        assert 0 == server.process.wait(20)

    assert set(senders.acknowledged) <= {line["stream"] for line in stored()}


def test_workers_end_with_the_one_who_started_them_and_a_new_start_goes_on(
    spawn: Spawn, report: Document, data: Path, stored: Stored, today: str
) -> None:
    """Killed with SIGKILL: the kernel ends its workers at once, and folder and port are free."""
    server = spawn("--workers", "2")
    with Senders(server, report, today) as senders:
        senders.wait_for(50)
        workers = children_of(server.process.pid)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    until = time.monotonic() + 5
    while any(map(is_alive, workers)):
        assert time.monotonic() < until, "a worker lives on"
        time.sleep(0.02)

    again = spawn("--workers", "2", listen=server.address)

    assert set(senders.acknowledged) <= {line["stream"] for line in stored()}
    assert len(stored()) == len({line["stream"] for line in stored()})
    again.process.send_signal(signal.SIGTERM)
    assert 0 == again.process.wait(20)
    assert [] == list((data / "segments" / "open").iterdir())


def test_worker_owns_what_its_earlier_lives_and_other_runs_left_and_nothing_of_the_living() -> None:
    """Also where a life ended before it had sealed what the one before it left."""
    first, second = (worker_of("0a0a0a0a", number, 3, lambda: None) for number in (0, 1))
    boots = {"0a0a0a0a000001", "0a0a0a0a000002", "0a0a0a0a000003", "0a0a0a0a010001", "0a0a0a0a010003", "0b0b0b0b"}

    assert {"0a0a0a0a000001", "0a0a0a0a000002", "0b0b0b0b"} == set(filter(first.owns, boots))
    assert {"0a0a0a0a010001"} == set(filter(second.owns, boots))
    assert ("0a0a0a0a000003", "0a0a0a0a010003") == (first.boot, second.boot)


def test_worker_that_cannot_be_started_is_tried_again_later() -> None:
    """A machine without room for a process does not end those that serve."""

    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    manager = Manager({}, clock=SystemClock())
    supervisor = Supervisor(2, lambda worker: 0, run="0a0a0a0a", manager=manager, close=lambda: None, fork=fork)

    supervisor._start(1)

    assert [1] == list(supervisor._due)


HANGS_IN_ITS_FIRST_LIFE = """
import logging, os, signal, time
from tallypost_server import limits
from tallypost_server.clock import SystemClock
from tallypost_server.notify import Manager
from tallypost_server.workers import Supervisor

def work(worker):
    while True:
        if worker.boot.endswith("0002"):  # Longer than the first one was silent.
            time.sleep(limits.tick_seconds)
            lived = getattr(work, "lived", 0) + 1
            work.lived = lived
            worker.beat()
            if lived == 10:
                os.kill(os.getppid(), signal.SIGTERM)

logging.basicConfig(format="%(message)s")
manager = Manager({}, clock=SystemClock())
raise SystemExit(Supervisor(1, work, run="0a0a0a0a", manager=manager, close=int, silent_seconds_max=1).serve())
"""


def test_worker_that_hangs_is_killed_and_started_again() -> None:
    """Its heir, which turns its loop, is left alone for longer than that."""
    done = subprocess.run([sys.executable, "-c", HANGS_IN_ITS_FIRST_LIFE], capture_output=True, text=True, timeout=30)

    assert "worker 0 has not turned its loop for 1 s and is killed" in done.stderr
    assert ["worker 0 ended with -9 and is started again"] == re.findall(r"worker 0 ended.*", done.stderr)
    assert 0 == done.returncode


@pytest.mark.long
@pytest.mark.timeout(120)
def test_worker_that_is_stopped_under_load_is_replaced(
    spawn: Spawn, report: Document, stored: Stored, today: str
) -> None:
    """What it had acknowledged is kept, the other one serves, and so does its heir."""
    server = spawn("--workers", "2")
    with Senders(server, report, today) as senders:
        senders.wait_for(50)
        before = children_of(server.process.pid)
        os.kill(before[0], signal.SIGSTOP)
        until = time.monotonic() + limits.worker_silent_seconds_max + 20
        while before[0] in children_of(server.process.pid) or len(children_of(server.process.pid)) < 2:
            assert time.monotonic() < until, "it is not replaced"
            time.sleep(0.1)
        senders.wait_for(50)
        assert before[1] in children_of(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        assert 0 == server.process.wait(20)

    assert set(senders.acknowledged) <= {line["stream"] for line in stored()}


def test_shared_metrics_are_those_of_all_workers_each_labelled(tmp_path: Path) -> None:
    """A worker that has not written yet, or whose file is damaged, is left out; a full disk costs only freshness."""
    disk, both = FaultyDisk(), [Metrics(), Metrics()]
    shared = [SharedMetrics(tmp_path, metrics, number, disk=disk) for number, metrics in enumerate(both)]
    both[0].stored.add("report", by=3)
    both[1].stored.add("report", by=4)
    alone = shared[0].text()
    shared[1].write()
    (tmp_path / "7.json").write_bytes(b"{")

    text = shared[0].text()

    assert 'tallypost_documents_stored_total{worker="0",kind="report"} 3' in alone
    assert 'worker="1"' not in alone
    assert 'tallypost_documents_stored_total{worker="1",kind="report"} 4' in text
    assert 'tallypost_commit_groups_total{worker="1"} 0' in text
    assert 1 == text.count("# HELP tallypost_documents_stored_total")


@pytest.mark.parametrize("workers", ["0", "65", "2.5", "many"])
def test_workers_are_a_number_of_processes(make_settings: Callable[..., Any], workers: str) -> None:
    """What makes no sense is said at the start."""
    with pytest.raises(Exception, match=r"from 1 to 64|from 0 on"):
        make_settings(workers=workers)
