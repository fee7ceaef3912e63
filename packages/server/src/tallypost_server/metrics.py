"""What the server counts of itself, each metric declared once with its sentence, in Prometheus' text.

Takes   calls from every room, from any thread.
Gives   `Metrics.text`, and `Metrics.declared` for the documentation.
Never   a label that a sender chooses, or an address: labels come from sets that this program knows.
"""

from __future__ import annotations

import abc
import bisect
import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


class Metric(abc.ABC):
    """A declared metric: name, kind, sentence, labels."""

    def __init__(self, name: str, kind: Kind, sentence: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self.kind, self.sentence, self.labels = name, kind, sentence, labels

    @abc.abstractmethod
    def lines(self) -> list[str]:
        """The samples, in Prometheus' text."""


class Counter(Metric):
    """A number that only grows, by labels."""

    def __init__(self, name: str, sentence: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__(name, "counter", sentence, labels)
        self._lock = threading.Lock()  # Protects the read and write of one sum: committer, sealer and loop all count.
        self._sums: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, *values: str, by: int = 1) -> None:
        """Count `by` more for these label values."""
        with self._lock:
            self._sums[values] = self._sums.get(values, 0) + by

    def value(self, *values: str) -> int:
        """What was counted for these label values."""
        return self._sums.get(values, 0)

    def lines(self) -> list[str]:
        """One sample for each label value seen."""
        return [f"{self.name}{_labels(self.labels, values)} {total}" for values, total in sorted(self._sums.items())]


class Gauge(Metric):
    """A number that is asked for when it is shown."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(name, "gauge", sentence)
        self.ask: Callable[[], float] | None = None

    def lines(self) -> list[str]:
        """The present value; nothing where nobody can tell it."""
        if self.ask is None:
            return []
        try:
            return [f"{self.name} {self.ask():g}"]
        except OSError:
            return []


class Histogram(Metric):
    """Durations, in buckets."""

    def __init__(self, name: str, sentence: str, edges: tuple[float, ...]) -> None:
        super().__init__(name, "histogram", sentence)
        self._lock = threading.Lock()  # Protects counts and sum against a reader between the two.
        self._edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        with self._lock:
            self._counts[bisect.bisect_left(self._edges, value)] += 1
            self._sum += value

    def lines(self) -> list[str]:
        """Cumulative buckets, sum and count."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines, seen = [], 0
        for edge, count in zip((*(f"{edge:g}" for edge in self._edges), "+Inf"), counts, strict=True):
            seen += count
            lines.append(f'{self.name}_bucket{{le="{edge}"}} {seen}')
        return [*lines, f"{self.name}_sum {total:g}", f"{self.name}_count {seen}"]


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self.stored = Counter(
            "tallypost_documents_stored_total", "Documents that were stored and answered 200.", ("kind",)
        )
        self.declined = Counter("tallypost_requests_declined_total", "Requests that got an error body.", ("code",))
        self.dropped = Counter(
            "tallypost_dropped_total",
            "What stored documents lack because the declaration does not name it: counters, stacks, events, fields, "
            "and keys that no document has.",
            ("what",),
        )
        self.erased = Counter(
            "tallypost_erased_total",
            "Documents of erased streams: answered 200 and dropped (accept), refused and not kept (refuse), left out "
            "of a segment (seal).",
            ("where",),
        )
        self.hang_ups = Counter(
            "tallypost_hang_ups_total", "Requests whose sender went away before the answer was ready."
        )
        self.unexpected = Counter(
            "tallypost_unexpected_errors_total", "Errors that nobody foresaw; each was answered 503 and logged."
        )
        self.groups = Counter("tallypost_commit_groups_total", "Groups that are on disk, one sync each.")
        self.committed_bytes = Counter("tallypost_commit_bytes_total", "Bytes of lines that are on disk.")
        self.commit_seconds = Histogram(
            "tallypost_commit_seconds",
            "How long compressing, writing and syncing a group took.",
            (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
        )
        self.commit_failures = Counter(
            "tallypost_commit_failures_total", "Groups that the disk did not take.", ("code",)
        )
        self.waiting_bytes = Gauge("tallypost_waiting_bytes", "Bytes of lines that wait for the disk.")
        self.free_bytes = Gauge("tallypost_free_bytes", "Bytes that the data folder's disk has free.")
        self.ready = Gauge("tallypost_ready", "1 when documents are taken, else 0.")
        self.sealed = Counter("tallypost_segments_sealed_total", "Segments sealed since the start.")
        self.seal_failures = Counter(
            "tallypost_seal_failures_total", "Segments that could not be sealed; each is tried again."
        )
        self.oldest_unsealed = Gauge(
            "tallypost_oldest_unsealed_seconds",
            "How long ago the oldest segment began that is not sealed; 0 without one.",
        )
        self.oldest_sealed = Gauge(
            "tallypost_oldest_sealed_seconds",
            "How long ago the oldest sealed segment began that is still here, so not all archived; 0 without one.",
        )
        self.parked = Gauge("tallypost_parked", "Streams that the archive refused, kept in parked/.")
        self.torn = Counter("tallypost_torn_frames_total", "Damaged stretches of open segments, put into quarantine.")
        self.damaged = Counter(
            "tallypost_segments_damaged_total",
            "Sealed segments that were found damaged beside their open file, put into quarantine and made anew.",
        )
        self.quarantined = Counter(
            "tallypost_quarantined_total", "Refused documents that were put into quarantine.", ("code",)
        )
        self.quarantine_lost = Counter(
            "tallypost_quarantine_lost_total",
            "Refused documents that the quarantine did not keep: bounds, a full queue or the disk.",
            ("reason",),
        )
        self.applications = Gauge("tallypost_applications", "Applications that are registered.")
        self.declarations_damaged = Gauge(
            "tallypost_declarations_damaged", "Files in the applications folder that are no valid declaration."
        )

    @property
    def declared(self) -> list[Metric]:
        """Every metric, in the order of declaration."""
        return [value for value in vars(self).values() if isinstance(value, Metric)]

    def samples(self, worker: int | None = None) -> dict[str, list[str]]:
        """The samples of each metric by its name, labelled with the worker if there are several."""
        return {metric.name: [_labelled(line, worker) for line in metric.lines()] for metric in self.declared}

    def text(self, *samples: dict[str, list[str]]) -> str:
        """All samples in Prometheus' text format 0.0.4: these, or if none are given, its own."""
        lines: list[str] = []
        for metric in self.declared:
            lines += [f"# HELP {metric.name} {metric.sentence}", f"# TYPE {metric.name} {metric.kind}"]
            for each in samples or (self.samples(),):
                lines += each.get(metric.name, [])
        return "\n".join(lines) + "\n"


def _labelled(line: str, worker: int | None) -> str:
    if worker is None:
        return line
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, values, strict=True)) + "}"
