from __future__ import annotations

import asyncio
import collections
import contextlib
import gzip
import io
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import pytest
import uvicorn
import zstandard
from hypothesis import HealthCheck, Phase, event, given, seed, settings
from hypothesis import strategies as st

from tallypost_schema import documents, receipts
from tallypost_schema.outcomes import CODES
from tallypost_server.app import App
from tallypost_server.ingest.hot_path import hot_path

Running = Callable[..., AbstractAsyncContextManager[tuple[App, Any]]]
Stored = Callable[[], list[dict[str, Any]]]
Document = Callable[..., bytes]

# What readers of JSON, of numbers and of text have stumbled over.
PIECES = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b" ", b"\n", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    *(
        b"\\ud800",
        b"\\u0000",
        b"\\ud83d\\ude00",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"0.0",
        b"1E2",
        b"null",
        b"true",
    ),
    *(b"9007199254740991", b"9007199254740992", b"18446744073709551616", b"9" * 400, b"[" * 40, b'{"a":' * 40, b"{}"),
    *(b'"v":1,', b'"id":"' + b"a" * 32 + b'",', b'"terminal":0', b'"lost":9007199254740991', b"pdf\\n", b"../", b":"),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            "export",
            "cmd/export",
            "cmd/export:pdf",
            "2026-11-24",
            "2026-01-01",
            "2027-01-01",
            "2026-02-30",
            "a" * 201,
            "\ud800",
            "a\nb",
        ]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(
    [b"application/json"] * 12
    + [
        b"application/json;charset=utf-8",
        b"APPLICATION/JSON ; charset=UTF-8",
        b"text/plain",
        b"application/json;",
        b"\xff",
    ]
)
CODINGS = st.sampled_from(
    [b"zstd", b"ZSTD", b" gzip ", b"identity", b"", b"br", b"zstd, zstd", b"gzip\x00", b"\xff", b"x" * 300]
)


class Request(NamedTuple):
    """A request as it comes to the application: not yet one that any rule holds for."""

    path: str
    headers: list[tuple[bytes, bytes]]
    pieces: list[bytes]


@st.composite
def bytes_like(draw: st.DrawFn, body: bytes) -> bytes:
    """`body` after some cuts, doublings, flips and insertions."""
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 5]))):
        at = draw(st.integers(0, len(body)))
        to = min(len(body), at + draw(st.integers(0, 40)))
        what = draw(st.sampled_from(["insert", "cut", "double", "replace", "end", "flip"]))
        if what == "insert":
            body = body[:at] + draw(st.sampled_from(PIECES)) + body[at:]
        elif what == "cut":
            body = body[:at] + body[to:]
        elif what == "double":
            body = body[:to] + body[at:]
        elif what == "replace":
            body = body[:at] + draw(st.sampled_from(PIECES)) + body[to:]
        elif what == "end":
            body = body[:at]
        elif at < len(body):
            body = body[:at] + bytes([body[at] ^ 1 << draw(st.integers(0, 7))]) + body[at + 1 :]
    return body


@st.composite
def values_like(draw: st.DrawFn, document: Any) -> bytes:
    """JSON like `document`, with some values replaced, keys added, renamed or gone."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 4]))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and draw(st.integers(0, 3)):
                place = place[key]
                continue
            what = draw(st.sampled_from(["replace", "remove", "add", "rename"]))
            if what == "replace":
                place[key] = draw(VALUES)
            elif what == "remove":
                del place[key]
            elif isinstance(place, list):
                place.append(place[key])
            else:
                place[draw(st.text(max_size=8))] = place[key] if what == "rename" else draw(VALUES)
            break
    return json.dumps(document, separators=(",", ":"), ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )


@st.composite
def requests(draw: st.DrawFn, examples: list[bytes]) -> Request:
    """A request made from a valid one, spoilt in no place, in one or in several."""
    example = draw(st.sampled_from(examples))
    body = draw(values_like(json.loads(example)) if draw(st.booleans()) else bytes_like(example))
    coding = draw(st.sampled_from([None, None, b"identity", b"zstd", b"gzip"]))
    if coding == b"zstd":
        frames = (
            [body] if draw(st.integers(0, 4)) else [body[:7], body[7:]] + [b""] * draw(st.sampled_from([0, 62, 63]))
        )
        compress = zstandard.ZstdCompressor(write_content_size=draw(st.booleans())).compress
        body = b"".join(map(compress, frames)) + draw(st.sampled_from([b"", b"", b"\x50\x2a\x4d\x18\x01\x00\x00\x00x"]))
    elif coding == b"gzip":
        body = gzip.compress(body, mtime=0) + (b"" if draw(st.integers(0, 4)) else gzip.compress(b"", mtime=0))
    if coding in (b"zstd", b"gzip") and not draw(st.integers(0, 3)):
        body = draw(bytes_like(body))
    if not draw(st.integers(0, 9)):
        coding = draw(CODINGS)
    headers = [(b"content-type", draw(TYPES))]
    if coding is not None:
        headers.append((b"content-encoding", coding))
    if not draw(st.integers(0, 9)):
        headers.append(
            draw(
                st.sampled_from(
                    [
                        (b"content-length", b"99999999"),
                        (b"content-length", b"-1"),
                        (b"content-length", b"\xb2"),
                        (b"content-encoding", b"gzip"),
                        (b"expect", b"100-continue"),
                        (b"content-type", b"application/json"),
                        (b"x-forwarded-for", b"\xff, 203.0.113.9"),
                    ]
                )
            )
        )
    path = "/v1/reports" if b'"report"' in example else "/v1/events"
    if not draw(st.integers(0, 9)):
        path = draw(st.sampled_from(["/v1/reports", "/v1/events"]))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    pieces = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    return Request(path, headers, pieces)


Answer = tuple[int, dict[bytes, bytes], bytes]


class Asgi:
    """Asks an application as a server does."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, request: Request) -> Answer:
        pieces = collections.deque(request.pieces)
        answer: list[Any] = []

        async def receive() -> dict[str, Any]:
            body = pieces.popleft() if pieces else b""
            return {"type": "http.request", "body": body, "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            answer.append(message)

        scope = {"type": "http", "method": "POST", "path": request.path, "headers": request.headers, "root_path": ""}
        await self._app(scope, receive, send)
        start, end = answer
        return start["status"], dict(start["headers"]), end["body"]


class HotPath:
    """Asks the protocol that takes documents where their connection is read: bytes in, bytes out, without a socket."""

    def __init__(self, app: App) -> None:
        self._kind = hot_path(app.intake, new_id=app.new_id)
        self._config = uvicorn.Config(app, http=self._kind, ws="none", lifespan="off", log_config=None)
        self._config.load()
        self._state = uvicorn.server.ServerState()

    async def __call__(self, request: Request) -> Answer:
        # How long the body is frames the next request, and what no head may hold is httptools' own refusal.
        headers = [one for one in request.headers if one[0] != b"content-length" and b"\x00" not in one[1]]
        body = b"".join(request.pieces)
        head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % (request.path.encode(), len(body))
        head += b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"
        protocol, transport = self._kind(config=self._config, server_state=self._state, app_state={}), Transport()
        protocol.connection_made(transport)  # type: ignore[arg-type]
        try:
            for piece in (head, *request.pieces):
                protocol.data_received(piece)
            return await transport.answer()
        finally:
            protocol.connection_lost(None)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 1), "sockname": ("192.0.2.1", 80)})
        self._written, self._more, self._closing = b"", asyncio.Event(), False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written += bytes(data)
        self._more.set()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._more.set()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    async def answer(self) -> Answer:
        """The first whole answer; ``100 Continue`` is none."""
        while True:
            self._written = self._written.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            head, found, body = self._written.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            if found and len(body) >= int(headers[b"content-length"]):
                return int(first.split()[1]), headers, body
            assert not self._closing, self._written
            self._more.clear()
            await self._more.wait()


FORMS = {"reference": Asgi, "hot path": HotPath}


class Fuzz:
    """A server that many requests are given to, one after the other, and what must hold for each."""

    def __init__(self, ask: Callable[[Request], Awaitable[Answer]], described: Any) -> None:
        self._ask, self._described = ask, described
        self.answers: collections.Counter[str] = collections.Counter()

    async def give(self, request: Request) -> None:
        """Post it, and look at the answer."""
        status, headers, body = await asyncio.wait_for(self._ask(request), 10)
        assert f"{len(body)}".encode() == headers[b"content-length"]
        if status == 200:
            self.answers["stored"] += 1
            self._check_stored(request, body)
            return
        error = receipts.error_in(body)
        assert error is not None
        self.answers[error.code] += 1
        event(error.code)
        told = CODES[error.code]  # type: ignore[index]
        assert (told.status, told.retry) == (status, error.retry)
        assert ("post", request.path, status, error.code) in self._described.documented()
        # The disk is well and there is room: all trouble would be of the server's making.
        assert status < 500, error

    def _check_stored(self, request: Request, receipt: bytes) -> None:
        """What was answered 200 is a document by two other readers, and the receipt is its own."""
        event("stored")
        body = b"".join(request.pieces)
        coding = dict(request.headers).get(b"content-encoding", b"").strip().lower()
        if coding == b"zstd":
            body = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True).read()
        elif coding == b"gzip":
            body = gzip.decompress(body)
        assert receipt == receipts.encode_receipt(receipts.hash_of(body))
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_number)
        self._described.validate(_schema_of(request.path), value)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def _no_number(text: str) -> None:
    raise AssertionError(text)


def _schema_of(path: str) -> str:
    return f"#/components/schemas/{'Report' if path == '/v1/reports' else 'Batch'}"


@pytest.fixture
def examples(report: Document, batch: Document) -> list[bytes]:
    """Valid documents, of each shape that a client makes."""
    return [
        report(),
        report(counters={"cmd/export": 3, "cmd/export:pdf": 3, "not/declared": 1}, previous="2026-11-23", config="3"),
        report(stacks={"crash/KeyError\nmytool.cli:main:+12\nmytool.io:load:+4": 1}),
        batch(3, terminal=2),
        batch(0, first=5, terminal=4),
        batch(0, lost=4),
        batch(1, events=[{}, {"name": "other", "at": "2026-11-24T10:00:00Z", "fields": {"a": True, "b": 0.5}}]),
    ]


@pytest.fixture
def fuzz(
    running: Running, examples: list[bytes], described: Any, stored: Stored
) -> Callable[..., collections.Counter[str]]:
    """Gives a server so many requests; then looks at all that it has stored."""

    def run(form: str, *, count: int, begin: int) -> collections.Counter[str]:
        before = len(stored())
        loop = asyncio.new_event_loop()
        server = running(seal_bytes=200_000)
        try:
            app, _ = loop.run_until_complete(server.__aenter__())
            fuzzed = Fuzz(FORMS[form](app), described)

            @seed(begin)
            @settings(
                max_examples=count,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            )
            @given(requests(examples))
            def give(request: Request) -> None:
                loop.run_until_complete(fuzzed.give(request))

            with contextlib.ExitStack() as ending:
                ending.callback(lambda: loop.run_until_complete(server.__aexit__(None, None, None)))
                give()
                assert 0 == app._metrics.unexpected.value()
                assert (0, 0) == (app._admission._requests, app._admission._held_bytes)
        finally:
            loop.close()
        lines = stored()[before:]
        assert fuzzed.answers["stored"] == len(lines)
        for line in lines:
            body = json.dumps(line["doc"], separators=(",", ":"), ensure_ascii=False).encode()
            described.validate(_schema_of("/v1/reports" if line["kind"] == "report" else "/v1/events"), line["doc"])
            documents.decode_report(body) if line["kind"] == "report" else documents.decode_batch(body)
        return fuzzed.answers

    return run


@pytest.mark.parametrize("form", FORMS)
def test_post_of_anything_is_answered_as_promised_and_nothing_else_is_stored(
    fuzz: Callable[..., collections.Counter[str]], form: str
) -> None:
    """Spoilt documents, encodings and heads: no 5xx, no unforeseen error, only what is a document lies in segments."""
    answers = fuzz(form, count=300, begin=1)

    # The requests are worth making: they come to every answer that a body can have, and many are stored.
    assert answers["stored"] > 30
    assert {"malformed", "invalid", "unsupported_type", "unsupported_encoding"} <= answers.keys()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", FORMS)
def test_post_of_anything_for_a_minute_is_answered_as_promised(
    fuzz: Callable[..., collections.Counter[str]], form: str
) -> None:
    """The same, with other requests at each run: the failing one is printed with its seed."""
    import secrets
    import time

    end, answers = time.monotonic() + 60, collections.Counter[str]()
    while time.monotonic() < end:
        begin = secrets.randbits(32)
        print(f"seed {begin}")
        answers = fuzz(form, count=1000, begin=begin)
        print(answers)

    assert answers["stored"]
