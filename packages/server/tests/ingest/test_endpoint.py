from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import json
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from tallypost_schema import limits as shared
from tallypost_schema import receipts
from tallypost_schema.outcomes import CODES
from tallypost_server.app import App
from tallypost_server.testing import FakeClock, FaultyDisk

pytestmark = pytest.mark.anyio
Running = Callable[..., AbstractAsyncContextManager[tuple[App, Any]]]
Stored = Callable[[], list[dict[str, Any]]]
Document = Callable[..., bytes]
Soon = Callable[[Callable[[], bool]], Any]


def assert_declined(response: httpx.Response, code: str) -> None:
    """The answer is this code's, in every part that is promised."""
    told = CODES[code]  # type: ignore[index]
    error = receipts.error_in(response.content)
    assert error is not None, response.text
    assert (code, told.retry) == (error.code, error.retry)
    assert told.status == response.status_code
    assert "application/json" == response.headers["content-type"]
    assert (told.status == 503) == ("retry-after" in response.headers)
    assert re.fullmatch(r"[1-9][0-9]*", response.headers.get("retry-after", "1"))


async def test_post_of_a_document_is_answered_with_its_receipt(
    running: Running, report: Document, batch: Document, stored: Stored
) -> None:
    """Every encoding is taken, and the receipt has the hash of the document before compression."""
    encodings: list[tuple[str | None, Callable[[bytes], bytes]]] = [
        (None, bytes),
        ("identity", bytes),
        ("Identity", bytes),
        ("zstd", zstandard.compress),
        ("gzip", gzip.compress),
    ]
    async with running() as (_, client):
        for number, (coding, encode) in enumerate(encodings):
            body = report(id=format(number, "032x"))
            answer = await client.post_report(encode(body), coding)
            assert (200, receipts.encode_receipt(receipts.hash_of(body))) == (answer.status_code, answer.content)
        answer = await client.post_to("/v1/events", zstandard.compress(batch()), "zstd")
        assert receipts.is_receipt_of(answer.content, batch())

    assert ["report"] * 5 + ["events"] == [line["kind"] for line in stored()]


@pytest.mark.parametrize(
    "kind",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8"],
)
async def test_post_with_a_json_content_type_is_taken(running: Running, report: Document, kind: str) -> None:
    """JSON is JSON in any spelling of its type."""
    async with running() as (_, client):
        assert 200 == (await client.post_report(report(), content_type=kind)).status_code


async def test_post_is_not_answered_before_its_sync(
    running: Running, report: Document, disk: FaultyDisk, stored: Stored
) -> None:
    """While the disk holds the sync up there is no 200; others that come meanwhile share the next one."""
    async with running() as (_, client):
        assert 200 == (await client.post_report(report(id="0" * 32))).status_code
        disk.synced.clear()
        disk.close_gate()
        first = asyncio.create_task(client.post_report(report(id="1" * 32)))
        await asyncio.get_running_loop().run_in_executor(None, disk.wait_at_gate)
        others = [asyncio.create_task(client.post_report(report(id=format(n, "032x")))) for n in range(2, 12)]
        await asyncio.sleep(0.05)

        assert not first.done()
        assert not any(other.done() for other in others)
        assert [] == disk.synced

        disk.open_gate()
        answers = await asyncio.gather(first, *others)
        assert {200} == {answer.status_code for answer in answers}
        assert 2 == len(disk.synced)

    assert 12 == len(stored())


async def test_post_on_a_slow_disk_takes_as_long_as_the_sync(
    running: Running, report: Document, disk: FaultyDisk
) -> None:
    """A sync of 50 ms is never answered in less."""
    disk.slow(0.05)
    async with running() as (_, client):
        begun = asyncio.get_running_loop().time()
        assert 200 == (await client.post_report(report())).status_code
        assert asyncio.get_running_loop().time() - begun >= 0.05


@pytest.mark.parametrize("operation", ["create", "write", "sync", "sync_folder", "free_bytes"])
async def test_post_on_a_failing_disk_is_storage_failed_and_the_next_is_stored(
    running: Running, report: Document, disk: FaultyDisk, stored: Stored, operation: str
) -> None:
    """A disk that refuses once costs one answer, and a document that was not acknowledged is not stored twice."""
    async with running() as (_, client):
        disk.fail(operation)  # type: ignore[arg-type]

        assert_declined(await client.post_report(report()), "storage_failed")
        assert 200 == (await client.post_report(report())).status_code

    assert 1 == len(stored())


async def test_post_on_a_full_disk_is_no_space_until_there_is_room(
    running: Running, report: Document, disk: FaultyDisk, stored: Stored
) -> None:
    """Below the reserve, and when the disk turns out to be full; it goes on by itself."""
    async with running(reserve_bytes=1000) as (_, client):
        disk.free = 999
        assert_declined(await client.post_report(report()), "no_space")
        assert_declined(await client.get("/readyz"), "no_space")
        disk.free = 1 << 20
        disk.fail("write", errno.ENOSPC)
        assert_declined(await client.post_report(report()), "no_space")
        assert 200 == (await client.get("/readyz")).status_code
        assert 200 == (await client.post_report(report())).status_code

    assert 1 == len(stored())


async def test_post_with_too_much_waiting_is_busy(
    running: Running, report: Document, disk: FaultyDisk, stored: Stored
) -> None:
    """What waits for the disk is bounded; who comes beyond is told to come back."""
    async with running(waiting_bytes_max=1000) as (_, client):
        disk.close_gate()
        first = asyncio.create_task(client.post_report(report()))
        await asyncio.get_running_loop().run_in_executor(None, disk.wait_at_gate)

        assert_declined(await client.post_report(report()), "busy")

        disk.open_gate()
        assert 200 == (await first).status_code
    assert 1 == len(stored())


async def test_post_to_a_server_that_starts_or_stops_says_so(running: Running, report: Document) -> None:
    """Before recovery and after SIGTERM nothing is taken, and the load balancer is told."""
    async with running(started=False) as (app, client):
        for code in ("starting", "stopping"):
            assert_declined(await client.post_report(report()), code)
            assert_declined(await client.get("/readyz"), code)
            assert 200 == (await client.get("/healthz")).status_code
            app.begin_stop()


def deep(levels: int) -> bytes:
    return b'{"a":' + b"[" * levels + b"]" * levels + b"}"


BAD_BODIES: list[tuple[str, bytes, str | None]] = [
    ("malformed", b"", None),
    ("malformed", b"{", None),
    ("malformed", b"[]", None),
    ("malformed", b"null", None),
    ("malformed", b'"text"', None),
    ("malformed", b'{"v":NaN}', None),
    ("malformed", b'{"v":Infinity}', None),
    ("malformed", b'{"v":"\\ud800"}', None),
    ("malformed", b'{"v":"\xff"}', None),
    ("malformed", b'{"v":1,"v":1}', None),
    ("malformed", b'{"a":{"v":1,"v":1}}', None),
    ("malformed", b"{} {}", None),
    ("malformed", b"{}x", None),
    ("malformed", deep(shared.nesting_max + 1), None),
    ("malformed", deep(100_000), None),
    ("malformed", zstandard.compress(b"{}")[:-1], "zstd"),
    ("malformed", zstandard.compress(b"{}") + b"x", "zstd"),
    ("malformed", gzip.compress(b"{}", mtime=0)[:-1], "gzip"),
    ("malformed", b"{}", "zstd"),
    ("malformed", b"{}", "gzip"),
    ("too_large", b" " * (shared.wire_bytes_max + 1), None),
    ("too_large", zstandard.compress(b" " * (shared.decoded_bytes_max + 1)), "zstd"),
    ("too_large", gzip.compress(b" " * (shared.decoded_bytes_max + 1), mtime=0), "gzip"),
    ("too_large", zstandard.compress(b" ") * 65, "zstd"),
    ("invalid", b"{}", None),
    ("invalid", deep(shared.nesting_max - 1), None),
    ("unsupported_encoding", b"{}", "br"),
    ("unsupported_encoding", b"{}", "gzip, zstd"),
    ("unsupported_encoding", b"{}", "deflate"),
]


@pytest.mark.parametrize(("code", "body", "coding"), BAD_BODIES)
@pytest.mark.parametrize("path", ["/v1/reports", "/v1/events"])
async def test_post_of_a_bad_body_is_refused_and_nothing_of_it_is_stored(
    running: Running, data: Path, stored: Stored, path: str, code: str, body: bytes, coding: str | None
) -> None:
    """Each row of what may be wrong with bytes has its answer, and no segment comes of it."""
    async with running() as (_, client):
        assert_declined(await client.post_to(path, body, coding), code)

    assert [] == stored()
    assert [] == [*(data / "segments").glob("*.zst"), *(data / "segments" / "open").iterdir()]


BAD_REPORTS: list[tuple[str, dict[str, Any]]] = [
    ("invalid", {"v": 2}),
    ("invalid", {"v": True}),
    ("invalid", {"kind": "events"}),
    ("invalid", {"x": 1}),
    ("invalid", {"x": -0.1}),
    ("invalid", {"id": "0F" * 16}),
    ("invalid", {"id": "0f" * 15}),
    ("invalid", {"app": "Example/.."}),
    ("invalid", {"day": "2026-02-30"}),
    ("invalid", {"day": "2026-1-1"}),
    ("invalid", {"day": 20261124}),
    ("invalid", {"previous": "yesterday"}),
    ("invalid", {"programs": {}}),
    ("invalid", {"programs": [{}]}),
    ("invalid", {"counters": {"cmd/export": -1}}),
    ("invalid", {"counters": {"cmd/export": 1.5}}),
    ("invalid", {"counters": {"cmd/export": 2**53}}),
    ("invalid", {"counters": {"CMD": 1}}),
    ("invalid", {"counters": {"a:b:c": 1}}),
    ("invalid", {"stacks": {"crash/KeyError\nno frame": 1}}),
    ("unknown_application", {"app": "example.org/other"}),
    ("unknown_application", {"app": "example.org/other", "day": "2020-01-01"}),
    ("too_old", {"day": "2026-11-02"}),
    ("from_the_future", {"day": "2026-11-26"}),
]


@pytest.mark.parametrize(("code", "keys"), BAD_REPORTS)
async def test_post_of_a_bad_report_is_refused_and_nothing_of_it_is_stored(
    running: Running, report: Document, stored: Stored, code: str, keys: dict[str, Any]
) -> None:
    """JSON that breaks a report's rules, whose application is unknown or whose day is beyond the horizon."""
    async with running() as (_, client):
        assert_declined(await client.post_report(report(**keys)), code)

    assert [] == stored()


BAD_BATCHES: list[tuple[str, dict[str, Any]]] = [
    ("invalid", {"kind": "report"}),
    ("invalid", {"session": "x" * 32}),
    ("invalid", {"first": -1}),
    ("invalid", {"lost": 2**53}),
    ("invalid", {"first": 2**53 - 1, "count": 2}),
    ("invalid", {"terminal": 0, "count": 2}),
    ("invalid", {"events": []}),
    ("invalid", {"events": [], "first": 3, "terminal": 5}),
    ("invalid", {"events": [{"name": "export"}]}),
    ("invalid", {"events": [{"name": "export", "at": "today", "fields": {}}]}),
    ("invalid", {"events": [{"name": "export", "at": "2026-11-24T10:00:00Z", "fields": {"a": "b\n"}}]}),
    ("invalid", {"program": {}}),
    ("unknown_application", {"app": "example.org/other"}),
]


@pytest.mark.parametrize(("code", "keys"), BAD_BATCHES)
async def test_post_of_a_bad_batch_is_refused_and_nothing_of_it_is_stored(
    running: Running, batch: Document, stored: Stored, code: str, keys: dict[str, Any]
) -> None:
    """JSON that breaks a batch's rules."""
    async with running() as (_, client):
        assert_declined(await client.post_to("/v1/events", batch(**{"count": 1, **keys})), code)

    assert [] == stored()


@pytest.mark.parametrize("kind", ["", "text/plain", "application/jsonx", "application/json; charset=latin-1"])
async def test_post_with_another_content_type_is_unsupported(
    running: Running, report: Document, stored: Stored, kind: str
) -> None:
    """A missing type too."""
    async with running() as (_, client):
        assert_declined(await client.post_report(report(), content_type=kind), "unsupported_type")

    assert [] == stored()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_another_method_is_not_allowed(running: Running, method: str) -> None:
    """The two paths take POST alone, and say so."""
    async with running() as (_, client):
        answer = await client.request(method, "/v1/reports")

    assert (405, "POST") == (answer.status_code, answer.headers["allow"])
    if method != "HEAD":
        assert_declined(answer, "method_not_allowed")


async def test_post_refused_for_good_is_in_the_quarantine_without_its_sender(
    running: Running, report: Document, data: Path
) -> None:
    """The body as posted lies beside its reason; what may come again is not kept."""
    body = zstandard.compress(report(day="2020-01-01"))
    async with running() as (_, client):
        await client.post_report(body, "zstd")
        await client.post_report(report(app="example.org/other"))
        await client.post_report(report(), content_type="text/plain")

    (path,) = (data / "quarantine").iterdir()
    kept = json.loads(path.read_text())
    assert ("too_old", "/v1/reports", "zstd") == (kept["code"], kept["source"], kept["encoding"])
    assert body == base64.b64decode(kept["body"])
    assert "127.0.0.1" not in path.read_text()


class Sender:
    """Speaks ASGI piece by piece, as a server does for a slow sender."""

    def __init__(self, *headers: tuple[bytes, bytes], path: str = "/v1/reports") -> None:
        head = [(b"content-type", b"application/json"), *headers]
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": head, "root_path": ""}
        self.pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answer: list[Any] = []

    def send_piece(self, body: bytes, *, more: bool) -> None:
        self.pieces.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def hang_up(self) -> None:
        self.pieces.put_nowait({"type": "http.disconnect"})

    async def run(self, app: App) -> None:
        async def send(message: Any) -> None:
            self.answer.append(message)

        await app(self.scope, self.pieces.get, send)

    @property
    def response(self) -> httpx.Response:
        start, body = self.answer
        return httpx.Response(start["status"], headers=start["headers"], content=body["body"])


async def test_post_in_pieces_is_one_document(running: Running, report: Document, stored: Stored) -> None:
    """A body may come in as many pieces as the network likes."""
    async with running() as (app, _):
        sender = Sender()
        for byte in report():
            sender.send_piece(bytes([byte]), more=True)
        sender.send_piece(b"", more=False)
        await sender.run(app)

        assert receipts.is_receipt_of(sender.response.content, report())
    assert 1 == len(stored())


async def test_post_whose_body_does_not_come_in_time_is_too_slow(
    running: Running, report: Document, stored: Stored
) -> None:
    """A slow body is ended with 408, on a connection that closes; the server goes on."""
    async with running(body_seconds_max=0.02) as (app, client):
        for pieces in ([], [b"{"]):
            sender = Sender()
            for piece in pieces:
                sender.send_piece(piece, more=True)
            await sender.run(app)
            assert_declined(sender.response, "too_slow")
            assert "close" == sender.response.headers["connection"]
        assert 200 == (await client.post_report(report())).status_code
        assert 0 == app._admission._held_bytes
    assert 1 == len(stored())


async def test_post_too_large_is_read_up_to_one_more_limit(running: Running) -> None:
    """Within it the connection stays usable; beyond, it is closed."""
    async with running() as (app, _):
        for extra, connection in ((1000, None), (shared.wire_bytes_max + (1 << 17), "close")):
            sender = Sender((b"content-length", b"%d" % (shared.wire_bytes_max + extra)))
            rest = shared.wire_bytes_max + extra
            while rest:
                size = min(rest, 1 << 16)
                rest -= size
                sender.send_piece(b" " * size, more=rest > 0)
            await sender.run(app)
            assert_declined(sender.response, "too_large")
            assert connection == sender.response.headers.get("connection")


async def test_post_that_asks_before_it_sends_is_told_at_once(running: Running) -> None:
    """A sender that expects 100-continue and announces too much sends nothing of it."""
    async with running() as (app, _):
        sender = Sender((b"expect", b"100-continue"), (b"content-length", b"9999999"))
        await sender.run(app)

        assert_declined(sender.response, "too_large")
        assert "close" == sender.response.headers["connection"]


async def test_post_that_is_cut_off_by_the_end_of_a_drain_is_told_that_the_server_stops(
    running: Running, report: Document, stored: Stored
) -> None:
    """A body that does not come before the server must end gets 503, never 500."""
    async with running() as (app, _):
        sender = Sender()
        sender.send_piece(report()[:50], more=True)
        cut_off = asyncio.create_task(sender.run(app))
        while not app._admission._held_bytes:
            await asyncio.sleep(0)

        app.begin_stop()
        cut_off.cancel()
        await cut_off

        assert_declined(sender.response, "stopping")
        assert "close" == sender.response.headers["connection"]
    assert [] == stored()


async def test_post_whose_sender_hangs_up_within_the_body_is_forgotten(
    running: Running, report: Document, stored: Stored
) -> None:
    """Half a document is nothing, and nobody is answered."""
    async with running() as (app, client):
        sender = Sender()
        sender.send_piece(report()[:50], more=True)
        sender.hang_up()
        await sender.run(app)

        assert [] == sender.answer
        assert "tallypost_hang_ups_total 1" in (await client.get("/metrics")).text
        assert 0 == app._admission._requests
    assert [] == stored()


async def test_post_that_is_cancelled_in_mid_commit_does_not_stop_the_committer(
    running: Running, report: Document, disk: FaultyDisk, stored: Stored
) -> None:
    """A request that ends while its line is on its way to the disk costs nobody else anything."""
    async with running() as (app, client):
        disk.close_gate()
        gone = asyncio.create_task(client.post_report(report(id="1" * 32)))
        await asyncio.get_running_loop().run_in_executor(None, disk.wait_at_gate)
        other = asyncio.create_task(client.post_report(report(id="2" * 32)))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        disk.open_gate()

        assert 200 == (await other).status_code
        assert 200 == (await client.post_report(report(id="3" * 32))).status_code
        assert 0 == app._commit.waiting_bytes
    assert {"1" * 32, "2" * 32, "3" * 32} == {line["stream"] for line in stored()}


async def test_an_error_that_nobody_foresaw_is_503_and_logged_without_words_of_the_document(
    running: Running, report: Document, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """There is no 500: a client keeps what gets 503."""
    async with running() as (app, client):
        app.intake._decoder = None  # type: ignore[assignment]

        assert_declined(await client.post_report(report()), "storage_failed")
        assert "tallypost_unexpected_errors_total 1" in (await client.get("/metrics")).text
    assert "AttributeError at intake.py" in caplog.text
    assert "mytool" not in caplog.text.replace("mytool.toml: example.org/mytool", "")


async def test_post_of_a_large_document_does_not_hold_up_others(
    running: Running, report: Document, stored: Stored
) -> None:
    """While many names are being checked a small document is stored."""
    large = report(id="1" * 32, counters={f"n{number}": 1 for number in range(300_000)})
    async with running() as (app, client):
        first = asyncio.create_task(client.post_report(zstandard.compress(large), "zstd"))
        while not app._admission._held_bytes:
            await asyncio.sleep(0)

        assert 200 == (await client.post_report(report(id="2" * 32))).status_code
        assert not first.done()

        assert receipts.is_receipt_of((await first).content, large)
        assert 0 == app._admission._held_bytes
    assert ["2" * 32, "1" * 32] == [line["stream"] for line in stored()]


async def test_post_whose_sender_is_gone_at_its_answer_is_counted(running: Running, report: Document) -> None:
    """A transport that raises is a sender that hung up, and the document stays."""
    async with running() as (app, client):
        sender = Sender()
        sender.send_piece(report(), more=False)

        async def send(message: Any) -> None:
            raise RuntimeError("the transport is closed")

        await app(sender.scope, sender.pieces.get, send)

        text = (await client.get("/metrics")).text
    assert "tallypost_hang_ups_total 1" in text
    assert "tallypost_unexpected_errors_total 0" in text


async def test_metrics_count_what_was_stored_declined_and_dropped(running: Running, report: Document) -> None:
    """What happened to documents is told in numbers."""
    async with running() as (_, client):
        await client.post_report(report(counters={"cmd/export": 1, "secret": 1}))
        await client.post_report(b"{")
        text = (await client.get("/metrics")).text

    assert 'tallypost_documents_stored_total{kind="report"} 1' in text
    assert 'tallypost_requests_declined_total{code="malformed"} 1' in text
    assert 'tallypost_dropped_total{what="counter"} 1' in text
    assert "secret" not in text
