"""How long a program takes to end when its telemetry's server takes connections and never answers.

Takes   whole processes that count one thing and end, each with its library's documented minimum and defaults.
Gives   milliseconds from a program's last statement to its end, and for its whole life, over one without telemetry.
Never   counts a program whose library did not try to send: the server must have been connected to.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .harness import ROOT, CannotMeasure, Comparison, Goal, Measured, Plan, in_turn

# A peer waits for seconds, and says so each time: few rounds of them are enough.
ROUNDS, ROUNDS_QUICK = 40, 5
PEER_ROUNDS, PEER_ROUNDS_QUICK = 5, 1
SECONDS_MAX = 120.0
UPLOADER_SECONDS_MAX = 75.0
GOAL = Goal("at most", 10.0)
APPLICATION = "example.org/bench"

DECLARATION = f"""
application = "{APPLICATION}"
contact = "privacy@example.org"
consent_version = 1

[counters."cmd/export"]
why = "To have something that leaves"
owner = "benchmarks"
expires = "never"
"""
COUNT = (
    "import sys; from tallypost import Telemetry\n"
    f'Telemetry("{APPLICATION}", "1.0", endpoint=sys.argv[1], declaration=sys.argv[3], dir=sys.argv[2])'
    '.counter("cmd/export").inc()\n'
)
BARE = "none"
OURS = "Tallypost"
# Each is given the server's address as its first argument.
PROGRAMS = {
    BARE: "",
    OURS: COUNT,
    "posthog": (
        "import sys; from posthog import Posthog\n"
        'posthog = Posthog("phc_bench", host=sys.argv[1])\n'
        'posthog.capture("export", distinct_id="somebody")\n'
    ),
    "sentry-sdk": (
        "import sys, sentry_sdk\n"
        'sentry_sdk.init(dsn=sys.argv[1].replace("//", "//bench@") + "/1")\n'
        "try:\n"
        "    1 / 0\n"
        "except ZeroDivisionError:\n"
        "    sentry_sdk.capture_exception()\n"
    ),
    "OpenTelemetry": (
        "import sys\n"
        "from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader\n"
        'reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=sys.argv[1] + "/v1/metrics"))\n'
        'MeterProvider([reader]).get_meter("bench").create_counter("export").add(1)\n'
    ),
}
# The clock of all processes: what a program says last can be compared with what its parent sees.
LAST_STATEMENT = "import os, time; os.write(1, b'%d' % time.monotonic_ns())"


class Ended(NamedTuple):
    """A program's life, and its end alone."""

    whole_ms: float
    exit_ms: float


class SilentServer:
    """A server that takes every connection and never answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Protects what follows: the thread takes, the benchmark closes.
        self._open: list[socket.socket] = []
        self._taken = 0
        self._closing = False
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._take, daemon=True).start()

    def taken(self) -> int:
        """How many connections were taken since the last call."""
        with self._lock:
            taken, self._taken = self._taken, 0
        return taken

    @contextlib.contextmanager
    def hanging_up(self) -> Iterator[None]:
        """Close each connection meanwhile, those that are open first."""
        with self._lock:
            self._closing = True
            self._close_all()
        try:
            yield
        finally:
            with self._lock:
                self._closing = False

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            self._close_all()

    def _close_all(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self._taken += 1
                self._open.append(connection)
                if self._closing:
                    self._close_all()


class Machine:
    """A user's machine on which an upload is due: a yes was said, and documents wait."""

    def __init__(self, base: Path, server: SilentServer) -> None:
        from tallypost.disk import OsDisk
        from tallypost.state_directory import StateDirectory

        self.environ = environment()
        self._disk, self._directory = OsDisk(), StateDirectory(str(base), APPLICATION)
        self._not_before = Path(self._directory.not_before)
        declaration = base.with_suffix(".toml")
        declaration.write_text(DECLARATION)
        self.arguments = [server.url, str(base), str(declaration)]
        count = ["python", "-c", COUNT, *self.arguments]
        self._at(4, count)
        self._at(3, ["tallypost", "--dir", str(base), "--app", APPLICATION, "on"])
        self._at(2, count)
        self._at(1, count)
        self._at(0, ["tallypost", "--dir", str(base), "--app", APPLICATION, "report"])
        self.waiting = len(list(Path(self._directory.pending).iterdir()))
        if self.waiting == 0:
            raise CannotMeasure("no document waits, so there is nothing to upload")

    def make_due(self) -> None:
        """Have the next try be now, and no failure be remembered."""
        Path(self._directory.upload_state).unlink(missing_ok=True)
        self._not_before.write_text("0\n")

    def wait_for_uploader(self) -> None:
        """Wait until the uploader that a program started is done.

        Raises:
            CannotMeasure: none was started, or it does not end.
        """
        if self._not_before.read_text() == "0\n":
            raise CannotMeasure("a program that counted started no uploader")
        until = time.monotonic() + UPLOADER_SECONDS_MAX
        started = self._not_before.read_text()
        while time.monotonic() < until:
            lock = self._disk.try_lock(self._directory.uploader_lock)
            if lock is not None:
                lock.release()
                if self._not_before.read_text() != started:
                    return
            time.sleep(0.02)
        raise CannotMeasure(f"an uploader did not end within {UPLOADER_SECONDS_MAX:g} s")

    def _at(self, days_ago: int, command: list[str]) -> None:
        then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=days_ago)
        line = [sys.executable, "-m", "tallypost.testing", "--at", then.strftime("%Y-%m-%dT%H:%M:%SZ"), "--", *command]
        done = subprocess.run(line, cwd=ROOT, env=self.environ, capture_output=True, text=True)
        if done.returncode != 0:
            raise CannotMeasure(f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr[-500:]}")


def measure(plan: Plan) -> Measured:
    rounds, peer_rounds = (ROUNDS_QUICK, PEER_ROUNDS_QUICK) if plan.quick else (ROUNDS, PEER_ROUNDS)
    server = SilentServer()
    try:
        machine = Machine(plan.scratch / "state", server)
        # Once before anything counts: byte code is compiled, files are in memory.
        for name in (BARE, OURS):
            round_of(name, machine, server)
        ended: dict[str, list[Ended]] = {name: [] for name in PROGRAMS}
        for number, name in in_turn(tuple(PROGRAMS), rounds):
            if name in (BARE, OURS) or number < peer_rounds:
                ended[name].append(round_of(name, machine, server))
    finally:
        server.close()
    facts: dict[str, Any] = {
        "exit, ms": {name: round(statistics.median(one.exit_ms for one in lives), 1) for name, lives in ended.items()},
        "whole process, ms": {
            name: round(statistics.median(one.whole_ms for one in lives), 1) for name, lives in ended.items()
        },
        "documents that waited": machine.waiting,
        "rounds, of the peers": [rounds, peer_rounds],
    }
    return Measured(compare(ended), facts)


def compare(ended: dict[str, list[Ended]]) -> list[Comparison]:
    """Each program over the one without telemetry, in the rounds that both had."""

    def over_bare(name: str, subject: str, field: str, goal: Goal | None = None) -> Comparison:
        pairs = zip(ended[subject], ended[BARE], strict=False)  # A peer takes part in the first rounds only.
        rounds = [(getattr(one, field), getattr(other, field)) for one, other in pairs]
        return Comparison(name, subject, "no telemetry", "ms", rounds, how="difference", goal=goal)

    comparisons = [
        over_bare("exit_time", OURS, "exit_ms", GOAL),
        over_bare("exit_time/whole", OURS, "whole_ms"),
    ]
    for peer in PROGRAMS:
        if peer not in (BARE, OURS):
            comparisons.append(over_bare(f"exit_time/{peer}", peer, "exit_ms"))
            comparisons.append(over_bare(f"exit_time/{peer}-whole", peer, "whole_ms"))
    return comparisons


def round_of(name: str, machine: Machine, server: SilentServer) -> Ended:
    """Run a program to its end, and see that its library did try to send."""
    machine.make_due()
    server.taken()
    ended = life_of(PROGRAMS[name], *machine.arguments, environ=machine.environ)
    if name == OURS:
        # Not before the program has ended, and to its end: the next round begins with a machine at rest.
        _wait_for_a_connection(server)
        with server.hanging_up():
            machine.wait_for_uploader()
    elif name != BARE and server.taken() == 0:
        raise CannotMeasure(f"{name} did not connect to the server, so there was nothing that could have hung")
    with server.hanging_up():
        return ended


def _wait_for_a_connection(server: SilentServer) -> None:
    until = time.monotonic() + 20
    while server.taken() == 0:
        if time.monotonic() > until:
            raise CannotMeasure("no uploader connected to the server")
        time.sleep(0.01)


def life_of(program: str, *arguments: str, environ: dict[str, str]) -> Ended:
    """Run a program to its end."""
    begin = time.monotonic_ns()
    process = subprocess.Popen(
        [sys.executable, "-c", program + LAST_STATEMENT, *arguments],
        env=environ,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Some say that they wait.
    )
    # With a time limit of its own `wait` would look for the end now and then, and be late.
    too_long = threading.Timer(SECONDS_MAX, process.kill)
    too_long.start()
    status = process.wait()
    end = time.monotonic_ns()
    too_long.cancel()
    assert process.stdout is not None
    with process.stdout as said:
        last = said.read()
    if status != 0:
        raise CannotMeasure(f"python -c {program[:60]!r} ended with status {status}")
    return Ended((end - begin) / 1e6, (end - int(last)) / 1e6)


def environment() -> dict[str, str]:
    """That of a user's machine: no test, no CI, no proxy between a program and the server."""
    hidden = ("TALLYPOST", "PYTEST", "OTEL_", "SENTRY_", "POSTHOG_")
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(hidden) and not name.lower().endswith("_proxy")
    }
    for name in ("CI", "DO_NOT_TRACK", "PYTHONDONTWRITEBYTECODE"):  # Installed packages have their byte code.
        environ.pop(name, None)
    return environ
