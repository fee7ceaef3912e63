"""What all members share: rounds in turn, ratios round by round, verdicts, the table and the JSON.

Takes   samples, a pair a round.
Gives   `Comparison`, the table's text, and the document that is kept.
Never   measures anything itself; never averages: a machine that others use too has outliers on one side only.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent


class CannotMeasure(Exception):
    """A member found no way to measure: what it says is printed, and the command fails."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much to measure, and where to write meanwhile."""

    quick: bool
    scratch: Path


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a median must not exceed, or must reach."""

    kind: Literal["at most", "at least"]
    bound: float

    def is_met(self, value: float) -> bool:
        """Whether `value` is on the right side; the bound itself is."""
        return value <= self.bound if self.kind == "at most" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:g}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A subject beside its peer: a sample of each a round, taken one after the other.

    `how` is what a round's two samples are made into: their ratio, or their difference in `unit`.
    `best` says which samples others' load can only spoil: the smallest of durations, the largest of rates.
    """

    name: str
    subject: str
    peer: str
    unit: str
    rounds: Sequence[tuple[float, float]]
    how: Literal["ratio", "difference"] = "ratio"
    goal: Goal | None = None
    best: Literal["smallest", "largest"] = "smallest"

    def __post_init__(self) -> None:
        if not self.rounds:
            raise CannotMeasure(f"{self.name}: no round was measured")
        if self.how == "ratio" and any(peer == 0 for _, peer in self.rounds):
            raise CannotMeasure(f"{self.name}: a sample of {self.peer} is 0 {self.unit}, too short to compare with")

    def combine(self, subject: float, peer: float) -> float:
        """One figure of two samples."""
        return subject / peer if self.how == "ratio" else subject - peer

    @property
    def figures(self) -> list[float]:
        """The figure of each round. Only samples of one round are combined: the next one found another machine."""
        return [self.combine(subject, peer) for subject, peer in self.rounds]

    @property
    def median(self) -> float:
        """The figure that is quoted, and that the goal is about."""
        return statistics.median(self.figures)

    @property
    def of_best(self) -> float:
        """The figure of each side's best sample: what is left when nobody disturbs."""
        pick = min if self.best == "smallest" else max
        return self.combine(pick(subject for subject, _ in self.rounds), pick(peer for _, peer in self.rounds))

    @property
    def is_met(self) -> bool | None:
        """Whether the median meets the goal; None without one."""
        return None if self.goal is None else self.goal.is_met(self.median)

    @property
    def verdict(self) -> str:
        """A word for the table."""
        return {None: "", True: "met", False: "NOT MET"}[self.is_met]

    def document(self) -> dict[str, Any]:
        """Everything, for the JSON."""
        return {
            "name": self.name,
            "subject": self.subject,
            "peer": self.peer,
            "unit": self.unit,
            "how": self.how,
            "median": self.median,
            "min": min(self.figures),
            "max": max(self.figures),
            "of_best": self.of_best,
            "subject_median": statistics.median(subject for subject, _ in self.rounds),
            "peer_median": statistics.median(peer for _, peer in self.rounds),
            "goal": None if self.goal is None else {"kind": self.goal.kind, "bound": self.goal.bound},
            "met": self.is_met,
            "rounds": [list(pair) for pair in self.rounds],
        }


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a member gives: comparisons, and facts that explain them."""

    comparisons: Sequence[Comparison]
    facts: dict[str, Any]


def in_turn(subjects: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Each subject once a round, with the round's number; each round begins with the next one.

    In a fixed order A B C, C would always run in caches and at a clock rate that B left behind.
    """
    for number in range(rounds):
        first = number % len(subjects)
        for subject in (*subjects[first:], *subjects[:first]):
            yield number, subject


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def table(comparisons: Sequence[Comparison], before: dict[str, float]) -> str:
    """The comparisons as text; `before` holds the medians of an earlier result by name, if one was given."""
    heads = ["name", "subject", "peer", "", "min", "median", "max", "of best", "goal", ""]
    rows = [heads + ["before"] * bool(before)]
    for one in comparisons:
        figures = [min(one.figures), one.median, max(one.figures), one.of_best]
        kind = "ratio" if one.how == "ratio" else f"+{one.unit}"
        row = [one.name, one.subject, one.peer, kind, *(f"{figure:.3f}" for figure in figures)]
        row += [str(one.goal or ""), one.verdict]
        rows.append(row + [f"{before[one.name]:.3f}" if one.name in before else "-"] * bool(before))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if 4 <= at <= 7 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def document(
    *, at: datetime.datetime, quick: bool, members: dict[str, Measured], failures: dict[str, str]
) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        "v": 1,
        "at": at.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "quick": quick,
        "commit": commit(),
        "python": {"version": platform.python_version(), "implementation": sys.implementation.name},
        "machine": machine(),
        "members": {
            name: {"comparisons": [one.document() for one in measured.comparisons], "facts": measured.facts}
            for name, measured in members.items()
        },
        "failures": failures,
    }


def medians_in(kept: dict[str, Any]) -> dict[str, float]:
    """The quoted figures of a kept document by the comparison's name."""
    return {one["name"]: one["median"] for member in kept["members"].values() for one in member["comparisons"]}


def commit() -> dict[str, Any] | None:
    """What was measured: the commit, and whether the tree differed from it; None outside a checkout."""
    revision = output_of("git", "rev-parse", "HEAD")
    if revision is None:
        return None
    return {"id": revision, "changed": bool(output_of("git", "--no-optional-locks", "status", "--porcelain"))}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "arch": platform.machine(),
        "processor": _processor(),
        "cores": len(cores()),
        "load": load_average(),
    }


def load_average() -> float | None:
    """How many processes wanted to run during the last minute, on average; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def output_of(*command: str) -> str | None:
    """What a command prints, without the line's end; None if it cannot run or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def pinned_to(core: int | None) -> Callable[[], None] | None:
    """What a child does first: keep to one core."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def json_of_child(*arguments: str, environ: dict[str, str] | None = None, core: int | None = None) -> Any:
    """What a Python process with these arguments prints as JSON.

    Raises:
        CannotMeasure: it failed; the last lines of its standard error are in the text.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        preexec_fn=pinned_to(core),
    )
    if done.returncode != 0:
        raise CannotMeasure(f"{' '.join(arguments[:3])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
