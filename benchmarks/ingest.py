"""What an ingestion that answers 200 only for what is on disk costs, beside a framework that keeps nothing.

Takes   our server and a bare uvicorn, each a process on one core, and a load on another.
Gives   answers a second, their latency and their processor time, beside the bare limit: a write and its sync.
Never   believes an answer: the lines on disk are counted afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from .bare_asgi import FILE_VARIABLE
from .harness import (
    ROOT,
    CannotMeasure,
    Comparison,
    Goal,
    Measured,
    Plan,
    cores,
    in_turn,
    json_of_child,
    percentile,
    pinned_to,
)
from .load import frame

CONNECTIONS = 32
COUNT_MAX = 200_000
READY_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 20.0


@dataclasses.dataclass(frozen=True)
class Amount:
    """How much is measured: servers are started afresh for each block, and loaded in turn for each round of it."""

    blocks: int
    rounds: int
    seconds: float
    warm_up_seconds: float
    documents: int
    syncs: int


# As many documents as are longer than the window a segment is compressed in: a repeat would cost it nothing.
FULL = Amount(blocks=3, rounds=6, seconds=1.0, warm_up_seconds=0.7, documents=8000, syncs=40)
QUICK = Amount(blocks=1, rounds=3, seconds=0.4, warm_up_seconds=0.2, documents=1000, syncs=20)

APPLICATION = "example.org/bench"
COUNTERS = {f"cmd/{verb}-{noun}": ("pdf", "html") for verb in ("export", "import", "open") for noun in ("page", "book")}
STACKS = ("crash/KeyError", "crash/ValueError")
# So many syncs a document may wait for when there is room: its own, the one before it, and what a slow one holds up.
SYNCS = 5
# So many documents come to a group at half of the highest rate.
GROUP = 2.5
GOAL_HALF_RATE = Goal("at most", 1.0)
# Not met: docs/decisions/0016-what-a-stored-document-costs.md tells why.
GOAL_RATE = Goal("at least", 0.75)
OURS, BARE, SYNC_EACH = "ours", "bare uvicorn", "uvicorn, a sync each"
ARCHIVING = "ours, with an archivist"
Answered = dict[tuple[str, str], list[dict[str, Any]]]


def measure(plan: Plan) -> Measured:
    if not hasattr(os, "killpg"):
        raise CannotMeasure("servers are paused by signals to their process groups, which this system does not have")
    amount = QUICK if plan.quick else FULL
    requests = prepare(plan.scratch, amount.documents)
    server_core, load_core = two_cores()
    answered: Answered = {
        (OURS, "identity"): [],
        (BARE, "identity"): [],
        (SYNC_EACH, "identity"): [],
        (OURS, "zstd"): [],
        (BARE, "zstd"): [],
    }
    syncs: dict[int, list[list[float]]] = {1: [], CONNECTIONS: []}
    unhurried: dict[str, list[dict[str, Any]]] = {OURS: [], BARE: []}
    syncs_beside: list[list[float]] = []
    stored = 0
    for block in range(amount.blocks):
        data = plan.scratch / f"data-{block}"
        given = 0
        with contextlib.ExitStack() as running:
            servers = {
                name: running.enter_context(Server.started(name, data, plan.scratch, server_core))
                for name in (OURS, BARE, SYNC_EACH)
            }
            for name, coding in answered:
                warm_up = requests.load(servers[name], coding, amount.warm_up_seconds, load_core)
                given += warm_up["given"] * (name == OURS)
            for _, (name, coding) in in_turn(tuple(answered), amount.rounds):
                sample = requests.load(servers[name], coding, amount.seconds, load_core)
                given += sample["given"] * (name == OURS)
                answered[name, coding].append(sample)
                if (name, coding) == (OURS, "identity"):  # Once a round, beside the server that needs the disk.
                    for group, taken in syncs.items():
                        taken.append(write_and_sync(plan.scratch, requests.documents[:group], amount.syncs))
            half = statistics.median(one["per_second"] for one in answered[OURS, "zstd"][-amount.rounds :]) / 2
            for _, name in in_turn(tuple(unhurried), amount.rounds):
                with contextlib.ExitStack() as beside_it:
                    if name == BARE:
                        taken = beside_it.enter_context(syncing(plan.scratch, requests.documents[0], half / GROUP))
                        syncs_beside.append(taken)
                    sample = requests.load(servers[name], "zstd", amount.seconds, load_core, per_second=half)
                given += sample["given"] * (name == OURS)
                unhurried[name].append(sample)
        kept = lines_in(data)
        if kept != given:
            raise CannotMeasure(f"{given} documents were answered 200, {kept} lie in segments")
        stored += kept
    comparisons = [*compare(answered, syncs), at_half_the_rate(unhurried, syncs_beside)]
    facts = facts_of(answered, syncs, amount, requests, stored, server_core)
    return Measured(comparisons, facts | half_rate_facts(unhurried))


def at_half_the_rate(unhurried: dict[str, list[dict[str, Any]]], syncs: list[list[float]]) -> Comparison:
    """How long the slowest of a hundred wait when there is room, beside the bare application's and some syncs.

    The syncs are those of somebody else while the bare application is loaded, about as many as ours makes: a machine
    that is at work, and that is held back for it, syncs slower than one at rest.
    """
    rounds = [
        (ours["p99_ms"], bare["p99_ms"] + SYNCS * percentile(taken, 0.99) * 1e3)
        for ours, bare, taken in zip(unhurried[OURS], unhurried[BARE], syncs, strict=True)
    ]
    peer = f"{BARE} + {SYNCS} p99 of a sync"
    return Comparison("ingest/half-rate/p99", "ours, zstd", peer, "ms", rounds, goal=GOAL_HALF_RATE)


def half_rate_facts(unhurried: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        f"{name}, zstd, at half of our highest rate": (
            f"{statistics.median(one['per_second'] for one in samples):.0f} answers/s, "
            f"p50 {statistics.median(one['p50_ms'] for one in samples):.2f} ms, "
            f"p99 {statistics.median(one['p99_ms'] for one in samples):.2f} ms"
        )
        for name, samples in unhurried.items()
    }


def compare(answered: Answered, syncs: dict[int, list[list[float]]]) -> list[Comparison]:
    limits = [statistics.median(taken) * 1e3 for taken in syncs[CONNECTIONS]]
    rounds = [(one["p50_ms"], limit) for one, limit in zip(answered[OURS, "identity"], limits, strict=True)]
    return [
        *beside(BARE, "identity", answered),
        *beside(BARE, "zstd", answered),
        # The slower rival: what the group commit is for. The slower the disk, the larger the difference.
        *beside(SYNC_EACH, "identity", answered),
        Comparison("ingest/limit", "ours, p50", f"sync of {CONNECTIONS} documents", "ms", rounds),
    ]


def beside(peer: str, coding: str, answered: Answered) -> list[Comparison]:
    ours, theirs = answered[OURS, coding], answered[peer, coding]

    def pair(what: str, field: str, unit: str, goal: Goal | None = None) -> Comparison:
        rounds = [(one[field], other[field]) for one, other in zip(ours, theirs, strict=True)]
        best: Literal["smallest", "largest"] = "largest" if field == "per_second" else "smallest"
        return Comparison(f"ingest/{coding}/{what}", f"ours, {coding}", peer, unit, rounds, best=best, goal=goal)

    if peer == SYNC_EACH:
        return [pair("rate-to-sync-each", "per_second", "1/s")]
    comparisons = [
        pair("rate", "per_second", "1/s", GOAL_RATE if coding == "zstd" else None),
        pair("p50", "p50_ms", "ms"),
        pair("p99", "p99_ms", "ms"),
    ]
    if all(one["processor_us"] for one in (*ours, *theirs)):  # Linux tells it, in ticks.
        comparisons.insert(1, pair("processor", "processor_us", "us"))
    return comparisons


def facts_of(
    answered: Answered,
    syncs: dict[int, list[list[float]]],
    amount: Amount,
    requests: Requests,
    stored: int,
    server_core: int | None,
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for (name, coding), samples in answered.items():
        facts[f"{name}, {coding}"] = (
            f"{statistics.median(one['per_second'] for one in samples):.0f} answers/s, "
            f"p50 {statistics.median(one['p50_ms'] for one in samples):.2f} ms, "
            f"p99 {statistics.median(one['p99_ms'] for one in samples):.2f} ms, "
            f"{statistics.median(one['processor_us'] or 0 for one in samples):.0f} us processor each, "
            f"load's core {statistics.median(one['busy'] for one in samples):.0%} busy"
        )
    for group, rounds in syncs.items():
        taken = [one for each in rounds for one in each]
        facts[f"write + fdatasync, {group} documents"] = (
            f"p50 {percentile(taken, 0.5) * 1e6:.0f} us, p99 {percentile(taken, 0.99) * 1e6:.0f} us"
        )
    facts["answered 200 and found on disk"] = stored
    facts["bytes a document"] = requests.bytes_each
    facts["connections, blocks, rounds, seconds"] = [CONNECTIONS, amount.blocks, amount.rounds, amount.seconds]
    facts["a core for the server, another for the load"] = server_core is not None
    return facts


# ---------------------------------------------------------------- what is posted


@dataclasses.dataclass(frozen=True)
class Requests:
    """The documents, and files of whole requests of them, one a coding."""

    documents: Sequence[bytes]
    files: dict[str, Path]
    bytes_each: dict[str, int]

    def load(
        self, server: Server, coding: str, seconds: float, core: int | None, *, per_second: float | None = None
    ) -> dict[str, Any]:
        """Load `server` for so long, as hard as it goes or at a rate; every answer must be 200."""
        rate = [] if per_second is None else [str(per_second)]
        with server.awake():
            before = server.processor_seconds()
            file = str(self.files[coding])
            sample: dict[str, Any] = json_of_child(
                "-m", f"{__package__}.load", str(server.port), file, str(CONNECTIONS), str(seconds), str(COUNT_MAX),
                *rate, core=core,
            )  # fmt: skip
            after = server.processor_seconds()
        given = sample["statuses"].get("200", 0)
        if list(sample["statuses"]) != ["200"]:
            raise CannotMeasure(f"{server.name} answered {sample['statuses']}")
        used = None if before is None or after is None else (after - before) / given * 1e6
        return {**sample, "given": given, "processor_us": used}


def prepare(scratch: Path, count: int) -> Requests:
    """Build everything that is sent before anything is measured."""
    import zstandard

    write_declaration(scratch)
    draw = random.Random(20261124)
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    documents = [a_report(draw, day) for _ in range(count)]
    compress = zstandard.ZstdCompressor(level=3).compress
    bodies = {"identity": documents, "zstd": [compress(one) for one in documents]}
    files, bytes_each = {}, {}
    for coding, all_of_it in bodies.items():
        files[coding] = scratch / f"requests.{coding}"
        files[coding].write_bytes(frame([a_request(body, coding) for body in all_of_it]))
        bytes_each[coding] = sum(map(len, all_of_it)) // count
    return Requests(documents, files, bytes_each)


def a_request(body: bytes, coding: str) -> bytes:
    head = (
        "POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def a_report(draw: random.Random, day: str) -> bytes:
    """An upload report of about 1.2 KB; no two are alike."""
    counters: dict[str, int] = {}
    for name, buckets in COUNTERS.items():
        by_bucket = {f"{name}:{bucket}": draw.randrange(1, 10 ** draw.randrange(1, 6)) for bucket in buckets}
        counters |= {name: sum(by_bucket.values()), **by_bucket}
    stacks = {
        f"{name}\nmytool.cli:main:+{draw.randrange(200)}\nmytool.export:run:+{draw.randrange(400)}\n"
        f"mytool.export.pdf:write_page:+{draw.randrange(300)}": draw.randrange(1, 9)
        for name in STACKS
        for _ in range(2)
    }
    program = {
        "program": "bench",
        "version": f"2.{draw.randrange(9)}.{draw.randrange(20)}",
        "python": f"3.{draw.randrange(10, 14)}",
        "os": draw.choice(["linux", "macos", "windows"]),
        "arch": "x86_64",
        "counters": counters,
        "stacks": stacks,
    }
    report = {
        "v": 1,
        "kind": "report",
        "x": round(draw.random(), 6),
        "id": f"{draw.getrandbits(128):032x}",
        "app": APPLICATION,
        "day": day,
        "previous": None,
        "config": "1",
        "programs": [program],
    }
    return json.dumps(report, separators=(",", ":")).encode()


def write_declaration(scratch: Path) -> None:
    """Have our server know the application."""
    common = 'why = "To be measured"\nowner = "benchmarks"\nexpires = "never"\n'
    text = (
        f'application = "{APPLICATION}"\ncontact = "privacy@example.org"\n'
        'about = "https://example.org/telemetry"\nconsent_version = 1\n'
    )
    for name, buckets in COUNTERS.items():
        text += f'\n[counters."{name}"]\n{common}buckets = {json.dumps(buckets)}\n'
    for name in STACKS:
        text += f'\n[stacks."{name}"]\n{common}depth = 8\npackages = ["mytool"]\n'
    applications = scratch / "applications"
    applications.mkdir()
    (applications / "bench.toml").write_text(text, "utf-8")


# ---------------------------------------------------------------- who answers


def command(name: str, port: int, data: Path, scratch: Path) -> list[str]:
    if name in (OURS, ARCHIVING):
        where = ["--data", str(data), "--listen", f"127.0.0.1:{port}", "--applications", str(scratch / "applications")]
        archival = ["--no-archive"] if name == OURS else ["--archive-batch-seconds", "0", "--scan-seconds", "1"]
        return ["-m", "tallypost_server", "serve", *where, *archival]
    app = "keep_nothing" if name == BARE else "sync_each"
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return ["-m", "uvicorn", f"{__package__}.bare_asgi:{app}", "--host", "127.0.0.1", "--port", str(port), *options]


@dataclasses.dataclass
class Server:
    """A server under measurement: a process group of its own, stopped by a signal while another is loaded.

    What it leaves for later (our sealing of segments) is thereby paid for in its own time, not in the peer's.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @classmethod
    @contextlib.contextmanager
    def started(cls, name: str, data: Path, scratch: Path, core: int | None) -> Iterator[Server]:
        port = a_free_port()
        log = scratch / f"{name}.log"
        environ = {key: value for key, value in os.environ.items() if not key.startswith("TALLYPOST")}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *command(name, port, data, scratch)],
                cwd=ROOT,
                env=environ | {FILE_VARIABLE: str(scratch / "sync-each")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=pinned_to(core),
            )
        server = cls(name, port, process)
        try:
            server.wait_until_ready(log)
            server.signal(signal.SIGSTOP)
            yield server
        finally:
            server.end()

    def wait_until_ready(self, log: Path) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as caller:
                    caller.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    if caller.recv(4096).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                pass  # Not yet listening; the deadline is below.
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text("utf-8", "replace")[-2000:]
                raise CannotMeasure(f"{self.name} is not ready after {READY_SECONDS_MAX:g} s, or has ended:\n{said}")
            time.sleep(0.05)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        """Send to the group: it holds only what was started here."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def processor_seconds(self) -> float | None:
        """What the process has used so far; None where the system does not tell."""
        return processor_seconds(self.process.pid)

    def end(self) -> None:
        """Ask, wait, and insist."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()


def processor_seconds(pid: int) -> float | None:
    """What a process has used so far; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def a_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def two_cores() -> tuple[int | None, int | None]:
    """A core for the server and one for the load, or none where there are not two to choose from."""
    available = cores()
    if not hasattr(os, "sched_setaffinity") or len(available) < 2:
        return None, None
    return available[0], available[1]


# ---------------------------------------------------------------- the disk


def write_and_sync(folder: Path, documents: Sequence[bytes], times: int) -> list[float]:
    """Seconds of each append of these documents with its sync."""
    group = b"\n".join(documents)
    with appending(folder) as append:
        return [append(group) for _ in range(times)]


@contextlib.contextmanager
def appending(folder: Path) -> Iterator[Callable[[bytes], float]]:
    """Appends to a file with a sync, and tells how many seconds that took."""
    path = folder / "limit"
    sync = getattr(os, "fdatasync", os.fsync)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(data: bytes) -> float:
        begin = time.perf_counter()
        os.write(descriptor, data)
        sync(descriptor)
        return time.perf_counter() - begin

    try:
        yield append
    finally:
        os.close(descriptor)
        path.unlink()


@contextlib.contextmanager
def syncing(folder: Path, document: bytes, per_second: float) -> Iterator[list[float]]:
    """Append and sync a document so often, until the block ends; seconds of each."""
    taken: list[float] = []
    ended = threading.Event()

    def work() -> None:
        begin = time.monotonic()
        with appending(folder) as append:
            while not ended.wait(max(0.0, begin + len(taken) / per_second - time.monotonic())):
                taken.append(append(document))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield taken
    finally:
        ended.set()
        thread.join()


def lines_in(data: Path) -> int:
    """How many documents lie in the segments of a data folder, sealed and open."""
    import zstandard

    count = 0
    for path in sorted((data / "segments").rglob("*.jsonl.zst")):
        with path.open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while piece := reader.read(1 << 20):
                count += piece.count(b"\n")
    return count
