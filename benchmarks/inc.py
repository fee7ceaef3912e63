"""What one count costs, beside prometheus_client and beside a bare method that adds to an attribute.

Takes   a real count file, and loops of some thousand calls in turn, in several processes.
Gives   nanoseconds a call, as they are and with the call of an empty method taken off.
Never   counts into the void: what the count file holds afterwards must be what was called.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .harness import CannotMeasure, Comparison, Goal, Measured, Plan, in_turn, json_of_child

# Several processes: where a process happens to lie in memory can be worth a tenth.
PROCESSES, ROUNDS, CALLS = 5, 120, 5000
PROCESSES_QUICK, ROUNDS_QUICK, CALLS_QUICK = 1, 20, 2000
GOAL = Goal("at most", 0.6)
GOAL_BARE = Goal("at most", 4.0)
GOAL_OPENTELEMETRY = Goal("at most", 0.15)
APPLICATION = "example.org/bench"
EDGES = (0.1, 1.0, 10.0)


class Subject(NamedTuple):
    name: str
    statement: str
    target: Any


class Floor:
    """The call of a method, with nothing in it."""

    __slots__ = ()

    def nothing(self) -> None:
        pass


class Bare:
    """The least that counting can be."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0

    def inc(self, n: int = 1) -> None:
        self.n += n


def measure(plan: Plan) -> Measured:
    processes, rounds, calls = (
        (PROCESSES_QUICK, ROUNDS_QUICK, CALLS_QUICK) if plan.quick else (PROCESSES, ROUNDS, CALLS)
    )
    samples: dict[str, list[float]] = {}
    for number in range(processes):
        folder = plan.scratch / str(number)
        folder.mkdir()
        child = json_of_child("-m", f"{__package__}.inc", str(folder), str(rounds), str(calls))
        check_counted(folder, child["called"])
        for name, values in child["ns"].items():
            samples.setdefault(name, []).extend(values)
    facts = {
        "ns a call": {name: round(statistics.median(values), 1) for name, values in samples.items()},
        "processes, rounds, calls": [processes, rounds, calls],
    }
    return Measured(compare(samples), facts)


def compare(samples: dict[str, list[float]]) -> list[Comparison]:
    """The pairs that say something, of the samples by subject."""

    def pair(name: str, subject: str, peer: str, goal: Goal | None = None) -> Comparison:
        rounds = list(zip(samples[subject], samples[peer], strict=True))
        return Comparison(name, subject, peer, "ns", rounds, goal=goal)

    def net(name: str, subject: str, peer: str) -> Comparison:
        # Against the median of the floor: a round's own would add its noise to a difference of a few nanoseconds.
        floor = statistics.median(samples["empty method"])
        rounds = [
            (one - floor, max(other - floor, 0.1)) for one, other in zip(samples[subject], samples[peer], strict=True)
        ]
        return Comparison(name, subject, peer, "ns", rounds)

    return [
        # The goal is held against the calls as they are: taking the floor off both sides only flatters the faster.
        pair("inc", "Counter.inc", "prometheus Counter.inc", GOAL),
        net("inc/net", "Counter.inc", "prometheus Counter.inc"),
        pair("inc/mapped", "Counter.inc", "prometheus mapped inc"),
        pair("inc/opentelemetry", "Counter.inc", "OpenTelemetry add", GOAL_OPENTELEMETRY),
        pair("inc/bare", "Counter.inc", "bare method", GOAL_BARE),
        net("inc/bare-net", "Counter.inc", "bare method"),
        pair("inc/bucket", "Counter.inc(bucket=)", "prometheus labels().inc"),
        pair("inc/observe", "Histogram.observe", "prometheus observe"),
        pair("inc/observe-bare", "Histogram.observe", "bare method"),
        pair("inc/stack", "StackCounter.inc", "traceback.extract_stack"),
    ]


def check_counted(folder: Path, called: dict[str, int]) -> None:
    """Compare what the folder's count files hold with what was called.

    Raises:
        CannotMeasure: they differ, so what was timed was something else than counting.
    """
    shown = json_of_child("-m", "tallypost", "--dir", str(folder), "--app", APPLICATION, "--json", "show")
    counted: dict[str, int] = {}
    for day in shown["days"]:  # Two, if midnight came meanwhile.
        for program in day["programs"]:
            for name, value in program["counters"].items():
                counted[name] = counted.get(name, 0) + value
    wrong = {name: (calls, counted.get(name, 0)) for name, calls in called.items() if counted.get(name, 0) != calls}
    if wrong:
        raise CannotMeasure(f"called and counted differ: {wrong}")


def subjects(folder: Path) -> list[Subject]:
    """Everything that is timed, each warm: its cell attached, its labels there."""
    import traceback

    import prometheus_client
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from prometheus_client import values

    from tallypost import Telemetry

    telemetry = Telemetry(APPLICATION, "1.0", dir=folder, uploader="manual", environ={"TALLYPOST": "local"})
    registry = prometheus_client.CollectorRegistry()
    labelled = prometheus_client.Counter("labelled", "-", ["bucket"], registry=registry)
    # The rival that survives its process as well; it reads its choice from the environment when it is imported,
    # but takes the class of a value from here.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    plain, values.ValueClass = values.ValueClass, values.MultiProcessValue()
    mapped = prometheus_client.Counter("mapped", "-", registry=registry)
    values.ValueClass = plain
    meter = MeterProvider([InMemoryMetricReader()]).get_meter("bench")
    return [
        Subject("empty method", "target.nothing()", Floor()),
        Subject("bare method", "target.inc()", Bare()),
        Subject("Counter.inc", "target.inc()", telemetry.counter("cmd/plain")),
        Subject("prometheus Counter.inc", "target.inc()", prometheus_client.Counter("plain", "-", registry=registry)),
        Subject("prometheus mapped inc", "target.inc()", mapped),
        Subject("OpenTelemetry add", "target.add(1)", meter.create_counter("plain")),
        Subject("Counter.inc(bucket=)", 'target.inc(bucket="pdf")', telemetry.counter("cmd/bucketed")),
        Subject("prometheus labels().inc", 'target.labels("pdf").inc()', labelled),
        Subject("Histogram.observe", "target.observe(0.7)", telemetry.histogram("export/seconds", EDGES)),
        Subject(
            "prometheus observe",
            "target.observe(0.7)",
            prometheus_client.Histogram("seconds", "-", buckets=EDGES, registry=registry),
        ),
        Subject("StackCounter.inc", "target.inc()", telemetry.stack("warn/slow")),
        # What a reporter of errors does first, before it has made anything of it.
        Subject("traceback.extract_stack", "target(limit=8)", traceback.extract_stack),
    ]


def sample(folder: Path, rounds: int, calls: int) -> dict[str, Any]:
    """The child's part: nanoseconds a call by subject, a sample a round."""
    timers = [
        (subject.name, timeit.Timer(subject.statement, "target = given", globals={"given": subject.target}))
        for subject in subjects(folder)
    ]
    warm_up = 2000
    for _, timer in timers:
        timer.timeit(warm_up)
    ns: dict[str, list[float]] = {name: [] for name, _ in timers}
    for _, (name, timer) in in_turn(timers, rounds):
        ns[name].append(timer.timeit(calls) / calls * 1e9)
    each = warm_up + rounds * calls
    called = {"cmd/plain": each, "cmd/bucketed": each, "cmd/bucketed:pdf": each, "export/seconds:<=1": each}
    return {"ns": ns, "called": called}


def main(arguments: Sequence[str]) -> None:
    folder, rounds, calls = arguments
    print(json.dumps(sample(Path(folder), int(rounds), int(calls))))


if __name__ == "__main__":
    main(sys.argv[1:])
