"""What archival that writes each row once, durably, costs beside a program that only writes the same rows.

Takes   sealed segments of reports of about 1.2 KB, and of events in batches of 20, made by the segments' own writer.
Gives   rows a second of `Archivist.round`, while there is more, from the look for segments to their removal, beside a
        plain program that decodes the same lines and writes the same columns with Arrow: unsorted, without sync, commit
        or coordinator.
Never   believes either: the rows of its files are counted afterwards, and of ours no segment must be left.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import random
import resource
import secrets
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from .harness import CannotMeasure, Comparison, Goal, Measured, Plan, in_turn, json_of_child

Kind = Literal["reports", "events"]
KINDS: tuple[Kind, ...] = ("reports", "events")
OURS, PLAIN = "archivist", "plain Arrow"
HALF = Goal("at least", 0.5)
SEGMENT_BYTES = 10 << 20
PLAIN_ROWS = 100_000
APPLICATION = "example.org/bench"
BEGIN = datetime.datetime(2026, 11, 24, 10, tzinfo=datetime.timezone.utc)
COUNTERS = tuple(
    f"cmd/{verb}:{bucket}"
    for verb in ("open", "export", "import", "print", "search", "save")
    for bucket in ("pdf", "html", "text", "image", "other")
)


@dataclasses.dataclass(frozen=True)
class Amount:
    """How many rows of each kind there are, and how often they are archived."""

    rows: int
    rounds: int


FULL, QUICK = Amount(1_000_000, 2), Amount(20_000, 2)


def measure(plan: Plan) -> Measured:
    amount = QUICK if plan.quick else FULL
    samples: dict[tuple[str, Kind], list[dict[str, Any]]] = {}
    lines_bytes = {}
    for kind in KINDS:
        source = plan.scratch / kind
        lines_bytes[kind] = write_segments(source, kind, amount.rows)
        for _, name in in_turn((OURS, PLAIN), amount.rounds):
            target = plan.scratch / "target"
            shutil.copytree(source, target, copy_function=os.link)  # What the archivist removes is a second name.
            sample = json_of_child("-m", __name__, name, kind, str(target))
            shutil.rmtree(target)
            if (sample["rows"], sample["left"]) != (amount.rows, 0 if name == OURS else sample["left"]):
                raise CannotMeasure(f"{name} wrote {sample['rows']} {kind} and left {sample['left']} segments")
            samples.setdefault((name, kind), []).append(sample)
        shutil.rmtree(source)
    return Measured(compare(samples), facts_of(samples, lines_bytes, amount.rows))


def compare(samples: dict[tuple[str, Kind], list[dict[str, Any]]]) -> list[Comparison]:
    """Rates of each kind, and of both: as many rows of the one as of the other."""

    def rates(name: str, kinds: tuple[Kind, ...]) -> list[float]:
        rounds = zip(*(samples[name, kind] for kind in kinds), strict=True)
        return [sum(one["rows"] for one in each) / sum(one["seconds"] for one in each) for each in rounds]

    return [
        Comparison(
            "/".join(("archive", *kinds)) if len(kinds) == 1 else "archive",
            OURS,
            PLAIN,
            "rows/s",
            list(zip(rates(OURS, kinds), rates(PLAIN, kinds), strict=True)),
            goal=HALF,
            best="largest",
        )
        for kinds in (KINDS, *((kind,) for kind in KINDS))
    ]


def facts_of(
    samples: dict[tuple[str, Kind], list[dict[str, Any]]], lines_bytes: dict[Kind, int], rows: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {"rows of each kind": rows}
    for (name, kind), taken in samples.items():
        files = taken[0]["files"]
        facts[f"{name}, {kind}"] = (
            f"{statistics.median(one['rows'] / one['seconds'] for one in taken):,.0f} rows/s, "
            f"{statistics.median(one['processor'] for one in taken):.1f} s of processor, "
            f"{max(one['memory'] for one in taken) >> 20} MiB at most, "
            f"{len(files)} files of {min(files) >> 10:,} to {max(files) >> 10:,} KiB, "
            f"{sum(files) / rows:.0f} bytes a row"
        )
    for kind, size in lines_bytes.items():
        facts[f"bytes a row in lines, {kind}"] = round(size / rows)
    return facts


# ---------------------------------------------------------------- what is archived


def write_segments(data: Path, kind: Kind, rows: int) -> int:
    """Seal so many rows in a data folder; the bytes of their lines."""
    from tallypost_server.disk import OsDisk
    from tallypost_server.segments.format import stem_of
    from tallypost_server.segments.write import Told, write_segment

    segments = data / "segments"
    (segments / "open").mkdir(parents=True)
    total = 0
    for number, group in enumerate(groups_of(lines(kind, rows))):
        told = Told()
        told.add(group)
        stem = stem_of(BEGIN + datetime.timedelta(seconds=number), "0a0a0a0a", "0b0b0b0b", number)
        write_segment(segments, stem, told, [group], disk=OsDisk())
        total += len(group)
    return total


def groups_of(all_lines: Iterator[bytes]) -> Iterator[bytes]:
    group, size = list[bytes](), 0
    for line in all_lines:
        group.append(line)
        size += len(line)
        if size >= SEGMENT_BYTES:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)


def lines(kind: Kind, rows: int) -> Iterator[bytes]:
    """Lines that hold so many rows, received one after the other."""
    draw = random.Random(20261124)
    return report_lines(draw, rows) if kind == "reports" else batch_lines(draw, rows)


def report_lines(draw: random.Random, rows: int) -> Iterator[bytes]:
    from tallypost_schema.documents import ProgramCounts, Report
    from tallypost_server.segments.format import line_of_report

    for number in range(rows):
        counters = {name: int(10 ** (5 * draw.random())) for name in COUNTERS}
        program = ProgramCounts(*_program(draw), counters=counters, stacks={"crash/KeyError\nmytool.cli:main:+12": 1})
        # Of most machines the day before, of some, which were off, an earlier one.
        day = "2026-11-23" if draw.random() < 0.9 else "2026-11-22"
        identity = f"{draw.getrandbits(128):032x}"
        report = Report(
            1, "report", draw.randrange(10**6) / 10**6, identity, APPLICATION, day, "2026-11-21", "1", [program]
        )
        yield line_of_report(report, received=_received(number, rows), sha256=f"{draw.getrandbits(256):064x}")


def batch_lines(draw: random.Random, rows: int) -> Iterator[bytes]:
    """Sessions of one to three batches, which are begun here and there and all end."""
    from tallypost_schema.documents import Batch, Event, Program
    from tallypost_server.segments.format import line_of_batch

    opened: list[list[Any]] = []  # Session, program, next index, batches left.
    number = 0
    while number < rows or opened:
        while number < rows and len(opened) < 50:
            opened.append([f"{draw.getrandbits(128):032x}", Program(*_program(draw)), 0, draw.randrange(1, 4)])
        one = draw.choice(opened)
        session, program, first, left = one
        count = min(20, rows - number)  # At the end nothing, then a batch only closes its session.
        events = [
            Event(
                draw.choice(("export", "import", "open")),
                _received(number + at, rows),
                {"format": draw.choice(("pdf", "html")), "pages": draw.randrange(300), "quick": draw.random() < 0.5},
            )
            for at in range(count)
        ]
        number += count
        one[2:] = [first + count, left - 1]
        ends = left == 1 or number == rows
        if ends:
            opened.remove(one)
        if first + count:
            last = first + count - 1 if ends else None
            batch = Batch(1, "events", APPLICATION, session, first, 0, last, program, events)
            yield line_of_batch(batch, received=_received(number, rows), sha256=f"{draw.getrandbits(256):064x}")


def _program(draw: random.Random) -> tuple[str, str, str, str, str]:
    version = f"2.{draw.randrange(9)}.{draw.randrange(20)}"
    return "bench", version, f"3.{draw.randrange(10, 14)}", draw.choice(("linux", "macos", "windows")), "x86_64"


def _received(number: int, rows: int) -> str:
    """All come within an hour."""
    from tallypost_server.clock import stamp

    return stamp(BEGIN + datetime.timedelta(hours=number / rows))


# ---------------------------------------------------------------- who archives


def archive(kind: Kind, data: Path) -> dict[str, Any]:
    """Rounds of an archivist, as `tallypost-server archive --once` does it, two hours later."""
    from tallypost_server import archiving
    from tallypost_server.archive.archivist import Archivist, Rules
    from tallypost_server.archive.store import FolderStore
    from tallypost_server.archive.tables import Tables
    from tallypost_server.disk import OsDisk
    from tallypost_server.streams.coordinator import Coordinator
    from tallypost_server.streams.database import engine_of, url_of
    from tallypost_server.testing import FakeClock

    disk, clock = OsDisk(), FakeClock(BEGIN + datetime.timedelta(hours=2))
    coordinator = Coordinator(engine_of(url_of(str(data / "coordinator.sqlite")), clock))
    tables = Tables(FolderStore(data / "archive", disk=disk), clock=clock, point=disk.point)
    rules = Rules(delay=300, max_delay=604_800, batch_seconds=0)
    archiving.spare_the_collector()
    with timed() as sample:
        works = Archivist(
            data, coordinator=coordinator, tables=tables, rules=rules, disk=disk, clock=clock, token=secrets.token_hex
        )
        while works.round().more:
            pass
    coordinator.close()
    files = tables.files(kind)
    return sample | {"rows": sum(file.rows for file in files), "files": [file.size for file in files]}


def plain(kind: Kind, data: Path) -> dict[str, Any]:
    """A file for each hundred thousand rows, in the order in which they were stored."""
    import pyarrow.parquet as pq

    made = []
    with timed() as sample:
        rows = plain_reports(data) if kind == "reports" else plain_events(data)
        for number, table in enumerate(rows):
            made.append(data / f"{number}.parquet")
            pq.write_table(table, made[-1], compression="zstd")
    return sample | {
        "rows": sum(pq.read_metadata(path).num_rows for path in made),
        "files": [path.stat().st_size for path in made],
    }


def plain_lines(data: Path) -> Iterator[Any]:
    import msgspec
    import zstandard

    decode = msgspec.json.Decoder().decode
    for path in sorted((data / "segments").glob("*.jsonl.zst")):
        for line in zstandard.ZstdDecompressor().decompress(path.read_bytes()).splitlines():
            yield decode(line)


def plain_reports(data: Path) -> Iterator[Any]:
    import pyarrow as pa

    from tallypost_server.archive.columns import REPORTS

    columns: dict[str, list[Any]] = {name: [] for name in REPORTS.schema.names}
    for line in plain_lines(data):
        document = line["doc"]
        columns["day"].append(datetime.date.fromisoformat(document["day"]))
        columns["received"].append(_micros(line["received"]))
        columns["sha256"].append(line["sha256"])
        columns["previous"].append(datetime.date.fromisoformat(document["previous"]))
        for name in ("app", "id", "x", "config"):
            columns[name].append(document[name])
        for program in document["programs"]:
            program["counters"], program["stacks"] = list(program["counters"].items()), list(program["stacks"].items())
        columns["programs"].append(document["programs"])
        if len(columns["day"]) == PLAIN_ROWS:
            yield pa.table(columns, REPORTS.schema)
            columns = {name: [] for name in columns}
    if columns["day"]:
        yield pa.table(columns, REPORTS.schema)


def plain_events(data: Path) -> Iterator[Any]:
    import pyarrow as pa

    from tallypost_server.archive.columns import EVENTS

    columns: dict[str, list[Any]] = {name: [] for name in EVENTS.schema.names}
    for line in plain_lines(data):
        batch, received = line["doc"], _micros(line["received"])
        for index, event in enumerate(batch["events"], batch["first"] + batch["lost"]):
            columns["day"].append(received // 86_400_000_000)
            columns["app"].append(batch["app"])
            columns["session"].append(batch["session"])
            columns["index"].append(index)
            columns["received"].append(received)
            columns["name"].append(event.get("name"))
            columns["at"].append(_micros(event["at"]) if "at" in event else None)
            for name, value in batch["program"].items():
                columns[name].append(value)
            fields = event.get("fields", {}).items()
            columns["words"].append([item for item in fields if isinstance(item[1], str)])
            columns["flags"].append([item for item in fields if isinstance(item[1], bool)])
            columns["numbers"].append(
                [item for item in fields if isinstance(item[1], (int, float)) and not isinstance(item[1], bool)]
            )
        if len(columns["day"]) >= PLAIN_ROWS:
            yield pa.table(columns, EVENTS.schema)
            columns = {name: [] for name in columns}
    if columns["day"]:
        yield pa.table(columns, EVENTS.schema)


def _micros(text: str) -> int:
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int(moment.timestamp() * 1_000_000)


class timed(dict[str, Any]):  # noqa: N801  It stands as a statement does.
    """The seconds and the processor time of a block."""

    def __enter__(self) -> timed:
        self._begin, self._processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self["seconds"] = time.perf_counter() - self._begin
        self["processor"] = time.process_time() - self._processor


def main(name: str, kind: Kind, data: Path) -> None:
    sample = archive(kind, data) if name == OURS else plain(kind, data)
    left = len(list((data / "segments").glob("*.jsonl.zst")))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({**sample, "left": left, "memory": memory}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))  # type: ignore[arg-type]  # One of KINDS.
