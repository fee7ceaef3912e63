"""Point by point, where a document lies after each answer, which word lies beside it, and when it is tried again."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from tallypost import limits, losses
from tallypost.errors import NoAnswer
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk, FakeTransport
from tallypost.uploads.manager import State, UploadManager
from tallypost.uploads.pending import Pending
from tallypost.uploads.transport import Answer, HttpxTransport, Transport
from tallypost.uploads.worker import UploadWorker
from tallypost_schema import outcomes
from tallypost_schema.receipts import encode_error, encode_receipt, hash_of

YES = "on 2026-11-18 1 user"
NAME = "2026-11-19.json"
Make = Callable[..., bytes]
PAGE = b"<html>Welcome to our hotel</html>"
# Full jitter draws from all but nothing to all but everything.
DRAWS = (2**-20, 0.5, 1 - 2**-53)
# What the page says, by hand: the table below must agree with the code and with the page.
FINAL = {400, 403, 404, 410, 413, 415, 422}


@dataclass
class Came:
    """What a session of work came to, for the one document that waited."""

    lies: str
    words: dict[str, bytes]
    bytes_kept: bool
    next_try: float | None
    trouble: str | None
    posts: int


@pytest.fixture
def post(directory: StateDirectory, clock: FakeClock, document: Make) -> Callable[..., Came]:
    """Have one document posted, in a state directory in memory of its own."""

    def work(transport: Transport, url: str = "https://host.example", draw: float = 0.5) -> Came:
        disk = FakeDisk(clock=clock)
        for folder in directory.folders():
            disk.make_folder(folder)
        pending, state = Pending(directory, disk=disk), State()
        manager = UploadManager(state, now=clock.now, draw=lambda: draw, save=lambda state: None)
        pending.observe(manager.document_recorded)
        pending.record(NAME, document(), YES)
        worker = UploadWorker(manager, pending, endpoint=url, transport=transport, gate=lambda name: None, clock=clock)
        begin = clock.now()
        session = worker.work(begin + 60)
        folders = {name: getattr(directory, name) for name in ("pending", "sent", "refused")}
        lying = {word: disk.names(folder) for word, folder in folders.items()}
        [lies] = [word for word, names in lying.items() if NAME in names]
        words = {name: disk.read(f"{folders[word]}/{name}") for word, names in lying.items() for name in names}
        kept = words.pop(NAME) == document()
        next_try = state.next_try.get(NAME)
        wait = next_try - begin if next_try is not None else None
        return Came(lies, words, kept, wait, session.last_trouble, len(state.posts))

    return work


def refused_as(came: Came) -> str:
    """The code in the word beside a refused document."""
    [(name, word)] = came.words.items()
    assert "2026-11-19.reason.json" == name
    code: str = msgspec.json.decode(word)["reason"]
    return code


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "our receipt": lambda document: encode_receipt(hash_of(document)),
    "a receipt of another": lambda document: encode_receipt(hash_of(b"another")),
    "half a receipt": lambda document: encode_receipt(hash_of(document))[:-9],
    "our error, final": lambda document: encode_error("invalid", "no", retry=False),
    "our error, again": lambda document: encode_error("busy", "later", retry=True),
    "half an error": lambda document: encode_error("invalid", "no", retry=False)[:-2],
    "a page": lambda document: PAGE,
    "nothing": lambda document: b"",
}


@pytest.mark.parametrize("body", BODIES)
def test_answer_of_every_status_leaves_the_document_where_the_table_says(
    post: Callable[..., Came], document: Make, body: str
) -> None:
    """From 100 to 599: only our receipt sends, only our final error refuses, and all else is tried again."""
    for status in range(100, 600):
        answer = Answer(status, BODIES[body](document()), {})
        transport, draw = FakeTransport(), DRAWS[status % 3]
        transport.answers = [answer, answer]

        came = post(transport, draw=draw)

        assert came.bytes_kept, status
        assert (2 if status == 415 else 1) == came.posts == len(transport.posted), status
        expected = "pending"
        if status == 200 and body == "our receipt":
            expected = "sent"
        elif status in FINAL and body == "our error, final":
            expected = "refused"
        assert expected == came.lies, status
        outcome = {"sent": "stored", "refused": "refused", "pending": "recoverable"}[expected]
        assert outcome == outcomes.of_answer(status, answer.body, document()), status
        if expected == "pending":
            assert {} == came.words, status
            assert draw * limits.backoff_seconds_first == pytest.approx(came.next_try), status
            assert came.trouble is not None, status
            assert came.trouble.startswith(f"HTTP {status}"), status
        else:
            assert came.next_try is None, status
            if expected == "sent":
                assert {"2026-11-19.receipt.json": answer.body} == came.words
            else:
                assert "invalid" == refused_as(came), status


@pytest.mark.parametrize("status", [200, 301, 408, 422, 429, 500, 503])
@pytest.mark.parametrize(
    ("wish", "wait"),
    [("1", 1.0), ("90", 90.0), ("Fri, 20 Nov 2026 12:01:30 GMT", 90.0), ("999999", 86_400.0), ("soon", 30.0)],
)
def test_answer_with_a_wish_is_tried_again_when_it_says(
    post: Callable[..., Came], status: int, wish: str, wait: float
) -> None:
    """Whoever answers may say when: up to a day, else the backoff holds."""
    transport = FakeTransport()
    transport.answers = [Answer(status, b"", {"retry-after": wish})]

    came = post(transport)

    assert ("pending", wait) == (came.lies, came.next_try)


def test_answer_that_does_not_come_is_trouble_on_the_way(post: Callable[..., Came]) -> None:
    """Nothing is known of what the server did, so the same bytes go again."""
    for draw in DRAWS:
        transport = FakeTransport()
        transport.answers = [NoAnswer("the cable is out")]

        came = post(transport, draw=draw)

        assert ("pending", {}, True) == (came.lies, came.words, came.bytes_kept)
        assert draw * limits.backoff_seconds_first == pytest.approx(came.next_try)


# -------------------------------------------------------------------- over a real socket


def with_length(status: int, body: bytes, more: bytes = b"") -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 %d x\r\n%scontent-length: %d\r\n\r\n%s" % (status, more, len(body), body)


def reset(start: bytes = b"") -> Callable[[socket.socket], None]:
    """Say so much, then break the connection off by a reset."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        time.sleep(0.02 if start else 0)  # So that it arrives before the reset does, and is not thrown away by it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


RECEIPT_HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

# What a server on the loopback does with the document; "stored" where it is a receipt all the same.
ENDED: dict[str, Callable[[bytes], bytes | Callable[[socket.socket], None]]] = {
    "reset before the answer": lambda receipt: reset(),
    "reset in the status line": lambda receipt: reset(b"HTTP/1.1 2"),
    "reset in the head": lambda receipt: reset(b"HTTP/1.1 200 OK\r\ncontent-"),
    "reset after the head": lambda receipt: reset(RECEIPT_HEAD),
    "reset in the body": lambda receipt: reset(RECEIPT_HEAD + receipt[:40]),
    "closed before the answer": lambda receipt: b"",
    "closed in the head": lambda receipt: b"HTTP/1.1 200 OK\r\ncontent-le",
    "closed in the body": lambda receipt: RECEIPT_HEAD + receipt[:-1],
    "closed in a chunk": lambda receipt: CHUNKED_HEAD + b"4d\r\n" + receipt[:40],
    "closed before the last chunk": lambda receipt: CHUNKED_HEAD + b"4d\r\n" + receipt + b"\r\n",
    "a captive portal": lambda receipt: with_length(200, PAGE, b"content-type: text/html\r\n"),
    "a portal's redirection": lambda receipt: with_length(302, b"", b"location: http://login.example/\r\n"),
    "a redirection with a receipt": lambda receipt: with_length(307, receipt, b"location: /v2\r\n"),
    "a receipt of another": lambda receipt: with_length(200, encode_receipt(hash_of(b"another"))),
    "half a receipt, whole by its length": lambda receipt: with_length(200, receipt[:-9]),
    "a receipt under 202": lambda receipt: with_length(202, receipt),
    "a bad gateway": lambda receipt: with_length(502, PAGE),
    "a proxy's 413": lambda receipt: with_length(413, PAGE),
    "another protocol": lambda receipt: b"SSH-2.0-OpenSSH_9.2\r\n",
    "nonsense": lambda receipt: b"\x00\xff\x17" * 40 + b"\r\n\r\n",
    "nonsense for a length": lambda receipt: b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n" + receipt,
    "nonsense for an encoding": lambda receipt: with_length(200, receipt, b"content-encoding: gzip\r\n"),
}
STORED: dict[str, Callable[[bytes], bytes | Callable[[socket.socket], None]]] = {
    "a receipt": lambda receipt: with_length(200, receipt),
    "a receipt in chunks": lambda receipt: CHUNKED_HEAD + b"4d\r\n" + receipt + b"\r\n0\r\n\r\n",
    "a receipt to the end of the connection": lambda receipt: b"HTTP/1.1 200 OK\r\n\r\n" + receipt,
    "a receipt in an older HTTP": lambda receipt: b"HTTP/1.0 200 OK\r\n\r\n" + receipt,
    "a receipt behind a 103": lambda receipt: b"HTTP/1.1 103 Early Hints\r\n\r\n" + with_length(200, receipt),
    "a receipt, then a reset": lambda receipt: reset(with_length(200, receipt)),
}
ENDLESS = {
    "silence before the answer": b"",
    "silence in the head": b"HTTP/1.1 200 OK\r\ncontent-",
    "silence after the head": RECEIPT_HEAD,
    "silence in the body": RECEIPT_HEAD + b'{"stored":',
}
SECONDS = 0.3


def receipt_of(document: bytes) -> bytes:
    """The server's word that it has the document."""
    receipt = encode_receipt(hash_of(document))
    assert 77 == len(receipt) == 0x4D
    return receipt


@pytest.mark.parametrize("word", ENDED)
def test_answer_that_is_no_word_of_our_server_keeps_the_document(
    post: Callable[..., Came], server: Any, document: Make, word: str
) -> None:
    """Broken off, cut short, from somebody else or about something else: the document waits for its next try."""
    server.answers = [ENDED[word](receipt_of(document()))]

    came = post(HttpxTransport(), server.url)

    assert ("pending", {}, True, 1) == (came.lies, came.words, came.bytes_kept, len(server.requests))
    assert came.next_try == 30.0
    assert came.trouble


@pytest.mark.parametrize("word", STORED)
def test_answer_that_holds_the_receipt_in_any_form_sends_the_document(
    post: Callable[..., Came], server: Any, document: Make, word: str
) -> None:
    """However HTTP carries it: a whole receipt under 200 is one."""
    server.answers = [STORED[word](receipt_of(document()))]

    came = post(HttpxTransport(), server.url)

    assert ("sent", True, None) == (came.lies, came.bytes_kept, came.next_try)
    assert {"2026-11-19.receipt.json": receipt_of(document())} == came.words
    body = server.requests[0].partition(b"\r\n\r\n")[2]
    assert document() == zstandard.ZstdDecompressor().decompress(body)


@pytest.mark.parametrize("drips", [False, True], ids=["waits", "drips"])
@pytest.mark.parametrize("word", ENDLESS)
def test_answer_that_takes_too_long_keeps_the_document(
    post: Callable[..., Came], server: Any, word: str, drips: bool
) -> None:
    """The deadline is for all of a post, whether there is silence or a byte now and then."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(ENDLESS[word])
        while not server.ended.wait(0.02):
            if drips:
                connection.sendall(b" ")

    server.answers = [answer]
    begin = time.monotonic()

    came = post(HttpxTransport(seconds_max=SECONDS), server.url)

    assert ("pending", {}, 30.0) == (came.lies, came.words, came.next_try)
    assert time.monotonic() - begin < SECONDS + 10
    if not (drips and word == "silence before the answer"):  # There the drops are no HTTP, and that is said earlier.
        assert f"none within {SECONDS:g} s" == came.trouble


@pytest.mark.parametrize("answer", [reset(), lambda connection: None], ids=["reset", "closed"])
def test_answer_before_the_request_was_read_keeps_the_document(
    post: Callable[..., Came], server: Any, answer: Callable[[socket.socket], None]
) -> None:
    """A connection that ends as soon as it is made took nothing."""
    server.is_deaf = True
    server.answers = [answer]

    came = post(HttpxTransport(), server.url)

    assert ("pending", {}, 30.0) == (came.lies, came.words, came.next_try)


def test_answer_of_nobody_keeps_the_document(post: Callable[..., Came], no_proxy_here: None) -> None:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    came = post(HttpxTransport(), f"http://127.0.0.1:{port}")

    assert ("pending", 30.0) == (came.lies, came.next_try)
    assert "ConnectError" in str(came.trouble)


def test_answer_under_a_name_that_nobody_knows_keeps_the_document(
    post: Callable[..., Came], no_proxy_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a network has no name server."""

    def unknown(*given: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    came = post(HttpxTransport(), "https://telemetry.example.org")

    assert ("pending", 30.0) == (came.lies, came.next_try)
    assert "Name or service not known" in str(came.trouble)


def test_answer_under_a_certificate_that_is_not_trusted_keeps_the_document(
    post: Callable[..., Came], tls_server: Any
) -> None:
    """A network that listens in hears nothing."""
    tls_server.answers = [with_length(200, b"{}")]

    came = post(HttpxTransport(), tls_server.url)

    assert ("pending", 30.0) == (came.lies, came.next_try)
    assert [] == tls_server.requests


def test_answer_without_tls_where_it_is_asked_for_keeps_the_document(
    post: Callable[..., Came], server: Any, document: Make
) -> None:
    """Nobody is talked into going without."""
    server.answers = [with_length(200, receipt_of(document()))]

    came = post(HttpxTransport(seconds_max=SECONDS), server.url.replace("http:", "https:"))

    assert ("pending", 30.0) == (came.lies, came.next_try)
    assert not any(b"POST" in request for request in server.requests)


# -------------------------------------------------------------------- the page


PAGE_OF_UPLOADS = (Path(__file__).resolve().parents[4] / "docs" / "client" / "uploading.md").read_text()


def test_table_in_the_page_is_the_one_of_the_code(document: Make) -> None:
    """What people read about answers is what the outcomes are."""
    table = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", PAGE_OF_UPLOADS, re.MULTILINE)
    by_end = {
        end: [answer for answer, _, then in table if then.startswith(end)]
        for end in ("`uploads/sent/`", "`uploads/refused/`", "tried again")
    }

    [final] = by_end["`uploads/refused/`"]
    named = [int(status) for status in re.findall(r"\b\d{3}\b", final)]

    assert ["200 with a receipt of this document"] == by_end["`uploads/sent/`"]
    assert list(outcomes.REFUSABLE) == sorted(FINAL) == named
    assert final.endswith("with our error body and `retry: false`")
    again = " ".join(by_end["tried again"])
    assert "200 without one, other 2xx, 1xx, 3xx" in again
    assert "the same without our body, or with `retry: true`" in again
    assert "any 5xx, whatever its body says; every status not named" in again
    for status in (int(status) for status in re.findall(r"\b\d{3}\b", again)):
        for body in (b"", PAGE, *[encode_error("invalid", "no", retry=retry) for retry in (True, False)]):
            assert "recoverable" == outcomes.of_answer(status, body, document()), status


def test_numbers_of_quotas_in_the_page_are_those_in_force() -> None:
    """A user is told how much can lie there."""
    assert f"- {limits.pending_reports_max} upload reports" in PAGE_OF_UPLOADS
    mebibytes = limits.pending_batches_bytes_max >> 20
    assert f"- {limits.pending_batches_max} event batches with events, {mebibytes} MiB of them" in PAGE_OF_UPLOADS
    assert f"- {limits.pending_lost_batches_max:,} batches that tell of lost events alone" in PAGE_OF_UPLOADS
    assert {losses.EVICTED_REPORTS, losses.LOST_EVENTS} <= set(re.findall(r"`([a-z-]+)`", PAGE_OF_UPLOADS))
    assert {losses.EVICTED_REPORTS, losses.LOST_EVENTS} <= losses.SENTENCES.keys()
