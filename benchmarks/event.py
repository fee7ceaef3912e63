"""What logging one event costs its caller, beside posthog's `capture` and Glean's `record`.

Takes   bursts of calls in turn, in several processes, each followed by a pause for the libraries' own threads.
Gives   microseconds a call.
Never   counts calls that were dropped: what each process logged must be in its session's log afterwards.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .harness import CannotMeasure, Comparison, Goal, Measured, Plan, in_turn, json_of_child

PROCESSES, ROUNDS, CALLS = 3, 60, 200
PROCESSES_QUICK, ROUNDS_QUICK, CALLS_QUICK = 1, 8, 50
PAUSE_SECONDS = 0.03
GOAL_POSTHOG = Goal("at most", 0.15)
GOAL_GLEAN = Goal("at most", 0.5)
APPLICATION = "example.org/bench"
OURS, POSTHOG, GLEAN = "Telemetry.event", "posthog capture", "Glean record"
DECLARATION = f"""
application = "{APPLICATION}"
contact = "privacy@example.org"

[events.export]
why = "To have something to log"
owner = "benchmarks"
expires = "never"
fields = {{ format = ["pdf", "html"], pages = "count" }}
"""


def measure(plan: Plan) -> Measured:
    processes, rounds, calls = (
        (PROCESSES_QUICK, ROUNDS_QUICK, CALLS_QUICK) if plan.quick else (PROCESSES, ROUNDS, CALLS)
    )
    samples: dict[str, list[float]] = {}
    for number in range(processes):
        folder = plan.scratch / str(number)
        folder.mkdir()
        child = json_of_child("-m", f"{__package__}.event", str(folder), str(rounds), str(calls))
        for name, values in samples_of(child).items():
            samples.setdefault(name, []).extend(values)
    facts = {
        "us a call": {name: round(statistics.median(values), 2) for name, values in samples.items()},
        "processes, rounds, calls": [processes, rounds, calls],
        "peers": sorted(set(samples) - {OURS}),
    }
    return Measured(compare(samples), facts)


def samples_of(child: dict[str, Any]) -> dict[str, list[float]]:
    """The samples of one process, by subject.

    Raises:
        CannotMeasure: not every call was logged, so what was timed was something else than logging.
    """
    if child["logged"] != child["called"]:
        raise CannotMeasure(f"called {child['called']} times, logged {child['logged']}")
    return dict(child["us"])


def compare(samples: dict[str, list[float]]) -> list[Comparison]:
    """Ours beside each peer that is there."""
    return [
        Comparison(
            f"event/{peer.partition(' ')[0].lower()}",
            OURS,
            peer,
            "us",
            list(zip(samples[OURS], samples[peer], strict=True)),
            goal=goal,
        )
        for peer, goal in ((POSTHOG, GOAL_POSTHOG), (GLEAN, GOAL_GLEAN))
        if peer in samples
    ]


class Taker(BaseHTTPRequestHandler):
    """A server that takes whatever is posted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *given: object) -> None:
        """Say nothing."""


def subjects(folder: Path, server: str) -> dict[str, Callable[[], object]]:
    """Everything that is timed, each with the same two fields. Glean has no build for every machine."""
    from posthog import Posthog

    from tallypost import Telemetry

    declaration = folder / "telemetry.toml"
    declaration.write_text(DECLARATION)
    telemetry = Telemetry(
        APPLICATION, "1.0", declaration=declaration, dir=folder, uploader="manual", environ={"TALLYPOST": "local"}
    )
    posthog = Posthog("phc_bench", host=server)
    found: dict[str, Callable[[], object]] = {
        OURS: lambda: telemetry.event("export", format="pdf", pages=3),
        POSTHOG: lambda: posthog.capture("export", distinct_id="somebody", properties={"format": "pdf", "pages": 3}),
    }
    try:
        from glean import Configuration, Glean
        from glean.metrics import CommonMetricData, EventExtras, EventMetricType, Lifetime
    except ImportError:
        return found

    class Extras(EventExtras):
        def to_ffi_extra(self) -> dict[str, str]:
            return {"format": "pdf", "pages": "3"}

    Glean.initialize(
        "bench", "1.0", True, configuration=Configuration(server_endpoint=server), data_dir=folder / "glean"
    )
    about = CommonMetricData(
        category="bench", name="export", send_in_pings=["events"], lifetime=Lifetime.PING, disabled=False
    )
    metric = EventMetricType(about, ["format", "pages"])
    found[GLEAN] = lambda: metric.record(Extras())
    return found


def sample(folder: Path, rounds: int, calls: int) -> dict[str, Any]:
    """The child's part: microseconds a call by subject, a sample a burst."""
    logging.disable(logging.CRITICAL)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    timed = subjects(folder, f"http://127.0.0.1:{server.server_address[1]}")
    for call in timed.values():
        call()
    time.sleep(1.0)  # Whatever a library does at its begin is over.
    us: dict[str, list[float]] = {name: [] for name in timed}
    for _, (name, call) in in_turn(list(timed.items()), rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        us[name].append((time.perf_counter() - begin) / calls * 1e6)
        time.sleep(PAUSE_SECONDS)
    time.sleep(0.5)
    lines = sum(len(log.read_bytes().splitlines()) - 1 for log in folder.rglob("events/*.jsonl"))
    return {"us": us, "called": 1 + rounds * calls, "logged": lines}


def main(arguments: Sequence[str]) -> None:
    folder, rounds, calls = arguments
    print(json.dumps(sample(Path(folder), int(rounds), int(calls))))
    sys.stdout.flush()
    os._exit(0)  # The peers' threads would keep the process for seconds.


if __name__ == "__main__":
    main(sys.argv[1:])
