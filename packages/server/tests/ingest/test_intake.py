from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from tallypost_schema import limits as shared
from tallypost_schema import receipts
from tallypost_server import limits
from tallypost_server.app import App
from tallypost_server.errors import CommitFailed, Declined, TooMuchWaiting
from tallypost_server.ingest import body as bodies
from tallypost_server.ingest import intake as intakes
from tallypost_server.segments.group_commit import GroupCommit
from tallypost_server.testing import FaultyDisk

pytestmark = pytest.mark.anyio
Document = Callable[..., bytes]


class Posted:
    """A document that came whole, and who waits for its outcome."""

    kind: Any = "report"
    request_id = "r"

    def __init__(self, body: bytes, coding: Any = "identity") -> None:
        self.body, self.coding = body, coding
        self.told: asyncio.Future[str | Declined] = asyncio.get_running_loop().create_future()

    def answer(self, outcome: str | Declined) -> None:
        """It is heard."""
        self.told.set_result(outcome)


def taken(app: App, *documents: bytes, coding: Any = "identity") -> list[asyncio.Future[str | Declined]]:
    """What becomes of documents that come within one turn of the loop."""
    told = []
    for document in documents:
        posted = Posted(document, coding)
        app.intake.enter("", [])
        app.intake.take(posted)
        told.append(posted.told)
    return told


async def test_documents_of_one_turn_share_a_sync_and_a_bad_one_is_refused_alone(
    running: Any, report: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hears its own word, in whichever step something is wrong with it."""
    good = [report(id=f"{number:032x}") for number in range(3)]
    groups = 0
    hand_over = GroupCommit.hand_over

    def handed_over(self: GroupCommit, *turn: Any) -> None:
        nonlocal groups
        groups += 1
        hand_over(self, *turn)

    monkeypatch.setattr(GroupCommit, "hand_over", handed_over)
    async with running() as (app, _):
        told = await asyncio.gather(*taken(app, good[0], b"{}", good[1], report(day="2020-01-01"), good[2]))
        counted = app.intake.metrics.stored.value("report")

    assert [receipts.hash_of(document) for document in good] == told[::2]
    assert ["invalid", "too_old"] == [declined.code for declined in told[1::2]]
    assert 1 == groups
    assert 3 == counted


async def test_document_that_is_not_stored_counts_for_nothing(running: Any, report: Document, disk: FaultyDisk) -> None:
    """Neither as stored, nor what it lacks as dropped."""
    async with running() as (app, _):
        disk.fail("sync")
        (told,) = await asyncio.gather(*taken(app, report(counters={"undeclared": 1})))
        metrics = app.intake.metrics

    assert isinstance(told, CommitFailed)
    assert (0, 0) == (metrics.stored.value("report"), metrics.dropped.value("counter"))


async def test_documents_of_one_turn_are_stored_whatever_happens_to_one(
    running: Any, report: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarantine that takes nothing, or a sender who cannot be told, costs no other its answer."""
    good = [report(id=f"{number:032x}") for number in range(2)]

    async with running() as (app, _):

        def broken(*_: Any, **more: Any) -> None:
            raise RuntimeError("it takes nothing more")

        monkeypatch.setattr(app.intake._quarantine, "keep_refused", broken)
        first = taken(app, good[0], b"{}")
        app.intake.enter("", [])
        unheard = Posted(b"[]")
        unheard.answer = broken  # type: ignore[method-assign]
        app.intake.take(unheard)
        told = await asyncio.gather(*first, *taken(app, good[1]))
        under_way = app.intake.admission._requests

    assert [receipts.hash_of(good[0]), "invalid", receipts.hash_of(good[1])] == [
        each.code if isinstance(each, Declined) else each for each in told
    ]
    assert 0 == under_way


async def test_documents_of_one_turn_are_decoded_a_few_at_a_time(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many small bodies come at once that are large when decoded."""
    bomb = zstandard.ZstdCompressor().compress(b" " * shared.decoded_bytes_max)
    decode, accept, held, most = bodies.Decoder.decode, intakes.accept, 0, 0

    def counted(self: bodies.Decoder, body: bytes, coding: Any) -> bytes:
        nonlocal held, most
        document = decode(self, body, coding)
        held += len(document)
        most = max(most, held)
        return document

    def given_up(document: bytes, *arguments: Any, **more: Any) -> Any:
        nonlocal held
        held -= len(document)
        return accept(document, *arguments, **more)

    monkeypatch.setattr(bodies.Decoder, "decode", counted)
    monkeypatch.setattr(intakes, "accept", given_up)
    monkeypatch.setattr(limits, "inline_bytes_max", shared.decoded_bytes_max)
    async with running() as (app, _):
        told = await asyncio.gather(*taken(app, *[bomb] * 20, coding="zstd"))

    assert {"malformed"} == {declined.code for declined in told if isinstance(declined, Declined)}
    assert 20 == len(told)
    assert shared.decoded_bytes_max <= most <= limits.turn_bytes_max + shared.decoded_bytes_max


async def test_documents_of_one_turn_over_the_bound_are_told_to_come_again(
    running: Any, report: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the disk is bounded in each turn; nothing of the others is kept, and later there is room again."""
    documents = [report(id=f"{number:032x}") for number in range(4)]

    async with running(waiting_bytes_max=2 * 700) as (app, _):
        told = await asyncio.gather(*taken(app, *documents[:3]))
        later = await asyncio.gather(*taken(app, documents[3]))

    assert [receipts.hash_of(document) for document in documents[:2]] == told[:2]
    assert isinstance(told[2], TooMuchWaiting)
    assert 2 * 700 == told[2].allowed < told[2].given
    assert [receipts.hash_of(documents[3])] == later
    assert 0 == app.intake.admission._requests
