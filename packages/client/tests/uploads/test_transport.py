from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost import limits
from tallypost.errors import NoAnswer
from tallypost.testing import FakeClock
from tallypost.uploads.transport import Answer, HttpxTransport

BODY = b"\x28\xb5\x2f\xfdnot really"
STORED = b'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-One: 1\r\nETag: "3"\r\n\r\n{}'
SECONDS = 0.4


@pytest.fixture
def transport() -> HttpxTransport:
    """A transport as it is used."""
    return HttpxTransport()


@pytest.fixture
def hasty() -> HttpxTransport:
    """A transport with little patience, where a test waits for the end of it."""
    return HttpxTransport(seconds_max=SECONDS)


def head_of(request: bytes) -> dict[bytes, bytes]:
    """The headers of a request, by lower-case name."""
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}


def test_post_sends_the_bytes_and_gives_the_answer(server: Any, transport: HttpxTransport) -> None:
    """The body goes as it is, and status, body and headers come back."""
    server.answers = [STORED]

    answer = transport.post(f"{server.url}/v1/reports", BODY, "zstd")

    assert (200, b"{}", "1", '"3"') == (answer.status, answer.body, answer.headers["x-one"], answer.headers["etag"])
    [request] = server.requests
    assert request.startswith(b"POST /v1/reports HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + BODY)


def test_post_tells_nothing_but_what_a_post_needs(server: Any, transport: HttpxTransport) -> None:
    """No version of anything, no address, no name, no cookie: the same headers from every machine."""
    server.answers = [STORED]

    transport.post(f"{server.url}/v1/reports", BODY, "zstd")

    head = head_of(server.requests[0])
    del head[b"host"]
    assert {
        b"user-agent": b"tallypost",
        b"accept": b"application/json",
        b"accept-encoding": b"identity",
        b"connection": b"keep-alive",
        b"content-type": b"application/json",
        b"content-encoding": b"zstd",
        b"content-length": str(len(BODY)).encode(),
    } == head


def test_post_without_encoding_names_none(server: Any, transport: HttpxTransport) -> None:
    """A document can go as it is."""
    server.answers = [STORED]

    transport.post(f"{server.url}/v1/reports", b"{}", None)

    assert b"content-encoding" not in head_of(server.requests[0])


def test_post_keeps_no_cookie_and_no_connection(server: Any, transport: HttpxTransport) -> None:
    """Nothing ties one post to the next: a cookie is forgotten, and each post has a connection of its own."""
    server.answers = [STORED.replace(b"X-One: 1", b"Set-Cookie: id=me; Path=/")]

    for _ in range(2):
        transport.post(f"{server.url}/v1/reports", BODY, "zstd")

    assert 2 == len(server.requests)
    assert not any(b"cookie" in request.lower() for request in server.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_post_that_is_redirected_goes_nowhere_else(server: Any, transport: HttpxTransport, status: int) -> None:
    """A redirect is an answer like others: the document goes to no address that was not agreed to."""
    server.answers = [
        b"HTTP/1.1 %d Moved\r\nlocation: %s/v1/reports\r\ncontent-length: 0\r\n\r\n" % (status, server.url.encode())
    ]

    answer = transport.post(f"{server.url}/v1/reports", BODY, "zstd")

    assert status == answer.status
    assert 1 == len(server.requests)


@pytest.mark.parametrize("status", [204, 404, 429, 503, 599])
def test_post_answered_by_any_status_is_an_answer(server: Any, transport: HttpxTransport, status: int) -> None:
    """What a status means is not the transport's to say."""
    server.answers = [
        b"HTTP/1.1 %d x\r\nretry-after: 7\r\n" % status
        + b"content-length: 0\r\n\r\n" * (status != 204)
        + b"\r\n" * (status == 204)
    ]

    answer = transport.post(server.url, BODY, "zstd")

    assert (status, 7.0) == (answer.status, answer.retry_after(now=0.0))


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("Fri, 20 Nov 2026 12:01:30 GMT", 90.0),
        ("Friday, 20-Nov-26 12:01:30 GMT", 90.0),
        ("Fri Nov 20 12:01:30 2026", 90.0),
        ("Fri, 20 Nov 2026 13:01:30 +0100", 90.0),
        ("Fri, 20 Nov 2026 12:00:00 GMT", 0.0),
        ("Fri, 20 Nov 2026 11:59:59 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Fri, 99 Nov 2026 12:01:30 GMT", None),
        ("2026-11-20", None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("-1", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_an_instant_by_our_clock(
    text: str, wish: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP has both forms; the past, and what cannot be read, is no wish. Where the machine stands is no matter."""
    answer = Answer(503, b"", {"retry-after": text})
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()

    try:
        assert wish == answer.retry_after(FakeClock("2026-11-20T12:00:00Z").now())
    finally:
        monkeypatch.undo()
        time.tzset()


@given(text=st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,9} [A-Z][a-z]{2} \d{1,9} \d+:\d+:\d+ [+-]?\w+"))
@settings(deadline=None, derandomize=True, database=None)
def test_retry_after_of_any_text_raises_nothing(text: str) -> None:
    """Whatever a stranger wishes is a number from 0 on, or nothing."""
    wish = Answer(503, b"", {"retry-after": text}).retry_after(1e9)

    assert wish is None or wish >= 0


def dripping(server: Any, start: bytes) -> Callable[[socket.socket], None]:
    """An answer that goes on byte for byte until the client hangs up."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(start)
        while not server.ended.wait(0.02):
            connection.sendall(b"x")

    return drip


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n"],
    ids=["status", "header", "body"],
)
def test_post_to_a_server_that_drips_ends_at_the_deadline(server: Any, hasty: HttpxTransport, start: bytes) -> None:
    """The deadline is for all of a post: a byte now and then does not prolong it."""
    server.answers = [dripping(server, start)]
    begin = time.monotonic()

    with pytest.raises(NoAnswer):
        hasty.post(server.url, BODY, "zstd")

    assert time.monotonic() - begin < SECONDS + 10


def test_post_to_a_server_that_never_answers_ends_at_the_deadline(server: Any, hasty: HttpxTransport) -> None:
    """Silence is no answer."""
    server.answers = [lambda connection: server.ended.wait()]
    begin = time.monotonic()

    with pytest.raises(NoAnswer, match=r"none within 0\.4 s"):
        hasty.post(server.url, BODY, "zstd")

    assert SECONDS - 0.05 < time.monotonic() - begin < SECONDS + 10


def test_post_with_a_name_server_that_hangs_ends_at_the_deadline(
    hasty: HttpxTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup cannot be called off; nobody waits for it all the same, and nothing is posted when it comes back."""
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: ended.wait(30) and [])
    begin = time.monotonic()

    with pytest.raises(NoAnswer, match=r"none within 0\.4 s"):
        hasty.post("http://telemetry.example.org/v1/reports", BODY, "zstd")

    took = time.monotonic() - begin
    looking_up = [thread for thread in threading.enumerate() if thread.name == "tallypost-transport"]
    assert all(thread.daemon for thread in looking_up)  # An end of the process would not wait for it either.
    ended.set()
    for thread in looking_up:
        thread.join()
    assert took < SECONDS + 10


def test_post_to_a_port_where_nobody_listens_is_no_answer(transport: HttpxTransport) -> None:
    """A refused connection says nothing about the document."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(NoAnswer, match="ConnectError"):
        transport.post(f"http://127.0.0.1:{port}", BODY, "zstd")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n99\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-encoding: gzip\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01\x00\x02\x02\x0a",
        b"",
    ],
    ids=["length", "chunk", "head", "encoding", "ssh", "tls", "nothing"],
)
def test_post_answered_by_half_an_answer_is_no_answer(server: Any, transport: HttpxTransport, answer: bytes) -> None:
    """What is cut short, or is no HTTP, says nothing about the document."""
    server.answers = [answer]

    with pytest.raises(NoAnswer):
        transport.post(server.url, BODY, "zstd")


def test_post_over_tls_to_a_server_without_it_is_no_answer(server: Any, hasty: HttpxTransport) -> None:
    """A handshake that fails is trouble on the way, not a reason to go without."""
    server.answers = [STORED]

    with pytest.raises(NoAnswer):
        hasty.post(server.url.replace("http:", "https:"), BODY, "zstd")

    assert not any(BODY in request for request in server.requests)


def test_post_over_tls_to_a_server_that_signed_itself_is_no_answer(tls_server: Any, transport: HttpxTransport) -> None:
    """Who cannot show a certificate that the system trusts hears nothing of the document."""
    tls_server.answers = [STORED]

    with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
        transport.post(tls_server.url, BODY, "zstd")

    assert [] == tls_server.requests


def test_post_over_tls_trusts_what_the_environment_names(
    tls_server: Any, transport: HttpxTransport, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's own authority is told as to every other program: by ``SSL_CERT_FILE``."""
    tls_server.answers = [STORED]
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])

    answer = transport.post(tls_server.url, BODY, "zstd")

    assert 200 == answer.status
    assert tls_server.requests[0].endswith(b"\r\n\r\n" + BODY)


def test_post_over_tls_to_a_server_of_another_name_is_no_answer(
    tls_server: Any, transport: HttpxTransport, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is trusted counts for its own name alone."""
    tls_server.answers = [STORED]
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])

    with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
        transport.post(tls_server.url.replace("localhost", "127.0.0.1"), BODY, "zstd")

    assert [] == tls_server.requests


# -------------------------------------------------------------------- proxies

FAR = "http://telemetry.example.org/v1/reports"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_post_goes_through_the_proxy_that_the_environment_names(
    server: Any, transport: HttpxTransport, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Where all goes through a proxy, so does this; the proxy is told its own password, and the whole address."""
    server.answers = [STORED]
    monkeypatch.setenv(variable, server.url.replace("//", "//me:secret@"))

    answer = transport.post(FAR, BODY, "zstd")

    assert 200 == answer.status
    [request] = server.requests
    assert request.startswith(b"POST http://telemetry.example.org/v1/reports HTTP/1.1\r\n")
    assert b"Basic bWU6c2VjcmV0" == head_of(request)[b"proxy-authorization"]
    assert request.endswith(b"\r\n\r\n" + BODY)


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_post_goes_past_the_proxy_to_what_the_environment_excepts(
    server: Any, transport: HttpxTransport, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """``NO_PROXY`` names those that are reached directly."""
    server.answers = [STORED]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, "example.org,127.0.0.1")

    answer = transport.post(f"{server.url}/v1/reports", BODY, "zstd")

    assert 200 == answer.status
    assert server.requests[0].startswith(b"POST /v1/reports HTTP/1.1\r\n")


def test_post_through_a_proxy_that_wants_a_password_is_its_answer(
    server: Any, transport: HttpxTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 407 is an answer like others, and trouble on the way by the table of outcomes."""
    server.answers = [b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"]
    monkeypatch.setenv("HTTP_PROXY", server.url)

    assert 407 == transport.post(FAR, BODY, "zstd").status


def test_post_over_tls_through_a_proxy_shows_the_proxy_nothing(
    server: Any,
    tls_server: Any,
    transport: HttpxTransport,
    certificate: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy hears the server's name; the document goes through a tunnel, to the server alone."""
    seen: list[bytes] = []
    server.answers = [tunnel_to(tls_server.port, seen)]
    tls_server.answers = [STORED]
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])

    answer = transport.post(tls_server.url, BODY, "zstd")

    assert 200 == answer.status
    assert server.requests[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % tls_server.port)
    assert b"application/json" not in server.requests[0]
    assert BODY not in b"".join(seen)
    assert tls_server.requests[0].endswith(b"\r\n\r\n" + BODY)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 No\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"nonsense\r\n\r\n", b""])
def test_post_over_tls_through_a_proxy_that_makes_no_tunnel_is_no_answer(
    server: Any, transport: HttpxTransport, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """A proxy that refuses says nothing about the document, and is not gone round."""
    server.answers = [answer]
    monkeypatch.setenv("HTTPS_PROXY", server.url)

    with pytest.raises(NoAnswer):
        transport.post(FAR.replace("http:", "https:"), BODY, "zstd")


def tunnel_to(port: int, seen: list[bytes]) -> Callable[[socket.socket], None]:
    """A proxy's part once it has heard CONNECT: bytes go both ways, as they are."""

    def tunnel(near: socket.socket) -> None:
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=pour, args=(far, near), daemon=True)
            back.start()
            pour(near, far)
            back.join(5)

    def pour(source: socket.socket, target: socket.socket) -> None:
        while piece := _received(source):
            seen.append(piece)
            target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    return tunnel


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def test_post_tells_no_password_of_the_users_netrc(
    server: Any, transport: HttpxTransport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A password that is kept for that host is not sent along."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers = [STORED]

    transport.post(server.url, BODY, "zstd")

    assert b"authorization" not in head_of(server.requests[0])


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "ftp://host.example/", "http://host.example:99999/", "http://\x00/"]
)
def test_post_to_what_is_no_address_is_no_answer(transport: HttpxTransport, url: str) -> None:
    """An endpoint that nobody can reach ends no uploader."""
    with pytest.raises(NoAnswer):
        transport.post(url, BODY, "zstd")


def test_post_through_a_proxy_that_cannot_be_used_is_no_answer(
    transport: HttpxTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SOCKS proxy in the environment, without what httpx needs for it, is trouble on the way."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")

    with pytest.raises(NoAnswer):
        transport.post("http://telemetry.example.org/", BODY, "zstd")


def test_post_with_an_endless_answer_takes_the_start_of_it(server: Any) -> None:
    """64 KiB are read, no more, and without waiting for the end."""

    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
        while not server.ended.is_set():
            connection.sendall(b"x" * 65536)

    server.answers = [pour]

    answer = HttpxTransport(seconds_max=10).post(server.url, BODY, "zstd")

    assert limits.answer_bytes_max == len(answer.body)


def test_post_from_a_running_event_loop_works(server: Any, transport: HttpxTransport) -> None:
    """An asynchronous application, or a notebook, may upload in the foreground."""
    server.answers = [STORED]

    async def application() -> Answer:
        return transport.post(server.url, BODY, "zstd")

    assert 200 == asyncio.run(application()).status


def test_post_leaves_the_event_loop_of_the_thread_alone(server: Any, transport: HttpxTransport) -> None:
    """A loop that the host has set is still set afterwards."""
    server.answers = [STORED]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        transport.post(server.url, BODY, "zstd")

        assert loop is asyncio.get_event_loop_policy().get_event_loop()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_post_leaves_no_thread_and_no_socket_behind(
    server: Any, transport: HttpxTransport, hasty: HttpxTransport
) -> None:
    """What a post opened is closed when it returns, also when it returned with an error."""
    server.answers = [STORED, lambda connection: server.ended.wait()]
    before = threading.active_count()

    transport.post(server.url, BODY, "zstd")
    with pytest.raises(NoAnswer):
        hasty.post(server.url, BODY, "zstd")

    gc.collect()  # A socket that was left open is a warning now, and warnings are errors.
    assert before == threading.active_count()


def test_get_sends_the_etag_it_was_given(server: Any, transport: HttpxTransport) -> None:
    """What lies at an address still is asked for by its ETag."""
    server.answers = [b"HTTP/1.1 304 Not Modified\r\n\r\n"]

    statuses = [transport.get(f"{server.url}/v1/config/example.org/mytool", etag).status for etag in ('"3"', None)]

    assert [304, 304] == statuses
    assert [b'"3"', None] == [head_of(request).get(b"if-none-match") for request in server.requests]
    assert server.requests[0].startswith(b"GET /v1/config/example.org/mytool HTTP/1.1\r\n")
