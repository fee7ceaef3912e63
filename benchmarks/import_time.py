"""What `import tallypost` costs a program at its start, beside a bare interpreter that does nothing.

Takes   whole processes, from their start until they are waited for.
Gives   milliseconds over the bare interpreter, by the clock on the wall and in processor time.
Never   times from within the process: what the interpreter does before and after would be missing.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from .harness import ROOT, CannotMeasure, Comparison, Goal, Measured, Plan, in_turn, json_of_child

ROUNDS, ROUNDS_QUICK = 120, 15
GOAL = Goal("at most", 3.0)
GOAL_FIRST_INC = Goal("at most", 5.0)
GOAL_COUNTS_ONCE = Goal("at most", 8.0)

BARE = "pass"
IMPORT = "import tallypost"
# What an application does that counts once and ends, all else at its defaults.
FIRST_INC = (
    "import sys; from tallypost import Telemetry\n"
    'Telemetry("example.org/bench", "1.0", dir=sys.argv[1]).counter("cmd/export").inc()'
)
LOADED = (
    "import sys; before = set(sys.modules); import tallypost; loaded = sorted(set(sys.modules) - before)\n"
    "import json; print(json.dumps(loaded))"  # Only now: it brings modules of its own.
)
OURS = ("tallypost", "tallypost_schema")


class Cost(NamedTuple):
    wall_ms: float
    processor_ms: float


def measure(plan: Plan) -> Measured:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TALLYPOST")}
    environ["TALLYPOST"] = "local"  # Also in CI, where it would otherwise be off and open no file.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # Installed packages have their byte code.
    existing = plan.scratch / "existing"
    fresh = plan.scratch / "fresh"
    processes = {
        "bare": (BARE,),
        "import": (IMPORT,),
        "fresh": (FIRST_INC, str(fresh)),
        "existing": (FIRST_INC, str(existing)),
    }
    for name in processes:  # Once before anything counts: byte code is compiled, files are in memory.
        cost(*processes[name], environ=environ)
    rounds = ROUNDS_QUICK if plan.quick else ROUNDS
    costs: dict[str, list[Cost]] = {name: [] for name in processes}
    for _, name in in_turn(tuple(processes), rounds):
        shutil.rmtree(fresh, ignore_errors=True)
        costs[name].append(cost(*processes[name], environ=environ))
    if not list(existing.rglob("*.count")):
        raise CannotMeasure("first_inc left no count file, so it did not count")
    loaded = json_of_child("-c", LOADED, environ=environ)
    foreign = third_party(loaded)
    bare = "python -c pass"
    comparisons = [
        _over_bare("import_time", IMPORT, "wall_ms", costs["import"], costs["bare"], GOAL),
        _over_bare("import_time/processor", IMPORT, "processor_ms", costs["import"], costs["bare"], None),
        Comparison(
            "import_time/third-party",
            IMPORT,
            "none",
            "modules",
            [(len(foreign), 0)],
            how="difference",
            goal=Goal("at most", 0),
        ),
        _over_bare("first_inc/fresh", "import, inc, new folder", "wall_ms", costs["fresh"], costs["bare"], None),
        _over_bare(
            "first_inc/existing", "import, inc, exit", "wall_ms", costs["existing"], costs["bare"], GOAL_COUNTS_ONCE
        ),
        Comparison(
            "first_inc/inc",
            "the first inc, exit",
            IMPORT,
            "ms",
            [(one.wall_ms, other.wall_ms) for one, other in zip(costs["existing"], costs["import"], strict=True)],
            how="difference",
            goal=GOAL_FIRST_INC,
        ),
    ]
    facts = {
        f"{bare}, ms": round(statistics.median(one.wall_ms for one in costs["bare"]), 2),
        "third-party modules": foreign,
        "standard library modules": [name for name in loaded if name.partition(".")[0] not in (*OURS, *foreign)],
        "rounds": rounds,
    }
    return Measured(comparisons, facts)


def third_party(loaded: list[str]) -> list[str]:
    """The packages among `loaded` that are neither ours nor Python's."""
    packages = {name.partition(".")[0] for name in loaded}
    return sorted(packages - set(OURS) - sys.stdlib_module_names)


def cost(code: str, *arguments: str, environ: dict[str, str]) -> Cost:
    """Run `python -c code` to its end."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environ, cwd=ROOT)
    if not hasattr(os, "wait4"):
        status, processor = process.wait(), float("nan")
        wall = time.perf_counter() - begin
    else:
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = status  # Waited for here, not by the object.
        processor = used.ru_utime + used.ru_stime
    if status != 0:
        raise CannotMeasure(f"python -c {json.dumps(code)} ended with status {status}")
    return Cost(wall * 1e3, processor * 1e3)


def _over_bare(
    name: str, subject: str, field: str, costs: list[Cost], bare: list[Cost], goal: Goal | None
) -> Comparison:
    rounds = [(getattr(one, field), getattr(other, field)) for one, other in zip(costs, bare, strict=True)]
    return Comparison(name, subject, "python -c pass", "ms", rounds, how="difference", goal=goal)
