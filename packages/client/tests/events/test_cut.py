from __future__ import annotations

import datetime
from typing import Any

from msgspec import UNSET

from tallypost import limits
from tallypost.events.cut import next_batch
from tallypost.events.log_reader import Header, Logged, SessionLog
from tallypost_schema import declaration as declarations
from tallypost_schema import documents
from tallypost_schema.documents import Batch
from tallypost_schema.upload_config import UploadConfig

TODAY = datetime.date(2026, 11, 24)
DECLARATION = declarations.parse(
    """
    application = "example.org/mytool"
    [events.export]
    why = "-"
    owner = "-"
    expires = "never"
    fields = { format = ["pdf"], pages = "count" }
    [events.old]
    why = "-"
    owner = "-"
    expires = 2026-11-24
    [events.sampled]
    why = "-"
    owner = "-"
    expires = "never"
    rate = 0.5
    """
)


def log(*events: tuple[int, str, dict[str, Any]], first: int = 0, session: str = "80" * 16) -> SessionLog:
    """A log with these events."""
    header = Header(
        1,
        first,
        session,
        "2026-11-24T10:00:00Z",
        "on 2026-11-20 1 user",
        "00000000-1",
        "example.org/mytool",
        "mytool",
        "1.2.3",
        "3.12",
        "linux",
        "x86_64",
    )
    return SessionLog(
        header, [Logged(index, name, "2026-11-24T10:00:00.123Z", fields) for index, name, fields in events]
    )


def cut(given: SessionLog, *, config: UploadConfig | None = None, closes: bool = False) -> Batch | None:
    """The next batch, which a server would take."""
    batch = next_batch(given, declaration=DECLARATION, config=config, today=TODAY, closes=closes)
    if batch is not None:
        assert batch == documents.decode_batch(documents.encode(batch))
    return batch


def names(batch: Batch | None) -> list[str | None]:
    """The names of a batch's events; None for one that is withheld."""
    assert batch is not None
    return [None if event.name is UNSET else event.name for event in batch.events]


def test_batch_has_the_events_from_the_logs_first_index_on() -> None:
    """What was logged, in the order of its indexes."""
    batch = cut(log((3, "export", {"format": "pdf"}), (4, "export", {"pages": 2}), first=3))

    assert batch is not None
    assert (3, 0, None, 4) == (batch.first, batch.lost, batch.terminal, batch.last)
    assert [{"format": "pdf"}, {"pages": 2}] == [event.fields for event in batch.events]
    assert ("mytool", "1.2.3", "3.12") == (batch.program.program, batch.program.version, batch.program.python)


def test_batch_of_a_log_without_events_is_none_while_the_session_lives() -> None:
    """There is nothing to say."""
    assert cut(log(first=3)) is None


def test_batch_of_a_session_without_any_event_is_none_for_good() -> None:
    """It is never sent, also when it is over."""
    assert cut(log(), closes=True) is None


def test_batch_of_a_session_that_is_over_has_the_terminal_index() -> None:
    """The server knows when it has all of it."""
    batch = cut(log((0, "export", {}), (1, "export", {})), closes=True)

    assert batch is not None
    assert 1 == batch.terminal


def test_batch_that_only_closes_has_no_event() -> None:
    """Everything was cut before the process ended."""
    batch = cut(log(first=3), closes=True)

    assert batch is not None
    assert (3, 0, 2, []) == (batch.first, batch.lost, batch.terminal, batch.events)


def test_batch_before_a_gap_ends_there_and_the_next_begins_with_a_lost_range() -> None:
    """Indexes that are missing in the log are told, and the session is not over before its last event."""
    whole = log((0, "export", {}), (3, "export", {}), (4, "export", {}))

    first = cut(whole, closes=True)
    second = cut(log((3, "export", {}), (4, "export", {}), first=1), closes=True)

    assert first is not None
    assert second is not None
    assert (0, 0, 0, None) == (first.first, first.lost, first.last, first.terminal)
    assert (1, 2, 4, 4) == (second.first, second.lost, second.last, second.terminal)


def test_batch_withholds_what_may_not_leave_and_keeps_its_place() -> None:
    """Expired, not declared, and fields that are none: `{}` each."""
    batch = cut(
        log(
            (0, "export", {"format": "pdf"}),
            (1, "old", {}),
            (2, "unknown", {}),
            (3, "export", {"format": "secret"}),
            (4, "export", {"path": "x"}),
        )
    )

    assert ["export", None, None, None, None] == names(batch)
    assert b'"events":[{"name":"export","at":"2026-11-24T10:00:00.123Z","fields":{"format":"pdf"}},{},{},{},{}]' in (
        documents.encode(batch) if batch is not None else b""
    )


def test_batch_samples_by_session() -> None:
    """One number a session decides, for all its events: below the rate they leave."""
    low, high = "7f" + "0" * 30, "80" + "0" * 30

    assert ["sampled"] == names(cut(log((0, "sampled", {}), session=low)))
    assert [None] == names(cut(log((0, "sampled", {}), session=high)))


def test_batch_is_narrowed_by_the_config_and_never_widened() -> None:
    """What the config does not name, or asks for at a lower rate, is withheld."""
    low = "3f" + "0" * 30
    both = log((0, "sampled", {}), (1, "export", {}), session=low)

    def config(events: dict[str, float]) -> UploadConfig:
        return UploadConfig(version="1", counters={}, histograms={}, stacks={}, events=events, paused=False)

    assert ["sampled", "export"] == names(cut(both, config=config({"sampled": 1.0, "export": 1.0})))
    assert [None, "export"] == names(cut(both, config=config({"sampled": 0.1, "export": 0.5})))
    assert [None, None] == names(cut(both, config=config({})))


def test_batch_of_a_large_log_is_one_of_several() -> None:
    """A log that could not be cut for long becomes documents of a fair size, which cover all of it."""
    events = [(index, "export", {"format": "pdf", "pages": 2**53 - 1}) for index in range(40_000)]
    rest, covered, sizes = log(*events), 0, []

    while (batch := cut(rest, closes=True)) is not None:
        assert covered == batch.first
        covered = batch.last + 1
        sizes.append(len(documents.encode(batch)))
        if batch.terminal is not None:
            break
        rest = log(*events[covered:], first=covered)

    assert (40_000, 39_999) == (covered, batch.terminal if batch is not None else None)
    assert max(sizes) <= limits.log_bytes_cut
