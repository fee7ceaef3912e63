"""Checking: whether what lies in ``segments/`` is what was stored, read piece by piece.

Takes   the folder ``segments/``, beside a server or without one.
Gives   for each file how many lines it has and what is wrong with it, and where.
Never   writes, or takes a server's lock; never takes for damage what a server is just writing, sealing or removing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from tallypost_schema import receipts

from .. import limits
from ..disk import Disk
from ..errors import SegmentDamaged
from .format import (
    HALF_MADE_ENDING,
    MANIFEST_ENDING,
    OPEN_ENDING,
    SEALED_ENDING,
    Manifest,
    Torn,
    decode_manifest,
    frames,
    is_stem,
    node_in,
    sealed_lines,
)
from .truth import line_of, problem_of

Kind: TypeAlias = Literal["sealed", "open", "quarantine"]


class Problem(Struct, frozen=True, omit_defaults=True):
    """What is wrong with a file, and where: the byte from which on, or the line, counted from 1."""

    problem: str
    offset: int | None = None
    line: int | None = None


class Checked(NamedTuple):
    """A file that was read to its end, and its sound lines."""

    path: Path
    kind: Kind
    lines: int
    problems: list[Problem]
    more: int = 0  # Problems that are not told one by one.
    missing: int = 0  # Lines that its manifest tells beyond the sound ones.
    unproven: int = 0  # Sound lines of a damaged file whose document does not prove itself by its hash.
    manifest: Manifest | None = None  # Of a sealed segment of which every line is sound: what its manifest should be.


class Problems:
    """Gathers the first of them, and counts the others."""

    def __init__(self) -> None:
        self.told: list[Problem] = []
        self.more = 0

    def add(self, problem: str, *, offset: int | None = None, line: int | None = None) -> None:
        """One more."""
        if len(self.told) < limits.problems_told_max:
            self.told.append(Problem(problem, offset, line))
        else:
            self.more += 1


class SegmentChecker:
    """Checks the files of ``segments/`` one by one."""

    def __init__(self, folder: Path, *, disk: Disk, serving: Callable[[], bool]) -> None:
        self._folder, self._disk, self._serving = folder, disk, serving

    def files(self) -> Iterator[Checked]:
        """Every open file, then every sealed segment, also one that only a manifest tells of."""
        # Open ones first: what is sealed meanwhile is then found among the sealed ones.
        for name in self._disk.names(self._folder / "open"):
            if name.endswith(OPEN_ENDING) and is_stem(name.removesuffix(OPEN_ENDING)):
                checked = self.open(name.removesuffix(OPEN_ENDING))
                if checked is not None:
                    yield checked
        names = self._disk.names(self._folder)
        segments = {name for name in names if _stem_in(name, SEALED_ENDING)}
        ending = SEALED_ENDING + MANIFEST_ENDING
        told = {name.removesuffix(MANIFEST_ENDING) for name in names if _stem_in(name, ending)}
        # Manifests alone come last: the segment may be there by then, made anew by a repair that ended too early.
        for name in (*sorted(segments), *sorted(told - segments)):
            checked = self.sealed(name.removesuffix(SEALED_ENDING))
            if checked is not None:
                yield checked

    def strangers(self) -> list[str]:
        """What lies in the two folders and is neither segment nor manifest nor half made."""
        here = [name for name in self._disk.names(self._folder) if name != "open"]
        endings = (SEALED_ENDING, SEALED_ENDING + MANIFEST_ENDING)
        opened = self._disk.names(self._folder / "open")
        return [
            *(f"segments/{name}" for name in here if not any(_stem_in(name, ending) for ending in endings)),
            *(
                f"segments/open/{name}"
                for name in opened
                if not _stem_in(name, OPEN_ENDING) and not name.endswith(HALF_MADE_ENDING)
            ),
        ]

    def open(self, stem: str) -> Checked | None:
        """An open file; None if it is there no more."""
        path = self._folder / "open" / (stem + OPEN_ENDING)
        problems, lines, number = Problems(), 0, 0
        last: Torn | None = None
        try:
            for frame in frames(self._disk.pieces(path)):
                if last is not None:
                    problems.add(f"{len(last.data)} bytes that are no whole frame", offset=last.offset)
                    last = None
                if isinstance(frame, Torn):
                    last = frame
                    continue
                for line in frame.lines.splitlines():
                    number += 1
                    problem = problem_of(line)
                    if problem is None:
                        lines += 1
                    else:
                        problems.add(problem, offset=frame.offset, line=number)
            # What has no end yet may be a group that a server is writing at this moment.
            if last is not None and not self._serving():
                self._disk.stat(path)
                problems.add(f"{len(last.data)} bytes at the end that are no whole frame", offset=last.offset)
        except FileNotFoundError:
            return None
        return Checked(path, "open", lines, problems.told, problems.more)

    def sealed(self, stem: str) -> Checked | None:
        """A sealed segment against its manifest; None if it is there no more, or not yet."""
        path = self._folder / (stem + SEALED_ENDING)
        problems = Problems()
        manifest = self._manifest(path, problems)
        in_manifest = len(problems.told)
        content = _Content(problems)
        try:
            content.read(self._disk.pieces(path))
        except FileNotFoundError:
            return self._absent(stem, path, manifest)
        sound = len(problems.told) == in_manifest and not problems.more
        if manifest is not None:
            found = content.manifest(path.name, node_in(stem))
            for key in Manifest.__struct_fields__:
                told, is_so = getattr(manifest, key), getattr(found, key)
                if told != is_so:
                    problems.add(f"its manifest tells {key} {told!a:.80}, found is {is_so!a:.80}")
        missing = max(0, manifest.rows - content.lines) if manifest is not None else 0
        unproven = 0 if sound else content.unproven
        right = content.manifest(path.name, node_in(stem)) if sound and content.lines else None
        return Checked(path, "sealed", content.lines, problems.told, problems.more, missing, unproven, right)

    def _absent(self, stem: str, path: Path, manifest: Manifest | None) -> Checked | None:
        # A manifest is there before its segment; the open file goes only after both are durable. So if it is gone
        # and there is still no segment, there will be none.
        if (stem + OPEN_ENDING) in self._disk.names(self._folder / "open") or manifest is None:
            return None
        if path.name in self._disk.names(self._folder):
            return self.sealed(stem)
        if path.name + MANIFEST_ENDING not in self._disk.names(self._folder):
            return None
        problem = Problem("missing: only its manifest is here")
        return Checked(path, "sealed", 0, [problem], missing=manifest.rows)

    def _manifest(self, path: Path, problems: Problems) -> Manifest | None:
        try:
            return decode_manifest(self._disk.read(path.with_name(path.name + MANIFEST_ENDING)))
        except FileNotFoundError:
            problems.add("its manifest is missing")
        except (msgspec.MsgspecError, ValueError):
            problems.add("its manifest cannot be read")
        return None


class _Content:
    """What is found in a sealed segment's bytes."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._sha256 = hashlib.sha256()
        self.bytes = self.lines = self.rows = self.lines_bytes = self.unproven = 0
        self.first, self.last = "~", ""

    def read(self, pieces: Iterator[bytes]) -> None:
        """Read all of it; what is wrong with it is added to the problems."""
        hashed = self._hashed(pieces)
        try:
            for line in sealed_lines(hashed):
                self.rows += 1
                self.lines_bytes += len(line) + 1
                self._look_at(line)
        except SegmentDamaged as damage:
            self._problems.add(damage.reason, offset=damage.offset)
        for _ in hashed:  # To the end, for the hash.
            pass

    def manifest(self, name: str, node: str) -> Manifest:
        """What its manifest should be."""
        first = self.first if self.lines else ""
        sha256 = self._sha256.hexdigest()
        return Manifest(1, name, self.rows, self.bytes, sha256, self.lines_bytes, first, self.last, node)

    def _look_at(self, line: bytes) -> None:
        checked = line_of(line)
        if isinstance(checked, str):
            self._problems.add(checked, line=self.rows)
            return
        self.lines += 1
        self.first, self.last = min(self.first, checked.received), max(self.last, checked.received)
        # Of a document that lacks nothing the hash is that of its bytes: what is damaged by chance has it no more.
        self.unproven += receipts.hash_of(bytes(checked.doc)) != checked.sha256

    def _hashed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._sha256.update(piece)
            self.bytes += len(piece)
            yield piece


def _stem_in(name: str, ending: str) -> bool:
    return name.endswith(ending) and is_stem(name.removesuffix(ending))
