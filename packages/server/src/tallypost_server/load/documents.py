"""Documents for a load: such as clients make that count all that a declaration names.

Takes   a declaration, a day, a source of chance.
Gives   `Documents`, which has as many as are asked for, no two with one id or session.
Never   makes one that the server would refuse: each was read back by the rules before its first copy is posted.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from tallypost_schema import documents, limits, names
from tallypost_schema.declaration import Declaration, Entry
from tallypost_schema.declaration import Event as DeclaredEvent
from tallypost_schema.documents import Batch, Event, Field, Program, ProgramCounts, Report

from ..clock import stamp
from ..errors import NothingDeclared
from ..ingest.accept import Kind

Entry_ = TypeVar("Entry_", bound=Entry)

# Longer in all than the window in which a segment is compressed: a copy of a near one would cost the disk nothing.
MODELS = 2000
_EVENTS_MAX = 40
_BATCHES_MAX = 3
_PROGRAMS_MAX = 2


class Model(NamedTuple):
    """A document but for its id or session, of which each copy has its own."""

    kind: Kind
    before: bytes
    after: bytes
    goes_on: bool  # A further batch of the session that the model before it began.

    def with_id(self, identity: str) -> bytes:
        """The document with this id or session."""
        return self.before + identity.encode("ascii") + self.after


class Documents:
    """Documents without end, made from models that are drawn beforehand: a copy costs one new id."""

    def __init__(
        self,
        declarations: Sequence[Declaration],
        *,
        at: datetime.datetime,
        draw: random.Random,
        kinds: Sequence[Kind] = ("report", "events"),
        models: int = MODELS,
    ) -> None:
        """Draw the models.

        Raises:
            NothingDeclared: no declaration names anything of these kinds that has not expired.
        """
        self._draw = draw
        makers = [
            maker
            for one in declarations
            for maker in (_ReportMaker(one, at, draw), _SessionMaker(one, at, draw))
            if maker.kind in kinds and maker.has_any
        ]
        if not makers:
            raise NothingDeclared([one.application for one in declarations], kinds)
        self.kinds: frozenset[Kind] = frozenset(maker.kind for maker in makers)
        self._models: list[Model] = []
        while len(self._models) < models:
            for maker in makers:
                self._models += maker.models()

    def __iter__(self) -> Iterator[tuple[Kind, bytes]]:
        """Kind and bytes of one document after another."""
        draw, identity = self._draw.getrandbits, ""
        while True:
            for model in self._models:
                if not model.goes_on:
                    identity = f"{draw(128):032x}"
                yield model.kind, model.with_id(identity)


class _Maker:
    kind: Kind

    def __init__(self, declaration: Declaration, at: datetime.datetime, draw: random.Random) -> None:
        self._at, self._draw, self._app = at, draw, declaration.application

    def _live(self, entries: dict[str, Entry_]) -> dict[str, Entry_]:
        return {name: entry for name, entry in entries.items() if not entry.expired(self._at.date())}

    def _some(self, entries: Sequence[str]) -> list[str]:
        """Some of them, at least one: an application does not do all it can on each day."""
        return self._draw.sample(entries, self._draw.randint(-(-len(entries) // 2), len(entries))) if entries else []

    def _count(self) -> int:
        return self._draw.randrange(1, 10 ** self._draw.randrange(1, 6))

    def _program(self) -> Program:
        draw = self._draw
        name = self._app.rpartition("/")[2]
        return Program(
            program=name,
            version=f"{draw.randrange(1, 4)}.{draw.randrange(9)}.{draw.randrange(20)}",
            python=f"3.{draw.randrange(10, 15)}",
            os=draw.choice(("linux", "macos", "windows")),
            arch=draw.choice(("x86_64", "arm64")),
        )

    def _model(self, document: Report | Batch, identity: str, *, goes_on: bool) -> Model:
        body = documents.encode(document)
        # Pair assertion: what the server's own rules do not take would measure its refusals.
        read = documents.decode_report(body) if isinstance(document, Report) else documents.decode_batch(body)
        assert read == document
        before, found, after = body.partition(identity.encode("ascii"))
        assert found
        return Model(self.kind, before, after, goes_on)


class _ReportMaker(_Maker):
    kind: Kind = "report"

    def __init__(self, declaration: Declaration, at: datetime.datetime, draw: random.Random) -> None:
        super().__init__(declaration, at, draw)
        self._counters = self._live(declaration.counters)
        self._histograms = self._live(declaration.histograms)
        self._stacks = self._live(declaration.stacks)

    @property
    def has_any(self) -> bool:
        return bool(self._counters or self._histograms or self._stacks)

    def models(self) -> list[Model]:
        identity, today = f"{self._draw.getrandbits(128):032x}", self._at.date()
        x = round(self._draw.random(), 6) % 1
        programs = {
            program: ProgramCounts(
                program.program,
                program.version,
                program.python,
                program.os,
                program.arch,
                counters=self._counters_below(x),
                stacks=self._stacks_below(x),
            )
            for program in [self._program() for _ in range(self._draw.randint(1, _PROGRAMS_MAX))]
        }
        report = Report(
            v=1,
            kind="report",
            x=x,
            id=identity,
            app=self._app,
            day=today.isoformat(),
            previous=(today - datetime.timedelta(days=1)).isoformat(),
            config=None,
            programs=list(programs.values()),
        )
        return [self._model(report, identity, goes_on=False)]

    def _counters_below(self, x: float) -> dict[str, int]:
        """Counters with buckets, each sum beside its parts, and histograms; those whose rate is above `x`."""
        counters: dict[str, int] = {}
        for name in self._some(list(self._counters)):
            buckets = self._counters[name].buckets
            if x >= self._counters[name].rate:
                continue
            parts = {f"{name}:{bucket}": self._count() for bucket in self._some(buckets)}
            counters |= {name: sum(parts.values()) or self._count(), **parts}
        for name in self._some(list(self._histograms)):
            if x < self._histograms[name].rate:
                buckets = names.histogram_buckets(self._histograms[name].edges)
                counters |= {f"{name}:{bucket}": self._count() for bucket in self._some(buckets)}
        return counters

    def _stacks_below(self, x: float) -> dict[str, int]:
        stacks = {}
        for name in self._some(list(self._stacks)):
            declared = self._stacks[name]
            if x >= declared.rate:
                continue
            packages = declared.packages or (self._app.rpartition("/")[2].replace("-", "_").replace(".", "_"),)
            frames = [
                f"{self._draw.choice(packages)}.{self._draw.choice(('cli', 'core', 'io', 'model'))}"
                f":{self._draw.choice(('main', 'run', 'load', 'write', 'parse'))}:+{self._draw.randrange(120)}"
                for _ in range(self._draw.randint(1, declared.depth))
            ]
            stack = "\n".join([name, *frames])
            while len(stack.encode()) > limits.stack_bytes_max:
                stack = stack.rpartition("\n")[0]
            stacks[stack] = self._draw.randrange(1, 9)
        return stacks


class _SessionMaker(_Maker):
    kind: Kind = "events"

    def __init__(self, declaration: Declaration, at: datetime.datetime, draw: random.Random) -> None:
        super().__init__(declaration, at, draw)
        self._events = self._live(declaration.events)

    @property
    def has_any(self) -> bool:
        return bool(self._events)

    def models(self) -> list[Model]:
        """A session in one or more batches; the last one closes it."""
        session, program = f"{self._draw.getrandbits(128):032x}", self._program()
        moment = self._at - datetime.timedelta(hours=1)
        models: list[Model] = []
        first, batches = 0, self._draw.randint(1, _BATCHES_MAX)
        for number in range(batches):
            events = []
            for _ in range(self._draw.randint(1, _EVENTS_MAX)):
                moment += datetime.timedelta(milliseconds=self._draw.randint(1, 20_000))
                name = self._draw.choice(list(self._events))
                events.append(Event(name=name, at=stamp(moment), fields=self._fields(self._events[name])))
            last = first + len(events) - 1
            batch = Batch(
                v=1,
                kind="events",
                app=self._app,
                session=session,
                first=first,
                lost=0,
                terminal=last if number == batches - 1 else None,
                program=program,
                events=events,
            )
            models.append(self._model(batch, session, goes_on=number > 0))
            first = last + 1
        return models

    def _fields(self, declared: DeclaredEvent) -> dict[str, Field]:
        fields: dict[str, Field] = {}
        for key, allowed in declared.fields.items():
            if isinstance(allowed, tuple):
                if allowed:
                    fields[key] = self._draw.choice(allowed)
            elif allowed == "flag":
                fields[key] = self._draw.random() < 0.5
            elif allowed == "seconds":
                fields[key] = round(self._draw.expovariate(1.0), 3)
            else:
                fields[key] = self._count()
        return fields
