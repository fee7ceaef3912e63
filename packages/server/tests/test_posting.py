from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import zstandard

from tallypost_schema import receipts
from tallypost_server import limits
from tallypost_server.errors import NoTallypost, StillBusy
from tallypost_server.posting import Answer, Document, NoAnswer, Post, Poster, base_url
from tallypost_server.settings import Listen
from tallypost_server.testing import FakeClock

pytestmark = pytest.mark.anyio
Running = Callable[..., AbstractAsyncContextManager[tuple[Any, Any]]]
BUSY = Answer(503, receipts.encode_error("busy", "later", retry=True), "7")
REFUSED = Answer(422, receipts.encode_error("too_old", "of last year", retry=False), None)


class Told:
    """Keeps what became of each document, by its place."""

    def __init__(self) -> None:
        self.became: dict[str, str] = {}
        self.waits: list[tuple[float, str]] = []

    def stored(self, document: Document) -> None:
        self.became[document.place] = "stored"

    def refused(self, document: Document, why: str) -> None:
        self.became[document.place] = why

    def waiting(self, seconds: float, why: str) -> None:
        self.waits.append((seconds, why))


class Server:
    """Gives scripted answers, receipts where the script says nothing."""

    def __init__(self, *script: Answer | Exception) -> None:
        self.script = list(script)
        self.received: list[tuple[str, bytes]] = []
        self.under_way = self.most_under_way = 0

    async def __call__(self, path: str, body: bytes) -> Answer:
        document = zstandard.decompress(body)
        self.received.append((path, document))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        answer = (
            self.script.pop(0)
            if self.script
            else Answer(200, receipts.encode_receipt(receipts.hash_of(document)), None)
        )
        if isinstance(answer, Exception):
            raise answer
        return answer


def of(number: int, stream: str | None = None) -> Document:
    return Document(f"line {number}", "/v1/reports", b"document %d" % number, stream or f"stream {number}")


async def posted(server: Post, clock: FakeClock, *documents: Document, patience: float = 600.0) -> Told:
    """Posts them while time passes as fast as it is waited for."""
    told = Told()
    posting = asyncio.ensure_future(Poster(server, clock=clock, patience_seconds=patience).post(documents, told))
    while not posting.done():
        await asyncio.sleep(0)
        clock.advance(0.25)
    await posting
    return told


async def test_post_of_many_gets_each_its_receipt(clock: FakeClock) -> None:
    """All are posted, some at a time."""
    server = Server()

    told = await posted(server, clock, *(of(number) for number in range(100)))

    assert {f"line {number}": "stored" for number in range(100)} == told.became
    assert limits.posts_together_max == server.most_under_way
    assert 100 == len(server.received)


async def test_post_of_one_stream_keeps_its_order(clock: FakeClock) -> None:
    """A later document of a stream waits for the receipt of the one before it, also where that has to come again."""
    server = Server(BUSY, NoAnswer("reset"))

    await posted(server, clock, *(of(number, "one") for number in range(4)))

    numbers = [document for _, document in server.received]
    assert [b"document %d" % number for number in (0, 0, 0, 1, 2, 3)] == numbers
    assert 1 == server.most_under_way


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (BUSY, 7.0),
        (Answer(503, b"", "Tue, 24 Nov 2026 10:00:10 GMT"), pytest.approx(9.877, abs=1)),
        (Answer(503, b"", "soon"), 1.0),
        (Answer(502, b"<html>", None), 1.0),
        (Answer(429, b"", "3"), 3.0),
        (NoAnswer("reset"), 1.0),
    ],
)
async def test_post_to_a_busy_server_waits_as_long_as_it_is_told(
    clock: FakeClock, answer: Answer | Exception, seconds: object
) -> None:
    """`Retry-After` is honoured, as a number and as a date; without it the pauses grow."""
    server = Server(answer)

    told = await posted(server, clock, of(1))

    assert {"line 1": "stored"} == told.became
    assert [seconds] == [waited for waited, _ in told.waits]
    assert 2 == len(server.received)


async def test_post_without_an_answer_waits_longer_each_time(clock: FakeClock) -> None:
    """A server that is away is not hammered."""
    server = Server(BUSY, *[NoAnswer("reset")] * 6)

    told = await posted(server, clock, of(1))

    assert [7, 2, 4, 8, 16, 30, 30] == [waited for waited, _ in told.waits]


async def test_post_to_a_server_that_stays_busy_is_given_up(clock: FakeClock) -> None:
    """After the patience has passed without a receipt it ends, and says why."""
    with pytest.raises(StillBusy, match="503 busy: later"):
        await posted(Server(*[BUSY] * 1000), clock, of(1), patience=60)

    assert 50 < clock.monotonic() <= 61


async def test_post_to_nobody_is_given_up_soon(clock: FakeClock) -> None:
    """An address at which nobody ever answered is more likely wrong than slow."""
    with pytest.raises(StillBusy, match="refused"):
        await posted(Server(*[NoAnswer("refused")] * 1000), clock, of(1))

    assert clock.monotonic() < 35


@pytest.mark.parametrize(
    "answer", [Answer(404, b"nothing", None), Answer(302, b"", None), Answer(200, b"welcome", None)]
)
async def test_post_to_a_stranger_ends_at_once(clock: FakeClock, answer: Answer) -> None:
    """An answer that is not ours, or another document's receipt, is none."""
    with pytest.raises(NoTallypost):
        await posted(Server(answer), clock, of(1))


async def test_post_of_a_refused_document_goes_on_with_the_others(clock: FakeClock) -> None:
    """It is told with its reason, and not posted again."""
    server = Server(REFUSED)

    told = await posted(server, clock, of(1), of(2))

    assert {"line 1": "422 too_old: of last year", "line 2": "stored"} == told.became
    assert 2 == len(server.received)


async def test_post_into_a_server_stores_what_was_posted(
    running: Running, report: Callable[..., bytes], clock: FakeClock, stored: Callable[[], list[dict[str, Any]]]
) -> None:
    """The real server gives the receipts."""
    async with running() as (_, client):

        async def post(path: str, body: bytes) -> Answer:
            answer = await client.post_to(path, body, "zstd")
            return Answer(answer.status_code, answer.content, None)

        documents = [Document(f"{n}", "/v1/reports", report(id=f"{n:032x}"), f"{n}") for n in range(40)]
        told = Told()
        await Poster(post, clock=clock, patience_seconds=1).post(documents, told)

    assert 40 == list(told.became.values()).count("stored")
    assert sorted(json.loads(document.document)["id"] for document in documents) == sorted(
        line["stream"] for line in stored()
    )


@pytest.mark.parametrize(
    ("to", "url"),
    [
        ("https://telemetry.example.org/", "https://telemetry.example.org"),
        (Listen("127.0.0.1", 80, ""), "http://127.0.0.1:80"),
        (Listen("0.0.0.0", 8080, ""), "http://127.0.0.1:8080"),
        (Listen("::", 8080, ""), "http://[::1]:8080"),
        (Listen("", 0, "/run/a"), "http://server"),
    ],
)
async def test_base_url_of_a_server_reaches_it(to: str | Listen, url: str) -> None:
    """What listens everywhere is reached on this machine."""
    assert url == base_url(to)
