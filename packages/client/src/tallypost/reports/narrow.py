"""Narrowing: what of the counts may leave, by the declaration that they were made under, then by the upload config.

Takes   counts, a declaration, a config, the report's x and the day on which it is made.
Gives   the part that may leave.
Never   lets out a name that is not declared, nor one that the config does not ask for.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from tallypost_schema import names, own
from tallypost_schema.declaration import Declaration, Entry
from tallypost_schema.upload_config import UploadConfig

from ..counts.stack import ELSEWHERE


def narrow(
    counts: Mapping[str, int],
    *,
    declaration: Declaration | None,
    config: UploadConfig | None,
    x: float,
    today: datetime.date,
) -> dict[str, int]:
    """The counters and stacks of `counts` that may leave.

    A bucket that is not declared leaves in its plain name, which counted it too, and in ``:other`` if that is declared.
    """
    leaving: dict[str, int] = {}
    for name, n in counts.items():
        target = _target(name, declaration, config, x, today)
        if target is not None:
            leaving[target] = leaving.get(target, 0) + n
    return leaving


def _target(
    name: str, declaration: Declaration | None, config: UploadConfig | None, x: float, today: datetime.date
) -> str | None:
    """The name under which a count leaves, or None."""
    if declaration is None:
        return None
    if name.startswith(own.PREFIX):
        declaration = own.OWN
    stack, is_stack, frames = name.partition("\n")
    if is_stack:
        entry = declaration.stacks.get(stack)
        if entry is None or not _is_asked(stack, entry, config.stacks if config else None, x, today):
            return None
        # Again, though only declared frames were counted: the file may have been made by another version's rules.
        kept = [frame for frame in frames.split("\n") if names.is_within(frame.partition(":")[0], entry.packages)]
        return "\n".join((stack, *(kept[-entry.depth :] or [ELSEWHERE])))
    plain, colon, bucket = name.partition(":")
    if plain in declaration.histograms:
        asked = _is_asked(plain, declaration.histograms[plain], config.histograms if config else None, x, today)
        return name if asked and declaration.names_counter(name) else None
    counter = declaration.counters.get(plain)
    if counter is None or not _is_asked(plain, counter, config.counters if config else None, x, today):
        return None
    if not colon or bucket in counter.buckets:
        return name
    return f"{plain}:other" if "other" in counter.buckets else None


def _is_asked(
    name: str, entry: Entry | None, rates: Mapping[str, float] | None, x: float, today: datetime.date
) -> bool:
    if entry is None or entry.expired(today):
        return False
    rate = entry.rate if rates is None else min(entry.rate, rates.get(name, 0.0))
    return x < rate
