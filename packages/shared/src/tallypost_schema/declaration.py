"""The declaration, ``telemetry.toml``: all that may ever leave, why, who owns it, until when.

Takes   the text of a file.
Gives   a `Declaration`, or every problem of the file at once.
Never   reads a file; never asks what day it is (a day is handed in).
"""

from __future__ import annotations

import datetime
import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from . import limits, names
from .errors import DeclarationInvalid
from .event_fields import accepts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FieldKind: TypeAlias = Literal["count", "seconds", "bytes", "flag"]
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")

# What the library counts of itself is declared in a file of its own (``own.toml``), and nowhere else.
OWN_APPLICATION = "tallypost"
OWN_PREFIX = "tallypost/"
FIELD_KINDS: tuple[FieldKind, ...] = ("count", "seconds", "bytes", "flag")


@dataclass(frozen=True)
class Entry:
    """What every declared name has: a reason, an owner, an end (None: never) and a rate."""

    why: str
    owner: str
    expires: datetime.date | None
    rate: float

    def expired(self, today: datetime.date) -> bool:
        """Whether it may leave no more; the day it expires on is the first such day."""
        return self.expires is not None and today >= self.expires


@dataclass(frozen=True)
class Counter(Entry):
    """A counter, with the buckets that may leave."""

    buckets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Histogram(Entry):
    """A histogram, with its edges in rising order."""

    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Stack(Entry):
    """A stack counter: how many frames at most, and of which packages."""

    depth: int = 8
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event(Entry):
    """An event: for each field a tuple of words, or a kind of number."""

    fields: dict[str, tuple[str, ...] | FieldKind] = field(default_factory=dict)

    def accepts(self, key: str, value: object) -> bool:
        """Whether `value` is what field `key` is declared to be."""
        allowed = self.fields.get(key)
        return allowed is not None and accepts(allowed, value)


@dataclass(frozen=True)
class Declaration:
    """A whole ``telemetry.toml``."""

    application: str
    contact: str | None
    about: str | None
    consent_version: int
    counters: dict[str, Counter]
    histograms: dict[str, Histogram]
    stacks: dict[str, Stack]
    events: dict[str, Event]
    counter_names: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        declared = set(self.counters)
        for name, counter in self.counters.items():
            declared.update(f"{name}:{bucket}" for bucket in counter.buckets)
        for name, histogram in self.histograms.items():
            declared.update(f"{name}:{bucket}" for bucket in names.histogram_buckets(histogram.edges))
        object.__setattr__(self, "counter_names", frozenset(declared))

    def names_counter(self, counter: str) -> bool:
        """Whether a key of ``counters`` (a name, or a name and bucket) is declared."""
        return counter in self.counter_names

    def names_stack(self, stack: str) -> bool:
        """Whether a key of ``stacks`` (a name, then frames) is declared."""
        return stack.partition("\n")[0] in self.stacks


def parse(text: str) -> Declaration:
    """The declaration that `text` is.

    Raises:
        DeclarationInvalid: with a sentence for each problem of the whole file.
    """
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise DeclarationInvalid(["not TOML that can be read: nested too deep"]) from error
    except ValueError as error:  # TOMLDecodeError is one; so is the refusal of a number with thousands of digits.
        raise DeclarationInvalid([f"not TOML: {error}"]) from error
    reader = _Reader()
    declaration = reader.declaration(value)
    if reader.problems:
        raise DeclarationInvalid(reader.problems)
    return declaration


class _Reader:
    """Reads a decoded file and gathers its problems, so that an author sees them all at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def declaration(self, value: dict[str, Any]) -> Declaration:
        self._only(
            value,
            "",
            ("application", "contact", "about", "consent_version", "counters", "histograms", "stacks", "events"),
        )
        application = self._text(value, "application", "")
        if application and not names.is_application(application):
            self._problem("application", application, names.APPLICATION_RULE)
        version = value.get("consent_version", 1)
        if type(version) is not int or not 1 <= version <= limits.count_max:
            self._problem("consent_version", version, "a whole number from 1 on")
        counters = self._table(value, "counters", self._counter, names.is_name, names.NAME_RULE)
        histograms = self._table(value, "histograms", self._histogram, names.is_name, names.NAME_RULE)
        stacks = self._table(value, "stacks", self._stack, names.is_stack_name, names.STACK_RULE)
        events = self._table(value, "events", self._event, names.is_name, names.NAME_RULE)
        for name in counters.keys() & histograms.keys():
            self._problem(f'histograms."{name}"', name, "a name that no counter has: which rate would hold for it?")
        for table, entries in (("counters", counters), ("histograms", histograms), ("events", events)):
            for name in entries:
                if name.startswith(OWN_PREFIX) and application != OWN_APPLICATION:
                    self._problem(f'{table}."{name}"', name, f"a name without {OWN_PREFIX}: that is the library's own")
        return Declaration(
            application,
            self._text(value, "contact", "") if "contact" in value else None,
            self._text(value, "about", "") if "about" in value else None,
            version,
            counters,
            histograms,
            stacks,
            events,
        )

    def _counter(self, value: dict[str, Any], name: str, where: str, entry: dict[str, Any]) -> Counter:
        self._only(value, where, ("why", "owner", "expires", "rate", "buckets"))
        buckets = self._words(value, "buckets", where, names.is_bucket, names.BUCKET_RULE)
        self._fit(name, buckets, f"{where}.buckets")
        return Counter(**entry, buckets=buckets)

    def _histogram(self, value: dict[str, Any], name: str, where: str, entry: dict[str, Any]) -> Histogram:
        self._only(value, where, ("why", "owner", "expires", "rate", "edges"))
        edges = value.get("edges")
        rule = "a list of rising positive numbers that differ when spelled with six digits ([0.1, 1, 10])"
        if not (
            isinstance(edges, list)
            and edges
            and all(type(edge) in (int, float) and 0 < edge <= sys.float_info.max for edge in edges)
            and all(low < high for low, high in itertools.pairwise(edges))
            and len({format(edge, "g") for edge in edges}) == len(edges)
        ):
            self._problem(f"{where}.edges", edges, rule)
            edges = []
        edges = tuple(float(edge) for edge in edges)
        self._fit(name, names.histogram_buckets(edges), f"{where}.edges")
        return Histogram(**entry, edges=edges)

    def _stack(self, value: dict[str, Any], name: str, where: str, entry: dict[str, Any]) -> Stack:
        self._only(value, where, ("why", "owner", "expires", "rate", "depth", "packages"))
        depth = value.get("depth", 8)
        if type(depth) is not int or not 1 <= depth <= limits.stack_frames_max:
            self._problem(f"{where}.depth", depth, f"a whole number from 1 to {limits.stack_frames_max}")
        is_package, rule = (lambda text: all(part.isidentifier() for part in text.split("."))), "names of packages"
        return Stack(**entry, depth=depth, packages=self._words(value, "packages", where, is_package, rule))

    def _event(self, value: dict[str, Any], name: str, where: str, entry: dict[str, Any]) -> Event:
        self._only(value, where, ("why", "owner", "expires", "rate", "fields"))
        fields: dict[str, tuple[str, ...] | FieldKind] = {}
        given = value.get("fields", {})
        if not isinstance(given, dict) or len(given) > limits.event_fields_max:
            self._problem(f"{where}.fields", given, f"a table of at most {limits.event_fields_max} fields")
            given = {}
        for key, kind in given.items():
            place = f"{where}.fields.{_spelled(key)}"
            if not names.is_field(key):
                self._problem(place, key, names.FIELD_RULE)
            if isinstance(kind, list):
                fields[key] = self._words(given, key, f"{where}.fields", _is_word, "printable words")
            elif kind in FIELD_KINDS:
                fields[key] = kind
            else:
                self._problem(place, kind, 'a list of words, "count", "seconds", "bytes" or "flag"')
        return Event(**entry, fields=fields)

    def _table(
        self,
        value: dict[str, Any],
        table: str,
        make: Callable[[dict[str, Any], str, str, dict[str, Any]], Any],
        is_name: Callable[[str], bool],
        rule: str,
    ) -> dict[str, Any]:
        given = value.get(table, {})
        if not isinstance(given, dict):
            self._problem(table, given, f'tables such as [{table}."cmd/export"]')
            return {}
        entries = {}
        for name, body in given.items():
            where = f"{table}.{_quoted(name)}"
            if not is_name(name):
                self._problem(where, name, rule)
            elif not isinstance(body, dict):
                self._problem(where, body, "a table with why, owner and expires")
            else:
                entries[name] = make(body, name, where, self._entry(body, where))
        return entries

    def _entry(self, value: dict[str, Any], where: str) -> dict[str, Any]:
        expires = value.get("expires")
        if expires != "never" and type(expires) is not datetime.date:
            self._problem(f"{where}.expires", expires, 'a date (2027-06-01) or "never"')
        rate = value.get("rate", 1.0)
        if type(rate) not in (int, float) or not 0 <= rate <= 1:
            self._problem(f"{where}.rate", rate, "a number from 0 to 1")
            rate = 0.0
        until = expires if type(expires) is datetime.date else None
        why, owner = self._text(value, "why", where), self._text(value, "owner", where)
        return {"why": why, "owner": owner, "expires": until, "rate": float(rate)}

    def _text(self, value: dict[str, Any], key: str, where: str) -> str:
        text = value.get(key)
        if isinstance(text, str) and text.strip():
            return text
        self._problem(f"{where}.{key}" if where else key, text, "some text; it is needed")
        return ""

    def _words(
        self, value: dict[str, Any], key: str, where: str, is_word: Callable[[str], bool], rule: str
    ) -> tuple[str, ...]:
        words = value.get(key, [])
        if not isinstance(words, list) or not all(isinstance(word, str) and is_word(word) for word in words):
            self._problem(f"{where}.{_spelled(key)}", words, f"a list of {rule}")
            return ()
        return tuple(dict.fromkeys(words))

    def _only(self, value: dict[str, Any], where: str, allowed: tuple[str, ...]) -> None:
        for key in value:
            if key not in allowed:
                place = f"{where}.{_spelled(key)}" if where else _spelled(key)
                self.problems.append(f"{place} is not a key of this table, allowed are {', '.join(allowed)}")

    def _fit(self, name: str, buckets: tuple[str, ...], place: str) -> None:
        """Name and bucket make one counter: one that is too long would make every report that holds it invalid."""
        for bucket in buckets:
            if not names.is_counter(f"{name}:{bucket}"):
                allowed = limits.name_characters_max - len(name) - 1
                self._problem(place, bucket, f"{max(allowed, 0)} characters at most behind a name of {len(name)}")

    def _problem(self, key: str, given: object, allowed: str) -> None:
        self.problems.append(f"{key} is {_shown(given)}, allowed is {allowed}")


def _is_word(text: str) -> bool:
    return 0 < len(text) <= limits.field_characters_max and not names.has_control(text)


def _shown(given: object) -> str:
    if given is None:
        return "missing"
    try:
        return ascii(given)[:80]
    except (ValueError, RecursionError):  # Hexadecimal digits in thousands; tables in tables in tables.
        return "too large to show"


def _spelled(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _quoted(key)


def _quoted(key: str) -> str:
    """A key as a file spells it; one that is long or has other characters is cut and escaped."""
    return f'"{ascii(key)[1:-1][: limits.name_characters_max]}"'
