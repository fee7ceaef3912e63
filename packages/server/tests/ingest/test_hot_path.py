"""Both forms of the path that takes documents, over sockets: byte for byte the same answers."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import zstandard

from tallypost_schema import limits as shared
from tallypost_schema import receipts
from tallypost_server.app import App
from tallypost_server.ingest.answers import Speller
from tallypost_server.ingest.hot_path import hot_path, is_known
from tallypost_server.ingest.protocol import BoundedHead
from tallypost_server.settings import Settings
from tallypost_server.testing import FakeClock, FaultyDisk

pytestmark = pytest.mark.anyio

Document = Callable[..., bytes]
Stored = Callable[[], list[dict[str, Any]]]
Soon = Callable[[Callable[[], bool]], Any]
FORMS = ["reference", "hot path"]
_EACH_ITS_OWN = re.compile(rb"date: [^\r]*\r\n|x-request-id: [0-9a-f]{8}-[0-9]+\r\n")


class Served:
    """A server on a port of its own, by one of the forms."""

    def __init__(self, app: App, protocols: list[BoundedHead], address: tuple[str, int], cycles: list[object]) -> None:
        self.app, self.protocols, self.address, self.cycles = app, protocols, address, cycles

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def answers_to(self, *pieces: bytes, closes: bool = False) -> bytes:
        """All that is answered until the connection is closed, without dates and our own request ids."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        if not closes:  # A word to who closes by itself would be answered by a reset, and the answers be lost.
            writer.write(CLOSE)
        answers = await reader.read()
        writer.close()
        return _EACH_ITS_OWN.sub(b"", answers)


Serve = Callable[..., Any]
CLOSE = b"GET /v1/reports HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@pytest.fixture
def serve(make_settings: Callable[..., Settings], clock: FakeClock) -> Serve:
    """Serves by one of the forms, for the length of a block."""

    @asynccontextmanager
    async def begin(form: str, disk: FaultyDisk | None = None, **flags: object) -> AsyncIterator[Served]:
        app = App(make_settings(**flags), disk=disk or FaultyDisk(), clock=clock)
        kind = hot_path(app.intake, new_id=app.new_id) if form == "hot path" else BoundedHead
        cycles: list[object] = []

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            cycles.append(scope["path"])
            await app(scope, receive, send)

        config = uvicorn.Config(
            counted, http=kind, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
        )
        config.load()
        state = uvicorn.server.ServerState()
        protocols: list[BoundedHead] = []

        def connected() -> BoundedHead:
            protocols.append(kind(config=config, server_state=state, app_state={}))
            return protocols[-1]

        await app.start()
        server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
        try:
            yield Served(app, protocols, server.sockets[0].getsockname()[:2], cycles)
        finally:
            server.close()
            assert await app.stop()
            app.close()

    return begin


def request(body: bytes, *lines: str, path: str = "/v1/reports", method: str = "POST", version: str = "1.1") -> bytes:
    """A request's bytes; a line may say what the defaults say, then the default is left out."""
    given = {line.partition(":")[0].lower() for line in lines}
    defaults = ["host: x", "content-type: application/json", f"content-length: {len(body)}"]
    head = [line for line in defaults if line.partition(":")[0] not in given] + list(lines)
    return "\r\n".join([f"{method} {path} HTTP/{version}", *head, "", ""]).encode() + body


def chunked(body: bytes) -> bytes:
    return request(
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "transfer-encoding: chunked", "content-length:"
    ).replace(b"content-length:\r\n", b"")


def cases(report: Document, batch: Document) -> dict[str, list[bytes]]:
    """What is sent, in pieces, by the name of what is at stake."""
    one, two = report(id="1" * 32), report(id="2" * 32)
    small = zstandard.compress(one)
    bomb = zstandard.compress(b" " * (shared.decoded_bytes_max + 1))
    return {
        "identity": [request(one)],
        "zstd": [request(small, "content-encoding: zstd")],
        "gzip": [request(gzip.compress(one), "Content-Encoding: GZIP")],
        "a batch": [request(batch(), path="/v1/events")],
        "a batch to reports": [request(batch())],
        "two in a row": [request(one), request(two)],
        "two at once": [request(one) + request(two)],
        "a good and a bad at once": [request(one) + request(b"{}") + request(two)],
        "a bad and a good at once": [request(b"{") + request(one)],
        "head and body apart": [request(one)[: -len(one)], one],
        "a body in halves": [request(one)[:-50], one[-50:]],
        "a head in halves": [request(one)[:30], request(one)[30:]],
        "one and a half": [request(one) + request(two)[:-50], two[-50:]],
        "chunked": [chunked(one)],
        "a request id": [request(b"{}", "x-request-id: abc-1.2_3")],
        "an unfit request id": [request(b"{}", "x-request-id: <script>")],
        "of a proxy": [
            request(body, f"X-Request-ID: {number}", f"X-Forwarded-For: 192.0.2.{number}", "X-Forwarded-Proto: https")
            for number, body in enumerate((one, two, b"{}", one))
        ],
        "two request ids": [request(b"{}", "x-request-id: abc", "X-Request-ID: def")],
        "two addresses": [request(b"{}", "x-forwarded-for: 192.0.2.1", "X-Forwarded-For: 192.0.2.2")],
        "an address that is none": [request(b"{}", "x-forwarded-for: <script>")],
        "two lengths": [request(one, f"content-length: {len(one)}", f"Content-Length: {len(one)}")],
        "two equal lines of length": [request(one, f"content-length: {len(one)}", f"content-length: {len(one)}")],
        "a length with a sign": [request(one, f"content-length: +{len(one)}")],
        "a length with zeros": [request(one, f"content-length: 000{len(one)}")],
        "a length in hex": [request(one, f"content-length: 0x{len(one):x}")],
        "a length with a comma": [request(one, f"content-length: {len(one)}, {len(one)}")],
        "a length and a fold": [request(one, f"content-length: {len(one)}\r\n 0")],
        "a length too small": [request(one, f"content-length: {len(one) - 1}")],
        "a length and chunks": [request(one, f"content-length: {len(one)}", "transfer-encoding: chunked")],
        "http 1.0": [request(one, version="1.0")],
        "http 1.0 kept": [request(one, "connection: keep-alive", version="1.0")],
        "connection close": [request(one, "connection: close")],
        "expect": [request(one, "expect: 100-continue")],
        "upgrade": [request(one, "connection: upgrade", "upgrade: h2c")],
        "no body": [request(b"")],
        "no length": [request(b"", "content-length: 0")],
        "get": [request(b"", method="GET")],
        "head": [request(b"", method="HEAD")],
        "options": [request(one, method="OPTIONS")],
        "another path": [request(one, path="/v1/report")],
        "a path with a query": [request(one, path="/v1/reports?a=1")],
        "a path with an escape": [request(one, path="/v1/%72eports")],
        "an absolute path": [request(one, path="http://x/v1/reports")],
        "no type": [request(one, "content-type: ")],
        "another type": [request(one, "content-type: text/plain")],
        "a type with a charset": [request(one, "content-type: application/JSON; charset=UTF-8")],
        "another coding": [request(one, "content-encoding: br")],
        "two codings": [request(one, "content-encoding: zstd", "content-encoding: gzip")],
        "rubbish": [request(b"\x00\xff" * 20)],
        "rubbish as zstd": [request(b"\x00\xff" * 20, "content-encoding: zstd")],
        "a bomb": [request(bomb, "content-encoding: zstd")],
        "too long": [request(b"x" * (shared.wire_bytes_max + 1))],
        "as long as may be": [request(b" " * shared.wire_bytes_max)],
        "unknown application": [request(report(app="example.org/other"))],
        "too old": [request(report(day="2025-01-01"))],
        "undeclared names": [request(report(counters={"cmd/other": 1, "cmd/export:pdf": 2}))],
        "nan": [request(one.replace(b"12", b"NaN"))],
        "a key twice": [request(one.replace(b'"v":1', b'"v":1,"v":1'))],
        "no http": [b"hello\r\n\r\n"],
        "no http behind a document": [request(one) + b"hello\r\n\r\n"],
    }


# After these the server closes by itself.
CLOSING = {"http 1.0", "http 1.0 kept", "connection close", "no http", "no http behind a document"}
NAMES = sorted(cases(lambda **keys: b"{12}" * 30, lambda **keys: b"{}"))


@pytest.mark.parametrize("name", NAMES)
async def test_answer_of_both_forms_is_the_same(
    serve: Serve, report: Document, batch: Document, stored: Stored, name: str
) -> None:
    """Whatever comes, and in whichever pieces: the same bytes go back, and the same is stored."""
    told, kept = [], []
    for form in FORMS:
        before = len(stored())
        async with serve(form) as served:
            told.append(await served.answers_to(*cases(report, batch)[name], closes=name in CLOSING))
        kept.append([{**line, "received": ""} for line in stored()[before:]])

    assert told[0] == told[1]
    assert kept[0] == kept[1]
    assert told[0], name


@pytest.mark.parametrize("name", NAMES)
async def test_answer_to_a_head_that_is_known_is_the_same(
    serve: Serve, report: Document, batch: Document, stored: Stored, name: str
) -> None:
    """What came before, on this connection or another, changes no answer."""
    told, kept = [], []
    pieces, closes = cases(report, batch)[name], name in CLOSING
    for form in FORMS:
        before = len(stored())
        async with serve(form) as served:
            told.append([await served.answers_to(*pieces, closes=closes) for _ in range(2)])
            told[-1].append(await served.answers_to(request(report()), request(report()), *pieces, closes=closes))
        kept.append([{**line, "received": ""} for line in stored()[before:]])

    assert told[0] == told[1]
    assert kept[0] == kept[1]


async def test_connection_that_is_used_outlives_its_timer_and_an_idle_one_does_not(
    serve: Serve, report: Document
) -> None:
    """The time that a connection may be idle begins with each answer."""
    async with serve("hot path") as served:
        reader, writer = await served.connect()
        writer.write(request(report()))
        await reader.readuntil(b'"}')
        [protocol] = served.protocols
        protocol.timeout_keep_alive = 0.2
        protocol._unset_keepalive_if_required()

        for _ in range(5):
            writer.write(request(report()))
            assert (await reader.readuntil(b'"}')).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.1)

        assert b"" == await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_document_in_one_piece_costs_no_cycle(serve: Serve, report: Document, batch: Document) -> None:
    """The hot path is what takes them: else it would be as slow as the reference, and all of this in vain."""
    async with serve("hot path") as served:
        answers = await served.answers_to(
            request(report()), request(zstandard.compress(batch()), "content-encoding: zstd", path="/v1/events")
        )

        assert 2 == answers.count(b"HTTP/1.1 200 OK")
        assert ["/v1/reports"] == served.cycles  # The one that closes.


async def test_head_of_a_proxy_is_read_once(serve: Serve, report: Document) -> None:
    """Whichever sender it is for: else it would be read anew with each document, as all come by a proxy."""
    async with serve("hot path") as served:
        await served.answers_to(request(report(), "X-Request-ID: 1", "X-Forwarded-For: 192.0.2.1"))

        other = request(b"{}", "X-Request-ID: 2", "X-Forwarded-For: 2001:db8::1")
        assert served.protocols[0].known.find(other.removesuffix(b"{}")) is not None


@pytest.mark.parametrize("form", FORMS)
async def test_document_is_not_answered_before_its_sync(
    serve: Serve, report: Document, disk: FaultyDisk, form: str
) -> None:
    """While the disk holds the sync up nothing is said."""
    async with serve(form, disk) as served:
        await served.answers_to(request(report(id="1" * 32)))
        disk.close_gate()
        reader, writer = await served.connect()
        writer.write(request(report(id="2" * 32)))
        await asyncio.get_running_loop().run_in_executor(None, disk.wait_at_gate)
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        await asyncio.sleep(0.05)

        assert not answer.done()
        disk.open_gate()
        assert (await answer).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("form", FORMS)
async def test_sender_that_goes_away_in_mid_commit_disturbs_nobody(
    serve: Serve, report: Document, disk: FaultyDisk, stored: Stored, soon: Soon, form: str
) -> None:
    """Its document stays, the others are answered, and the committer goes on."""
    async with serve(form, disk) as served:
        await served.answers_to(request(report(id="1" * 32)))
        disk.close_gate()
        _, gone = await served.connect()
        gone.write(request(report(id="2" * 32)))
        await asyncio.get_running_loop().run_in_executor(None, disk.wait_at_gate)
        gone.transport.abort()
        await soon(lambda: any(one.transport.is_closing() for one in served.protocols[1:]))
        disk.open_gate()

        assert (await served.answers_to(request(report(id="3" * 32)))).startswith(b"HTTP/1.1 200 ")

    assert {"1" * 32, "2" * 32, "3" * 32} == {line["stream"] for line in stored()}


async def test_server_that_stops_cuts_off_who_still_waits(serve: Serve, report: Document, disk: FaultyDisk) -> None:
    """When the time to drain is over a request of the hot path hears why it has no receipt."""
    async with serve("hot path", disk) as served:
        await served.answers_to(request(report(id="1" * 32)))
        disk.close_gate()
        reader, writer = await served.connect()
        writer.write(request(report(id="2" * 32)))
        await asyncio.get_running_loop().run_in_executor(None, disk.wait_at_gate)

        served.protocols[-1].loop = AtOnce()  # type: ignore[assignment]  # All that is asked of it here.
        served.protocols[-1].shutdown()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

        disk.open_gate()
        error = receipts.error_in(body)
        assert error is not None
        assert ("stopping", True) == (error.code, error.retry)
        assert b"connection: close" in head
        writer.close()


class AtOnce:
    """A loop whose timers are over at once."""

    def call_later(self, seconds: float, work: Callable[..., object], *arguments: object) -> None:
        work(*arguments)


@pytest.mark.parametrize("form", FORMS)
async def test_server_that_takes_nothing_says_so(serve: Serve, report: Document, form: str) -> None:
    """A server that stops answers 503, and stores nothing."""
    async with serve(form) as served:
        served.app.begin_stop()

        assert (await served.answers_to(request(report()))).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("form", FORMS)
async def test_sender_over_its_rate_is_told_to_come_again(
    serve: Serve, report: Document, stored: Stored, form: str
) -> None:
    """Whom a trusted proxy names counts, each by itself; who is over it gets 503 with a time."""
    flags = {"rate_per_address": "2", "trusted_hops": "1"}
    async with serve(form, **flags) as served:
        one = [request(report(id=f"{n}" * 32), "x-forwarded-for: 10.0.0.1, 192.0.2.1") for n in range(3)]
        other = request(report(id="9" * 32), "x-forwarded-for: 192.0.2.2")

        answers = await served.answers_to(*one, other)

    assert [b"200", b"200", b"503", b"200"] == re.findall(rb"HTTP/1.1 (\d+)", answers)[:4]
    (wait,) = re.findall(rb"retry-after: (\d+)", answers)
    assert 60 <= int(wait) < 120
    assert ["0" * 32, "1" * 32, "9" * 32] == [line["stream"] for line in stored()]


@pytest.mark.parametrize("form", FORMS)
async def test_declined_request_has_the_id_that_its_proxy_gave(serve: Serve, form: str) -> None:
    """Or one of ours, where that is missing or unfit: by it an operator finds what a sender complains of."""
    async with serve(form) as served:
        reader, writer = await served.connect()
        for line in ("x-request-id: abc-1.2_3", "x-request-id: <b>", "x-request-id: " + "a" * 65):
            writer.write(request(b"{}", line))
        writer.write(CLOSE)
        ids = re.findall(rb"x-request-id: ([^\r]*)\r", await reader.read())
        writer.close()

    assert b"abc-1.2_3" == ids[0]
    assert all(re.fullmatch(rb"[0-9a-f]{8}-[0-9]+", each) for each in ids[1:])
    assert 4 == len(set(ids))


def test_version_of_uvicorn_that_is_installed_is_a_known_one() -> None:
    """Whoever raises it reads how uvicorn's protocol calls itself, and runs this file."""
    assert is_known()
    assert not is_known("0.53.1")
    assert not is_known("1.0.0")


@pytest.mark.parametrize("form", FORMS)
async def test_trouble_that_nobody_foresaw_before_a_body_is_taken_is_503(
    serve: Serve, report: Document, form: str
) -> None:
    """A client deletes what gets a 4xx of ours, and a broken limit is not its fault."""

    def broken(peer: str, headers: object) -> None:
        raise ZeroDivisionError

    async with serve(form) as served:
        served.app.intake.enter = broken  # type: ignore[method-assign]

        answers = await served.answers_to(request(report()))

    assert answers.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"storage_failed"' in answers


@pytest.mark.parametrize("form", FORMS)
async def test_id_of_an_answer_is_the_one_in_the_log(
    serve: Serve, report: Document, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """Whoever is told of trouble can tell the operator which request it was."""

    def broken(peer: str, headers: object) -> None:
        raise ZeroDivisionError

    async with serve(form) as served:
        served.app.intake.enter = broken  # type: ignore[method-assign]
        reader, writer = await served.connect()
        writer.write(request(report()))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()

    found = re.search(rb"x-request-id: (\S+)", head)
    assert found is not None
    assert f"request {found[1].decode()} met" in caplog.text


@pytest.mark.parametrize("form", FORMS)
async def test_answer_of_a_server_that_stops_ends_its_connection(serve: Serve, report: Document, form: str) -> None:
    """The next request would be cut off; who knows that connects elsewhere."""
    async with serve(form) as served:
        enter, admission = served.app.intake.enter, served.app.intake.admission

        def last(peer: str, headers: Any) -> None:
            enter(peer, headers)
            admission.state = "stopping"

        served.app.intake.enter = last  # type: ignore[method-assign]
        reader, writer = await served.connect()
        writer.write(request(report()))
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer


async def test_body_is_let_go_with_its_answer(serve: Serve, report: Document) -> None:
    """A connection that waits for its next request holds nothing of the last one."""
    async with serve("hot path") as served:
        reader, writer = await served.connect()
        for number in range(2):  # Read, then known.
            writer.write(request(report(id=f"{number:032x}")))
            await reader.readuntil(b"}")

            assert b"" == served.protocols[-1].cycle.body
        writer.close()


def test_speller_spells_common_headers_as_they_are_now() -> None:
    """Uvicorn makes them anew each second, with the date in them."""
    speller = Speller()

    for date in (b"Tue, 24 Nov 2026 10:00:00 GMT", b"Tue, 24 Nov 2026 10:00:01 GMT"):
        answer = speller.stored("1" * 64, [(b"date", date)], keep_alive=True)

        assert b"\r\ndate: " + date + b"\r\n" in answer
        assert receipts.encode_receipt("1" * 64) == answer.partition(b"\r\n\r\n")[2]
