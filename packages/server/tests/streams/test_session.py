from __future__ import annotations

import functools

from tallypost_server.streams.session import (
    Batch,
    Session,
    add,
    begun,
    is_settled,
    part_of,
    shares,
    with_part,
)


def after(*batches: Batch) -> Session:
    """The session after these batches."""
    first = begun("example.org/mytool", "ab" * 16, batches[0])
    return functools.reduce(lambda session, batch: add(session, batch).session, batches, first)


def archived(session: Session, *batches: Batch) -> Session:
    """The session once these batches of it are archived."""
    content = after(*batches).content
    return with_part(session, part_of(session, content))


def test_session_is_complete_when_every_index_to_the_terminal_one_is_there_or_lost() -> None:
    """Lost ranges count as there; nothing is complete without a terminal index."""
    one, two, end = Batch(1, 0, 3, 0, None), Batch(2, 4, 9, 2, None), Batch(3, 10, 9, 0, 9)

    assert not after(one, two).complete
    assert not after(one, end).complete
    assert after(one, two, end).complete
    assert after(end, two, one).complete


def test_session_that_only_closes_needs_its_terminal_index() -> None:
    """A closing batch tells where the session ends, and brings nothing of it."""
    session = after(Batch(1, 5, 4, 0, 4))

    part = part_of(session, ())

    assert (None, 4, False) == (part.terminal, part.told_terminal, part.complete)


def test_part_of_a_sparse_session_records_gaps_and_drops_an_unreached_terminal() -> None:
    """What is there is archived, what lacks is recorded, as far as is known that there was something."""
    session = after(Batch(1, 2, 3, 0, None), Batch(2, 8, 9, 1, 20))

    part = part_of(session, session.content)

    assert ((2, 3), (9, 9)) == part.content
    assert ((8, 8),) == part.lost
    assert ((0, 1), (4, 7)) == part.gaps
    assert (None, 20, "sparse", 1) == (part.terminal, part.told_terminal, part.state, part.number)


def test_part_of_a_sparse_session_keeps_a_terminal_that_was_reached() -> None:
    """The end is there, something before it is not."""
    session = after(Batch(1, 4, 5, 0, 5))

    part = part_of(session, session.content)

    assert (((0, 3),), 5, False) == (part.gaps, part.terminal, part.complete)


def test_supplement_writes_only_what_is_not_archived() -> None:
    """What came late follows, and completes the session."""
    first, second = Batch(1, 2, 3, 0, 3), Batch(9, 0, 2, 0, None)
    sparse = archived(after(first), first)
    assert "sparse" == sparse.state

    session = add(sparse, second).session
    part = part_of(session, second.content)

    assert ((0, 1),) == part.content
    assert ((0, 3),) == part.total
    assert ((), 3, "complete", 2) == (part.gaps, part.terminal, part.state, part.number)


def test_content_that_comes_for_a_lost_range_is_kept() -> None:
    """A lost range is no content: what comes for it is new, and it is lost no more."""
    lost = Batch(1, 0, 2, 3, 2)
    session = with_part(after(lost), part_of(after(lost), ()))

    added = add(session, Batch(2, 1, 1, 0, None))
    part = part_of(added.session, ((1, 1),))

    assert added.is_new
    assert ((1, 1),) == part.content
    assert ((0, 0), (2, 2)) == part.lost


def test_repetition_is_a_duplicate_and_counted() -> None:
    """The same batch again brings nothing, archived or not."""
    batch, again = Batch(1, 0, 3, 0, None), Batch(2, 0, 3, 0, None)

    waiting, done = add(after(batch), again), add(archived(after(batch), batch), again)

    assert (False, 1) == (waiting.is_new, waiting.session.duplicates)
    assert (False, 1) == (done.is_new, done.session.duplicates)


def test_batch_received_earlier_is_no_duplicate_of_one_that_waits() -> None:
    """Of what waits the first received wins: the task decides, so the batch is kept. Of what is archived it is one."""
    late, early = Batch(9, 0, 3, 0, None), Batch(1, 0, 3, 0, None)

    assert add(after(late), early).is_new
    assert not add(archived(after(late), late), early).is_new


def test_first_terminal_wins_and_another_is_a_contradiction() -> None:
    """By when they were received, whichever is seen first, and content beyond it contradicts as well."""
    low, high = Batch(1, 0, 3, 0, 3), Batch(2, 4, 5, 0, 5)

    for session in (after(low, high), after(high, low)):
        assert 3 == session.terminal
        assert session.contradictions >= 1
        assert ((0, 5),) == session.content


def test_shares_give_each_index_to_the_batch_received_first() -> None:
    """In whatever order they lie, and of equal times the first here."""
    batches = [Batch(5, 0, 4, 0, None), Batch(1, 2, 6, 1, None), Batch(5, 4, 7, 0, None)]

    assert [((0, 2),), ((3, 6),), ((7, 7),)] == shares(batches, ((0, 7),))


def test_batch_is_settled_once_the_archive_tells_all_it_told() -> None:
    """Content, lost ranges and the terminal index."""
    content, lost, end = Batch(1, 0, 3, 0, None), Batch(2, 4, 5, 2, None), Batch(3, 6, 5, 0, 5)
    session = archived(after(content), content)
    assert is_settled(session, content)

    later = add(add(session, lost).session, end).session

    assert not is_settled(later, lost)
    assert not is_settled(later, end)
    done = with_part(later, part_of(later, ()))
    assert is_settled(done, lost)
    assert is_settled(done, end)
