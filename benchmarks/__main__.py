"""``python -m benchmarks``: runs the members, prints the table, keeps the results.

Takes   names of members; all without any.
Gives   exit status 0; 1 if a member could not be measured or, with ``--check``, a goal is not met; 2 for wrong use.
Never   lets one member's failure hide what the others measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path

from . import archive, beside, coordinator, event, exit_time, fold, import_time, inc, ingest, load_test
from .harness import ROOT, CannotMeasure, Comparison, Measured, Plan, document, load_average, medians_in, table

MEMBERS = {
    "import_time": import_time.measure,
    "exit_time": exit_time.measure,
    "inc": inc.measure,
    "event": event.measure,
    "fold": fold.measure,
    "ingest": ingest.measure,
    "load_test": load_test.measure,
    "archive": archive.measure,
    "beside": beside.measure,
    "coordinator": coordinator.measure,
}


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    unknown = [name for name in given.names if name not in MEMBERS]
    if unknown:
        print(f"benchmarks: no member {', '.join(unknown)}; there are {', '.join(MEMBERS)}", file=sys.stderr)
        return 2
    before = medians_in(json.loads(given.before.read_text("utf-8"))) if given.before else {}
    began = datetime.datetime.now(datetime.timezone.utc)
    members: dict[str, Measured] = {}
    failures: dict[str, str] = {}
    # Beside the results and not in the system's temporary folder, which may be memory: ingest is about a disk.
    results = ROOT / "results"
    scratches: Path = given.scratch or results
    scratches.mkdir(parents=True, exist_ok=True)
    for name in given.names or MEMBERS:
        print(f"benchmarks: {name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=scratches) as scratch:
            load, clock = load_average(), time.monotonic()
            try:
                measured = MEMBERS[name](Plan(quick=given.quick, scratch=Path(scratch)))
                # How far to trust a run: the members' own load is 1 to 2.
                measured.facts["load average, before and after"] = [load, load_average()]
                measured.facts["seconds taken"] = round(time.monotonic() - clock, 1)
                members[name] = measured
            except CannotMeasure as failure:
                failures[name] = str(failure)
    kept = given.json or results / f"bench-{began:%Y%m%dT%H%M%SZ}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    result = document(at=began, quick=given.quick, members=members, failures=failures)
    kept.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    comparisons = [one for measured in members.values() for one in measured.comparisons]
    show(comparisons, members, before)
    print(f"kept in {kept}")
    for name, reason in failures.items():
        print(f"benchmarks: {name} could not be measured: {reason}", file=sys.stderr)
    return exit_status(comparisons, failures, check=given.check)


def exit_status(comparisons: list[Comparison], failures: dict[str, str], *, check: bool) -> int:
    return int(bool(failures) or (check and any(one.is_met is False for one in comparisons)))


def show(comparisons: list[Comparison], members: dict[str, Measured], before: dict[str, float]) -> None:
    if comparisons:
        print(table(comparisons, before))
    for name, measured in members.items():
        print(f"\n{name}")
        for fact, value in measured.facts.items():
            print(f"  {fact}: {value if isinstance(value, str) else json.dumps(value)}")
    print()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Measure each member beside a peer or the bare limit, in one run. A goal that is not met is "
        "marked, and fails the command only with --check.",
        epilog="example: python -m benchmarks --quick inc",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"members: {', '.join(MEMBERS)} (all)")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs, not what it is worth")
    parser.add_argument("--check", action="store_true", help="exit 1 if a goal is not met")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the results (results/bench-TIME.json)")
    parser.add_argument("--before", type=Path, metavar="FILE", help="show the medians of this kept result as well")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="a folder on the disk to measure on (results)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
