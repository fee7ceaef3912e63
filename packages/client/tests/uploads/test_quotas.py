from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost import limits
from tallypost.uploads import quotas
from tallypost_schema import documents
from tallypost_schema import limits as shared_limits
from tallypost_schema.documents import Batch, Event, Program

SESSION = "ab" * 16
PROGRAM = Program("mytool", "1.2.3", "3.12", "linux", "x86_64")


def batch(first: int, events: int = 0, lost: int = 0, terminal: int | None = None) -> Batch:
    """A batch of the one session."""
    return Batch(1, "events", "example.org/mytool", SESSION, first, lost, terminal, PROGRAM, [Event()] * events)


def test_limits_of_quotas_leave_room_for_what_they_must() -> None:
    """The newest document never goes for its own size, and no name goes that could be made again."""
    assert limits.pending_batches_bytes_max > shared_limits.decoded_bytes_max
    assert limits.pending_reports_max > shared_limits.horizon_days
    assert min(limits.sent_documents_kept, limits.refused_documents_kept) >= shared_limits.horizon_days + 2
    assert limits.pending_lost_batches_max >= limits.pending_batches_max


@pytest.mark.parametrize(("waiting", "over"), [(0, 0), (40, 0), (41, 1), (100, 60)])
def test_reports_over_the_quota_are_the_oldest(waiting: int, over: int) -> None:
    """Forty days wait; what is older goes."""
    names = [f"day-{n:03}" for n in range(waiting)]

    assert names[:over] == quotas.reports_over(names)


@pytest.mark.parametrize(
    ("sizes", "over"),
    [
        ([], 0),
        ([1] * 250, 0),
        ([1] * 251, 1),
        ([1 << 20] * 10, 0),
        ([1 << 20] * 11, 1),
        ([1, *[1 << 20] * 10], 1),
        ([1 << 20] * 10 + [1], 1),
        ([1] * 240 + [1 << 20] * 11, 241),
    ],
)
def test_batches_over_the_quota_are_the_oldest_by_number_and_by_bytes(sizes: list[int], over: int) -> None:
    """250 documents and 10 MiB: whichever is reached first."""
    named = {str(n): size for n, size in enumerate(sizes)}

    assert list(named)[:over] == quotas.batches_over(named)


@pytest.mark.parametrize("terminal", [None, 9])
def test_without_events_a_batch_tells_its_whole_range_and_its_terminal(terminal: int | None) -> None:
    """What was lost before, and what is lost now; the end of the session stays known."""
    lost = quotas.without_events(batch(5, events=3, lost=2, terminal=terminal))

    assert batch(5, lost=5, terminal=terminal) == lost
    assert lost == documents.decode_batch(documents.encode(lost))


def test_joined_batches_are_one_range() -> None:
    """A range goes on where the one before it ends, to the end of the session."""
    assert batch(5, lost=7) == quotas.joined(batch(5, lost=3), batch(8, lost=4))
    assert batch(5, lost=3, terminal=7) == quotas.joined(batch(5, lost=3), batch(8, terminal=7))
    assert batch(5, lost=4, terminal=8) == quotas.joined(batch(5, lost=3), batch(8, lost=1, terminal=8))


def test_joined_batches_can_be_joined_again() -> None:
    """Where a process ended between the two steps the second is in the first already."""
    second = batch(8, lost=1, terminal=8)
    both = quotas.joined(batch(5, lost=3), second)
    assert both is not None

    assert both == quotas.joined(both, second)


def test_joined_batches_have_no_gap_and_one_end() -> None:
    """Indexes between the two are not lost, and two ends are a contradiction that is not ours to settle."""
    assert quotas.joined(batch(5, lost=3), batch(9, lost=1)) is None
    assert quotas.joined(batch(5, lost=3, terminal=7), batch(8, lost=1)) is None
    assert quotas.joined(batch(5, lost=3, terminal=7), batch(8, lost=1, terminal=8)) is None


@given(ends=st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True), closes=st.booleans())
@settings(deadline=None, derandomize=True, database=None)
def test_joined_batches_of_any_session_cover_the_same_indexes(ends: list[int], closes: bool) -> None:
    """However a session was cut, one batch tells all of it in the end, and is a document."""
    first, all_of_it = 0, None
    for end in sorted(ends):
        next_one = batch(first, lost=end - first, terminal=end - 1 if closes and end == max(ends) else None)
        all_of_it = next_one if all_of_it is None else quotas.joined(all_of_it, next_one)
        assert all_of_it is not None
        first = end

    assert batch(0, lost=max(ends), terminal=max(ends) - 1 if closes else None) == all_of_it
    assert all_of_it == documents.decode_batch(documents.encode(all_of_it))


def test_lost_over_the_quota_are_first_whole_sessions_then_the_oldest() -> None:
    """A server that saw nothing of a session does not miss it; of another one it would wait for the rest."""
    whole, begun, ended, closing = (
        batch(0, lost=3, terminal=2),
        batch(0, lost=3),
        batch(3, lost=1),
        batch(9, terminal=8),
    )
    kept = {f"kept-{n}": begun for n in range(limits.pending_lost_batches_max - 3)}
    waiting = {"begun": begun, "ended": ended, "whole": whole, "closing": closing, "whole too": whole, **kept}

    assert ["whole", "whole too"] == quotas.lost_over(waiting)
    assert ["whole", "begun"] == quotas.lost_over(
        {name: one for name, one in waiting.items() if name != "whole too"} | {"more": ended}
    )
    assert [] == quotas.lost_over(dict(list(waiting.items())[2:]))


def test_without_events_leaves_nothing_of_them() -> None:
    """What is evicted is gone, whatever else the document says."""
    told = msgspec.structs.replace(batch(0), events=[Event("export", "2026-11-19T10:00:00Z", {"format": "pdf"})])

    assert b"pdf" not in documents.encode(quotas.without_events(told))
