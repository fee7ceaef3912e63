"""What ingestion feels of the archivist beside it.

Takes   a server on one core with a backlog of sealed segments, and a load on another at a quarter of its highest rate.
Gives   how long the slowest of a hundred answers take while the archivist works, beside the same while it is stopped.
Never   believes that it worked: its processor time in each round is looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import archive, ingest
from .harness import CannotMeasure, Comparison, Goal, Measured, Plan, in_turn

WORKING, STOPPED = "archivist works", "archivist stopped"
SHARE = 1 / 4
GOAL = Goal("at most", 1.5)
# Below this share of a round's time the archivist was not at work in it: the rest of the core is free for it.
BUSY_MIN = 0.1


@dataclasses.dataclass(frozen=True)
class Amount:
    """How many reports wait to be archived, how many are posted, in how many rounds of how many seconds."""

    backlog: int
    documents: int
    rounds: int
    seconds: float


FULL, QUICK = Amount(400_000, 8000, 12, 2.0), Amount(60_000, 1000, 2, 1.0)


def measure(plan: Plan) -> Measured:
    amount = QUICK if plan.quick else FULL
    requests = ingest.prepare(plan.scratch, amount.documents)
    server_core, load_core = ingest.two_cores()
    data = plan.scratch / "data"
    archive.write_segments(data, "reports", amount.backlog)
    samples: dict[str, list[dict[str, Any]]] = {WORKING: [], STOPPED: []}
    with Awake.started(ingest.ARCHIVING, data, plan.scratch, server_core) as server:
        server.signal(signal.SIGCONT)
        archivist = Archivist.of(server.process.pid)
        with archivist.stopped():
            highest = requests.load(server, "zstd", 2 * amount.seconds, load_core)["per_second"]
        # What it begins with, libraries and a look at all segments, is not what is measured.
        requests.load(server, "zstd", 2 * amount.seconds, load_core, per_second=SHARE * highest)
        for _, name in in_turn((WORKING, STOPPED), amount.rounds):
            before = archivist.processor_seconds()
            with contextlib.nullcontext() if name == WORKING else archivist.stopped():
                sample = requests.load(server, "zstd", amount.seconds, load_core, per_second=SHARE * highest)
            worked = archivist.processor_seconds() - before
            if (worked > BUSY_MIN * amount.seconds) != (name == WORKING):
                raise CannotMeasure(f"{name}, and it worked {worked:.2f} s of {amount.seconds:g} s")
            samples[name].append({**sample, "worked": worked})
    rounds = [(one["p99_ms"], other["p99_ms"]) for one, other in zip(*samples.values(), strict=True)]
    return Measured(
        [Comparison("beside/p99", WORKING, STOPPED, "ms", rounds, goal=GOAL)],
        {
            **{name: told(taken) for name, taken in samples.items()},
            "a quarter of the highest rate": f"{SHARE * highest:.0f} answers/s",
            "a core for the server and its archivist, another for the load": server_core is not None,
        },
    )


def told(samples: list[dict[str, Any]]) -> str:
    return (
        f"{statistics.median(one['per_second'] for one in samples):.0f} answers/s, "
        f"p50 {statistics.median(one['p50_ms'] for one in samples):.2f} ms, "
        f"p99 {statistics.median(one['p99_ms'] for one in samples):.2f} ms, "
        f"archivist {statistics.median(one['worked'] for one in samples):.2f} s of processor a round"
    )


class Awake(ingest.Server):
    """A server that is not stopped between loads: its archivist would be woken with it."""

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        yield


@dataclasses.dataclass(frozen=True)
class Archivist:
    """The child of a server that archives. The server goes on while it is stopped."""

    pid: int

    @classmethod
    def of(cls, server: int) -> Archivist:
        tasks = Path(f"/proc/{server}/task").glob("*/children")
        children = [int(pid) for task in tasks for pid in task.read_text("ascii").split()]
        if len(children) != 1:
            raise CannotMeasure(f"the server has {len(children)} children, and not one archivist")
        return cls(children[0])

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def processor_seconds(self) -> float:
        return ingest.processor_seconds(self.pid) or 0.0
