"""What it costs to fold ten thousand count files, beside reading and removing as many files.

Takes   count files of one day, made alike, each with an id of its own.
Gives   seconds of a fold, from the look to the removal of the last file, beside the bare limit.
Never   folds less than all: what the report has afterwards must be what the files had.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from pathlib import Path

from tallypost import Telemetry
from tallypost.counts.count_file import HEADER_BYTES, header, metadata_in
from tallypost.testing import FakeClock

from .harness import CannotMeasure, Comparison, Goal, Measured, Plan

FILES, ROUNDS = 10_000, 5
FILES_QUICK, ROUNDS_QUICK = 2_000, 2
SECONDS_MAX = Goal("at most", 2.0)


def measure(plan: Plan) -> Measured:
    files, rounds = (FILES_QUICK, ROUNDS_QUICK) if plan.quick else (FILES, ROUNDS)
    pairs = []
    for number in range(rounds):
        folder = plan.scratch / str(number)
        pairs.append((fold(folder, files), bare(folder, files)))
        shutil.rmtree(folder)
    comparisons = [Comparison("fold", f"fold of {files:,} files", "read, remove", "s", pairs)]
    if not plan.quick:
        absolute = [(ours, 0.0) for ours, _ in pairs]
        comparisons.append(
            Comparison("fold/seconds", f"fold of {files:,} files", "none", "s", absolute, "difference", SECONDS_MAX)
        )
    return Measured(comparisons, {"fold, s": round(statistics.median(one for one, _ in pairs), 3), "files": files})


def fold(folder: Path, files: int) -> float:
    """The seconds of a fold."""
    clock = FakeClock("2026-11-20T12:00:00Z")
    telemetry = Telemetry(
        "example.org/bench", "1", dir=folder, uploader="manual", environ={"TALLYPOST": "local"}, clock=clock
    )
    for name in ("cmd/export", "cmd/import", "cmd/open"):
        telemetry.counter(name).inc(bucket="pdf")
    telemetry.close()
    counts = folder / "example.org" / "bench" / "counts"
    (made,) = counts.iterdir()
    multiply(made, files)
    clock.set("2026-11-21T12:00:00Z")
    begin = time.perf_counter()
    telemetry.upload()  # In mode local this is phases one and two.
    seconds = time.perf_counter() - begin
    report = json.loads((counts.parent / "reports" / "local.2026-11-20.json").read_bytes())
    if report["programs"][0]["counters"]["cmd/export:pdf"] != files or list(counts.iterdir()):
        raise CannotMeasure("the fold was not whole")
    return seconds


def bare(folder: Path, files: int) -> float:
    """The seconds of reading and removing as many files."""
    below = folder / "bare"
    below.mkdir()
    for number in range(files):
        (below / str(number)).write_bytes(bytes(16384))
    begin = time.perf_counter()
    for path in list(os.scandir(below)):
        with open(path, "rb") as file:
            file.read()
        os.unlink(path)
    return time.perf_counter() - begin


def multiply(made: Path, files: int) -> None:
    """Make as many count files out of one, each with an id of its own."""
    content = made.read_bytes()
    metadata = metadata_in(content)
    assert metadata is not None
    for number in range(1, files):
        start = header({**metadata, "file": f"{number:032x}"})
        made.with_name(f"bench-{number}.count").write_bytes(start[: HEADER_BYTES - 8] + content[HEADER_BYTES - 8 :])
