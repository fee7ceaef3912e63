"""What is allowed in a declaration and still looks wrong.

Takes   a declaration, and the day it is.
Gives   lints: a code word that stays, a level, where it stands, a sentence; what to do goes by the code word.
Never   says what a parser refuses (``tallypost_schema.declaration``), nor what only the code can tell (``used.py``).
"""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from tallypost_schema.declaration import Declaration, Entry

from .. import limits

Level: TypeAlias = Literal["error", "warning", "note"]
# An error fails a check, a warning does if it is strict, a note never does.
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Rule(NamedTuple):
    """How much a lint weighs, and what to do about it."""

    level: Level
    advice: str


RULES = {
    "no-contact": Rule("error", "name an address: users need somebody to ask"),
    "expired": Rule("error", "take the table out, or give a new date if somebody still looks at it"),
    "other-edges": Rule("error", "make them the same: what is counted between other edges does not leave"),
    "no-source": Rule("error", "give the folder in which the program's Python files lie"),
    "near-duplicate": Rule("warning", "keep one of them, or give them names that nobody mixes up"),
    "far-expiry": Rule("warning", "take a nearer date: whoever needs it longer can move it then"),
    "unit-in-name": Rule(
        "warning", "measure seconds or bytes: in a histogram such as export/seconds, in a field of that kind"
    ),
    "short-why": Rule("warning", "write what is decided by it: users read this sentence"),
    "no-packages": Rule("warning", "name the packages whose frames may leave"),
    "unused-name": Rule("warning", "take the table out, or correct the name here or in the code"),
    "unused-bucket": Rule("warning", "take it out, or correct it here or in the code"),
    "other-fields": Rule("warning", "declare it, or leave it out of the code: such an event is lost"),
    "unreadable-source": Rule("warning", "run this with the Python that the file is for: what it uses is not known"),
    "computed-name": Rule("note", "nothing, if it is so; a name that stands in the code can be checked"),
    "undeclared-name": Rule("note", "nothing, if it is for the user alone; declare it if it should leave"),
    "undeclared-bucket": Rule("note", "nothing, if the plain name is enough; declare it, or the bucket other"),
    "no-other": Rule("note", "declare the bucket other: it tells how many were in none of those declared"),
}


@dataclass(frozen=True)
class Lint:
    """One finding. `place` is in the code (``tool.py:12``), where that says something."""

    code: str
    key: str
    finding: str
    place: str | None = None

    @property
    def level(self) -> Level:
        """Whether a check fails by it."""
        return RULES[self.code].level

    @property
    def advice(self) -> str:
        """What to do about it."""
        return RULES[self.code].advice

    @property
    def sentence(self) -> str:
        """Where it stands, and what is found there."""
        return f"{self.key} {self.finding}" + (f" ({self.place})" if self.place is not None else "")

    def fails(self, *, strict: bool) -> bool:
        """Whether a check with this finding fails."""
        return self.level == "error" or (strict and self.level == "warning")


def tables_of(declared: Declaration) -> dict[str, Mapping[str, Entry]]:
    """The four tables of names, as the file calls them."""
    return {
        "counters": declared.counters,
        "histograms": declared.histograms,
        "stacks": declared.stacks,
        "events": declared.events,
    }


def key_of(table: str, name: str) -> str:
    """A table of the file, as the file spells it."""
    return f'{table}."{name}"'


def lint(declared: Declaration, *, today: datetime.date) -> list[Lint]:
    """All that the declaration alone tells."""
    found = []
    if declared.contact is None:
        found.append(Lint("no-contact", "contact", "is missing"))
    for table, entries in tables_of(declared).items():
        for name, entry in entries.items():
            found += _entry(key_of(table, name), entry, today)
            if _has_unit(name, allowed=_BASE_UNITS if table == "histograms" else ()):
                found.append(Lint("unit-in-name", key_of(table, name), f"has the unit {_last_word(name)} in its name"))
    for name, event in declared.events.items():
        for field, kind in event.fields.items():
            if _has_unit(field, allowed=(kind,) if isinstance(kind, str) else ()):
                key = f"{key_of('events', name)}.fields.{field}"
                found.append(Lint("unit-in-name", key, f"has the unit {_last_word(field)} in its name"))
    for name, stack in declared.stacks.items():
        if not stack.packages:
            found.append(Lint("no-packages", f"{key_of('stacks', name)}.packages", "lets no frame leave"))
    # A counter and a histogram are charted side by side, and share their names.
    shared = [(table, name) for table in ("counters", "histograms") for name in tables_of(declared)[table]]
    for keys in (
        shared,
        [("stacks", name) for name in declared.stacks],
        [("events", name) for name in declared.events],
    ):
        found += _near_duplicates(keys)
    return found


def _entry(key: str, entry: Entry, today: datetime.date) -> Iterator[Lint]:
    if entry.expired(today):
        yield Lint("expired", key, f"expired on {entry.expires}: it leaves no more")
    elif entry.expires is not None and (entry.expires - today).days > limits.expires_days_ahead_max:
        yield Lint("far-expiry", f"{key}.expires", f"is {entry.expires}, more than three years ahead")
    if sum(_weight(letter) for letter in entry.why.strip()) < limits.why_characters_min:
        yield Lint("short-why", f"{key}.why", "is too short to be a reason")


def _weight(letter: str) -> int:
    # A sentence in Chinese or Japanese takes a third of the letters.
    return 3 if unicodedata.east_asian_width(letter) in "WF" else 1


# -------------------------------------------------------------------- near-duplicate names

# Words with an s that is no plural, beside which the word without it is likely to stand.
_NOT_PLURAL = frozenset({"ftps", "https", "imaps", "ldaps", "news", "smtps"})


def _near_duplicates(keys: list[tuple[str, str]]) -> Iterator[Lint]:
    """Names that differ in separators, capitals or a plural alone."""
    seen: dict[str, tuple[str, str]] = {}
    for table, name in keys:
        first = seen.setdefault(_skeleton(name), (table, name))
        if first != (table, name):
            yield Lint("near-duplicate", key_of(table, name), f"is nearly {key_of(*first)}")


def _skeleton(name: str) -> str:
    """What is left of a name without separators, capitals and plurals: ``cmd/exports`` and ``cmd-export`` are one.

    Typing errors are left to the comparison with the code: words that differ in a letter are often both meant (list,
    lint; remote, remove).
    """
    return "".join(_singular(word) for word in name.lower().replace("/", "-").split("-"))


def _singular(word: str) -> str:
    """The same for a word and its plural; it need not be a word."""
    if len(word) < 4 or word in _NOT_PLURAL:
        return word
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if word.endswith("ie"):  # queries, query; and a movie is as good as a movy.
        return f"{word[:-2]}y"
    return word[:-1] if word.endswith(("se", "xe", "ze", "che", "she")) else word


# -------------------------------------------------------------------- units

_BASE_UNITS = ("seconds", "bytes")
# Without those that are words too: min, second, days, us.
_UNITS = frozenset(
    {
        *("ns", "nanoseconds", "usec", "usecs", "microseconds", "ms", "msec", "msecs", "millis", "milliseconds"),
        *("sec", "secs", "seconds", "mins", "minutes", "hours", "pct", "percent"),
        *("bytes", "kb", "kib", "kilobytes", "mb", "mib", "megabytes", "gb", "gib", "gigabytes", "tb", "tib"),
    }
)


def _has_unit(name: str, *, allowed: tuple[str, ...]) -> bool:
    unit = _last_word(name)
    return unit in _UNITS and unit not in allowed


def _last_word(name: str) -> str:
    return name.replace("/", "-").replace("_", "-").rpartition("-")[2]
