"""A declaration beside the code that it is for: what one has and the other has not.

Takes   a declaration, and what the code counts (``source.py``).
Gives   lints.
Never   calls unused what might be counted: where the code computes a name, each declared one that fits is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase

from tallypost_schema import names
from tallypost_schema.declaration import OWN_PREFIX, Declaration, Event

from .lints import Lint, key_of, tables_of
from .source import ANY, UNKNOWN, BucketUse, Kind, Use, Uses

_TABLES: dict[str, Kind] = {"counters": "counter", "histograms": "histogram", "stacks": "stack", "events": "event"}
_OTHER = "other"


def compare(declared: Declaration, uses: Uses) -> list[Lint]:
    """All that the declaration and the code together tell."""
    found = [Lint("unreadable-source", path, f"cannot be read: {why}") for path, why in uses.unreadable.items()]
    by_kind: dict[Kind, list[Use]] = {
        kind: [use for use in uses.names if use.kind == kind] for kind in _TABLES.values()
    }
    for table, entries in tables_of(declared).items():
        counted = by_kind[_TABLES[table]]
        found += _unused(table, list(entries), counted)
        found += _undeclared(table, entries, counted)
    for name, histogram in declared.histograms.items():
        found += _other_edges(name, histogram.edges, by_kind["histogram"])
    for name, event in declared.events.items():
        found += _other_fields(name, event, by_kind["event"])
    used = _fitting([use.name for use in by_kind["counter"]])
    for name, counter in declared.counters.items():
        if used(name):
            found += _buckets(name, counter.buckets, [use for use in uses.buckets if fnmatchcase(name, use.counter)])
    return found


def _fitting(spellings: list[str]) -> Callable[[str], bool]:
    """Whether one of the spellings may be a text."""
    whole = {spelling for spelling in spellings if ANY not in spelling}
    parts = {spelling for spelling in spellings if ANY in spelling}
    return lambda text: text in whole or any(fnmatchcase(text, part) for part in parts)


def _unused(table: str, declared: list[str], uses: list[Use]) -> Iterator[Lint]:
    fits = _fitting([use.name for use in uses if use.name != ANY])
    unknown = next((use.place for use in uses if use.name == ANY), None)
    rest = [name for name in declared if not fits(name) and not name.startswith(OWN_PREFIX)]
    if unknown is None:
        yield from (Lint("unused-name", key_of(table, name), "is counted nowhere in the code") for name in rest)
    elif rest:
        yield Lint("computed-name", ", ".join(key_of(table, name) for name in rest), "may be counted, or not", unknown)


def _undeclared(table: str, declared: Mapping[str, object], uses: list[Use]) -> Iterator[Lint]:
    places: dict[str, str] = {}
    for use in uses:
        if ANY not in use.name and use.name not in declared and not use.by_integration:
            places.setdefault(use.name, use.place)
    for name, place in places.items():
        yield Lint("undeclared-name", key_of(table, name), "is not declared: it stays on the machine", place)


def _other_edges(name: str, edges: tuple[float, ...], uses: list[Use]) -> Iterator[Lint]:
    spelled = names.histogram_buckets(edges)
    for use in uses:
        if use.name == name and use.edges is not None and names.histogram_buckets(use.edges) != spelled:
            code, file = (", ".join(format(edge, "g") for edge in given) for given in (use.edges, edges))
            yield Lint(
                "other-edges", f"{key_of('histograms', name)}.edges", f"are {file}, in the code {code}", use.place
            )


def _other_fields(name: str, event: Event, uses: list[Use]) -> Iterator[Lint]:
    for use in uses:
        for field, value in use.given.items() if use.name == name else ():
            key = f"{key_of('events', name)}.fields.{field}"
            if field not in event.fields:
                yield Lint("other-fields", key, "is not declared", use.place)
            elif value is not UNKNOWN and not event.accepts(field, value):
                yield Lint("other-fields", key, f"does not take {value!a:.80}", use.place)


def _buckets(name: str, declared: tuple[str, ...], uses: list[BucketUse]) -> Iterator[Lint]:
    key = f"{key_of('counters', name)}.buckets"
    fits = _fitting([use.bucket for use in uses])
    unused = [bucket for bucket in declared if bucket != _OTHER and not fits(bucket)]
    if unused:
        yield Lint("unused-bucket", key, f"has {', '.join(unused)}, which the code counts nowhere")
    # What is counted of a counter that nobody knows says nothing about this one.
    certain = [use for use in uses if use.counter != ANY and not use.by_integration]
    if _OTHER in declared:
        return
    places: dict[str, str] = {}
    for use in certain:
        if use.bucket not in declared and names.is_bucket(use.bucket):
            places.setdefault(use.bucket, use.place)
    for bucket, place in places.items():
        yield Lint("undeclared-bucket", key, f"lacks {bucket}: it leaves in the plain name alone", place)
    computed = next((use.place for use in certain if ANY in use.bucket), None)
    if declared and computed is not None:
        yield Lint("no-other", key, "lacks other, and the code computes buckets", computed)
