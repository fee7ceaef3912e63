"""Quotas: what of the documents that wait makes room for others, and what remains of it.

Takes   names, sizes, batches.
Gives   the names over a quota, oldest first, and batches that hold no event but say which are lost.
Never   touches the disk (``pending.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallypost_schema.documents import Batch

from .. import limits


def reports_over(names: list[str]) -> list[str]:
    """The reports that go, of those that wait, oldest first."""
    return names[: -limits.pending_reports_max]


def batches_over(sizes: Mapping[str, int]) -> list[str]:
    """The batches whose events go, of those with events, oldest first."""
    number, size, over = len(sizes), sum(sizes.values()), []
    for name, bytes_ in sizes.items():
        if number <= limits.pending_batches_max and size <= limits.pending_batches_bytes_max:
            break
        number, size = number - 1, size - bytes_
        over.append(name)
    return over


def lost_over(batches: Mapping[str, Batch]) -> list[str]:
    """The batches that go, of those without events, oldest first."""
    over = max(0, len(batches) - limits.pending_lost_batches_max)
    # First those that are a whole session, of which the server has seen nothing and will miss nothing.
    return sorted(batches, key=lambda name: not _is_whole_session(batches[name]))[:over]


def without_events(batch: Batch) -> Batch:
    """The batch that tells the server that all of this one is lost."""
    return msgspec.structs.replace(batch, lost=batch.last - batch.first + 1, events=[])


def joined(first: Batch, second: Batch) -> Batch | None:
    """One batch without events for two of a session; None where the second does not go on from the first."""
    # Where the first was joined with the second before, and that one is still there, it goes on from it too.
    if second.first > first.last + 1 or first.terminal not in (None, second.terminal):
        return None
    last = max(first.last, second.last)
    return msgspec.structs.replace(first, lost=last - first.first + 1, terminal=second.terminal)


def _is_whole_session(batch: Batch) -> bool:
    return batch.first == 0 and batch.terminal == batch.last
