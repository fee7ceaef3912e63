"""Posting documents again: a backup, or what was refused once, goes into a running server the way everything does.

Takes   documents, each with the place it came from; a connection to a server.
Gives   how many have a receipt for exactly the bytes that were posted, and what became of the others.
Never   takes anything but a receipt for stored; never lets two documents of one stream overtake each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol, TypeAlias

import zstandard

from tallypost_schema import outcomes, receipts, retry_after

from . import limits
from .clock import Clock
from .errors import ExtraMissing, NoTallypost, StillBusy, WrongUse
from .settings import Listen


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    retry_after: str | None


class NoAnswer(Exception):
    """Nothing is known of what the server did; the words say why."""


# Posts a body, which is zstd, to a path; raises NoAnswer.
Post: TypeAlias = Callable[[str, bytes], Awaitable[Answer]]


class Document(NamedTuple):
    """What is to be posted: where it stands, which path takes it, its bytes, and what must not be overtaken."""

    place: str
    path: str
    document: bytes
    stream: str


class Told(Protocol):
    """Who wants to know what became of each document."""

    def stored(self, document: Document) -> None:
        """It has its receipt."""
        ...

    def refused(self, document: Document, why: str) -> None:
        """The server refused it for good."""
        ...

    def waiting(self, seconds: float, why: str) -> None:
        """Nothing is posted for so long."""
        ...


class Poster:
    """Posts documents to one server, some at a time."""

    def __init__(self, post: Post, *, clock: Clock, patience_seconds: float) -> None:
        self._post, self._clock, self._patience_seconds = post, clock, patience_seconds
        self._compressor = zstandard.ZstdCompressor()
        self._answered = 0.0  # When the server last stored or refused something.
        self._heard = False  # Whether anybody has answered anything.

    async def post(self, documents: Iterable[Document], told: Told) -> None:
        """Return once the server has stored or refused every one of them.

        Raises:
            StillBusy: it took none for as long as the patience lasts.
            NoTallypost: what answers is no server of ours.
        """
        self._answered = self._clock.monotonic()
        together: list[Document] = []
        streams: set[str] = set()
        size = 0
        for document in documents:
            # Of one stream the document received first wins, so the next one waits for its receipt.
            full = len(together) == limits.posts_together_max or size > limits.posts_together_bytes_max
            if full or document.stream in streams:
                await self._post_together(together, told)
                together, streams, size = [], set(), 0
            together.append(document)
            streams.add(document.stream)
            size += len(document.document)
        await self._post_together(together, told)

    async def _post_together(self, documents: list[Document], told: Told) -> None:
        tasks = [asyncio.ensure_future(self._until_answered(document, told)) for document in documents]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_answered(self, document: Document, told: Told) -> None:
        body = self._compressor.compress(document.document)
        for attempt in range(1 << 30):
            wish: float | None = None
            try:
                answer = await self._post(document.path, body)
            except NoAnswer as failure:
                why = str(failure)
            else:
                self._heard = True
                outcome = outcomes.of_answer(answer.status, answer.body, document.document)
                if outcome != "recoverable":
                    self._answered = self._clock.monotonic()
                    if outcome == "stored":
                        told.stored(document)
                    else:
                        told.refused(document, _reason(answer))
                    return
                if answer.status < 500 and answer.status not in (408, 425, 429):
                    raise NoTallypost(document.path, answer.status)
                why, wish = (
                    _reason(answer),
                    retry_after.seconds_in(answer.retry_after or "", self._clock.now().timestamp()),
                )
            await self._wait(
                wish if wish is not None else float(min(2**attempt, limits.posts_pause_seconds_max)), why, told
            )

    async def _wait(self, seconds: float, why: str, told: Told) -> None:
        patience = self._patience_seconds
        if not self._heard:  # More likely a wrong address than a server that starts.
            patience = min(patience, limits.posts_first_answer_seconds_max)
        if self._clock.monotonic() + seconds > self._answered + patience:
            raise StillBusy(patience, why)
        told.waiting(seconds, why)
        await self._clock.sleep(seconds)


def _reason(answer: Answer) -> str:
    error = receipts.error_in(answer.body)
    return f"{answer.status}" if error is None else f"{answer.status} {error.code}: {error.message}"


async def post_over_http(
    documents: Iterable[Document], told: Told, *, to: str | Listen, clock: Clock, patience_seconds: float
) -> None:
    """Post to a server at an address, or where its settings say that it listens; raises as `Poster.post`.

    Raises:
        ExtraMissing: httpx is not installed.
        WrongUse: it is no address.
    """
    try:
        import httpx  # A server that never replays has no need of it.
    except ImportError as failure:
        raise ExtraMissing("posting documents", "httpx", "replay") from failure
    path = to.path if isinstance(to, Listen) else ""
    transport = httpx.AsyncHTTPTransport(uds=path) if path else None
    options: dict[str, object] = {
        "base_url": base_url(to),
        "timeout": limits.posts_answer_seconds_max,
        "follow_redirects": False,
    }
    options["trust_env"] = isinstance(to, str)  # To a server of this machine no proxy is asked.
    try:
        client = httpx.AsyncClient(transport=transport, **options)  # type: ignore[arg-type]  # Of three kinds.
    except httpx.InvalidURL as failure:
        raise WrongUse(f"{base_url(to)!a:.80} is no address: {failure}") from failure
    async with client:

        async def post(path: str, body: bytes) -> Answer:
            headers = {"content-type": "application/json", "content-encoding": "zstd"}
            try:
                answer = await client.post(path, content=body, headers=headers)
            except httpx.TransportError as failure:
                raise NoAnswer(f"{type(failure).__name__}: {failure}") from failure
            return Answer(answer.status_code, answer.content, answer.headers.get("retry-after"))

        await Poster(post, clock=clock, patience_seconds=patience_seconds).post(documents, told)


def base_url(to: str | Listen) -> str:
    """Where paths begin. A server that listens everywhere is reached on this machine."""
    if isinstance(to, str):
        return to.rstrip("/")
    if to.path:
        return "http://server"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(to.host, to.host)  # noqa: S104  Nothing is bound here.
    return f"http://{Listen(host, to.port, '')}"
