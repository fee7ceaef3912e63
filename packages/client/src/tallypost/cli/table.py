"""The table that `tallypost show` prints. Pure: facts in, lines out.

Takes   the facts of ``tallypost show --json``, the day it is, how many days, how wide.
Gives   lines without line feeds.
Never   prints; never knows whether anybody looks.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..counts.stack import ELSEWHERE

DAYS = 7
# So many days have a column each; of more days there is the sum.
_COLUMNS_MAX = 7
_GAP = "  "
# Long names are shortened to this before older days lose their columns.
_NAME_CHARACTERS_READABLE = 30
# A name is shortened to no less: what is left of it must still tell it from others.
_NAME_CHARACTERS_MIN = 12
_BUCKET_CHARACTERS_MIN = 6

Counts = Mapping[str, Mapping[str, int]]
"""By name, how much on each day."""


@dataclass(frozen=True)
class Row:
    """One line of the table, and the frames that stand below it."""

    name: str
    bucket: str
    numbers: tuple[str, ...]
    frames: tuple[str, ...] = ()


def last_days(today: str, count: int) -> list[str]:
    """The last `count` UTC days, `today` included, the oldest first."""
    end = datetime.date.fromisoformat(today)
    return [(end - datetime.timedelta(days=ago)).isoformat() for ago in range(count - 1, -1, -1)]


def chosen(facts: dict[str, Any], *, days: list[str] | None = None, name: str = "") -> dict[str, Any]:
    """The same shape, with those days alone (None: all), and with the names alone that contain `name`."""
    kept = []
    for day in facts["days"]:
        programs = [
            {**program, **{kind: _named(program[kind], name) for kind in ("counters", "stacks")}}
            for program in day["programs"]
        ]
        if name:
            programs = [program for program in programs if program["counters"] or program["stacks"]]
        if programs and (days is None or day["day"] in days):
            kept.append({**day, "programs": programs})
    return {"days": kept}


def lines(facts: dict[str, Any], *, today: str, days: int | None = None, width: int | None = None) -> list[str]:
    """The table: for each name and bucket what was counted today and in the last days together.

    Up to seven `days` have a column each; None is today and the week. With a `width` the table fits it: names are
    shortened in the middle, and where that is not enough older days lose their columns. Numbers are never cut.
    """
    window = last_days(today, days if days is not None else DAYS)
    shown = window if days is not None and 1 < days <= _COLUMNS_MAX else window[-1:]
    total = "" if days == 1 else "this week" if days is None else f"{days} days"
    groups = _groups(facts, window)
    while True:
        titles = (*(_title(day, today) for day in shown), *([total] if total else []))
        tables = [(heading, list(_rows(counts, window, shown, bool(total)))) for heading, counts in groups]
        sizes = _sizes([row for _, rows in tables for row in rows], titles)
        needed = _width([min(sizes[0], _NAME_CHARACTERS_READABLE), *sizes[1:]])
        if width is None or needed <= width or len(shown) == 1:
            break
        shown = shown[1:]
    if width is not None:
        sizes = _fitted(sizes, width)
    found: list[str] = []
    for heading, rows in tables:
        if rows:
            if len(groups) > 1:
                found += [*([""] if found else []), shortened(heading, width)]
            found.append(_line("name", "bucket", titles, sizes))
            for row in rows:
                found.append(_line(row.name, row.bucket, row.numbers, sizes))
                found += [shortened(f"{_GAP}{frame}", width) for frame in row.frames]
    return found


def shortened(text: str, width: int | None) -> str:
    """A text of at most `width` characters: what is too long loses its middle."""
    if width is None or len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _named(counts: Mapping[str, int], name: str) -> dict[str, int]:
    return {full: n for full, n in counts.items() if name in full}


def _groups(facts: dict[str, Any], window: list[str]) -> list[tuple[str, Counts]]:
    """Per program and version a heading, and its names' counts by day; of those alone that counted in these days."""
    groups: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    seen: set[tuple[str, str]] = set()
    for day in facts["days"]:
        for program in day["programs"]:
            key = (program["program"], program["version"])
            for name, n in (*program["counters"].items(), *program["stacks"].items()):
                by_day = groups.setdefault(key, {}).setdefault(name, {})
                by_day[day["day"]] = by_day.get(day["day"], 0) + n
                if day["day"] in window:
                    seen.add(key)
    return [(_printable(" ".join(key)), groups[key]) for key in sorted(seen)]


def _rows(counts: Counts, window: list[str], shown: list[str], has_total: bool) -> Iterator[Row]:
    def numbers(by_day: Mapping[str, int]) -> tuple[str, ...]:
        found = [by_day.get(day, 0) for day in shown]
        return tuple(f"{n:,}" for n in (*found, *([_sum(by_day, window)] if has_total else [])))

    by_name: dict[str, list[tuple[str, Mapping[str, int]]]] = {}
    for full, by_day in counts.items():
        if "\n" not in full:
            name, _, bucket = full.partition(":")
            by_name.setdefault(name, []).append((bucket, by_day))
    for name, buckets in sorted(by_name.items()):
        is_histogram = all(bucket[:1] in ("<", ">") for bucket, _ in buckets)
        if is_histogram and any(_sum(by_day, window) for _, by_day in buckets):
            # A bucket into which nothing fell these days says something too.
            kept = sorted(buckets, key=lambda entry: _edge(entry[0]))
        else:
            kept = sorted((entry for entry in buckets if _sum(entry[1], window)), key=lambda entry: _word(entry[0]))
        for place, (bucket, by_day) in enumerate(kept):
            yield Row(_printable(name) if place == 0 else "", _printable(bucket), numbers(by_day))
    stacks = {full: total for full, by_day in counts.items() if "\n" in full and (total := _sum(by_day, window))}
    # By name, and of one name the way that was taken most often first.
    for full in sorted(stacks, key=lambda full: (full.partition("\n")[0], -stacks[full], full)):
        name, *frames = full.split("\n")
        told = tuple("elsewhere" if frame == ELSEWHERE else _printable(frame) for frame in frames)
        yield Row(_printable(name), "", numbers(counts[full]), told)


def _sum(by_day: Mapping[str, int], window: list[str]) -> int:
    return sum(n for day, n in by_day.items() if window[0] <= day <= window[-1])


def _edge(bucket: str) -> tuple[float, str]:
    """The order of a histogram's buckets: by edge, what is over the last edge behind it."""
    try:
        return float(bucket.lstrip("<>=")), bucket
    except ValueError:
        return float("inf"), bucket


def _word(bucket: str) -> tuple[bool, str]:
    """The order of other buckets: the plain name first, ``other`` last."""
    return bucket == "other", bucket


def _title(day: str, today: str) -> str:
    return "today" if day == today else day[5:]


def _sizes(rows: list[Row], titles: tuple[str, ...]) -> list[int]:
    """How wide each column is: name, bucket, numbers."""
    names = max([len("name"), *(len(row.name) for row in rows)])
    buckets = max([len("bucket"), *(len(row.bucket) for row in rows)])
    numbers = [max([len(title), *(len(row.numbers[at]) for row in rows)]) for at, title in enumerate(titles)]
    return [names, buckets, *numbers]


def _width(sizes: list[int]) -> int:
    return sum(sizes) + len(_GAP) * (len(sizes) - 1)


def _fitted(sizes: list[int], width: int) -> list[int]:
    """Narrower columns of names, then of buckets, if the table is wider than `width`; numbers are never cut."""
    name, bucket, *numbers = sizes
    over = _width(sizes) - width
    if over > 0:
        name, kept = max(min(name, _NAME_CHARACTERS_MIN), name - over), name
        over -= kept - name
    if over > 0:
        bucket = max(min(bucket, _BUCKET_CHARACTERS_MIN), bucket - over)
    return [name, bucket, *numbers]


def _line(name: str, bucket: str, numbers: tuple[str, ...], sizes: list[int]) -> str:
    words = [shortened(name, sizes[0]).ljust(sizes[0]), shortened(bucket, sizes[1]).ljust(sizes[1])]
    words += [number.rjust(size) for number, size in zip(numbers, sizes[2:], strict=True)]
    return _GAP.join(words)


def _printable(text: str) -> str:
    """Nothing that a terminal would obey, whatever somebody wrote into a file."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
