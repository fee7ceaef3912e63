from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from tallypost import Telemetry
from tallypost.contrib.wsgi import TallypostMiddleware

Read = Callable[..., dict[str, int]]
HEADERS = [("Content-Type", "text/plain")]


class Body:
    """A body that says how often it was closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces, self.closed = iter(pieces), 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self.pieces)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1


class Sized(Body):
    """A body of known length."""

    def __len__(self) -> int:
        return 1


def answering(body: Iterable[bytes], status: str = "200 OK") -> Callable[..., Iterable[bytes]]:
    """An application with one answer."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(status, HEADERS)
        return body

    return app


def environ_of(**more: Any) -> dict[str, Any]:
    """What a server tells an application."""
    environ: dict[str, Any] = dict(more)
    setup_testing_defaults(environ)
    return environ


def started(*arguments: Any) -> Any:
    """What a server gives for a start."""
    return started


def test_request_is_counted_when_its_body_is_closed(telemetry: Telemetry, counted: Read) -> None:
    """Not before, and once, however often it is closed; the application's own body is closed as often."""
    at, body = 0.0, Body(b"secret", b"more")
    app = TallypostMiddleware(answering(body, "404 Nowhere"), telemetry, clock=lambda: at)

    answer: Any = app(environ_of(), started)
    pieces = list(answer)
    before = counted()
    at = 0.5
    answer.close()
    answer.close()

    assert [b"secret", b"more"] == pieces
    assert {} == before
    assert 2 == body.closed
    assert {
        "http/method": 1,
        "http/method:GET": 1,
        "http/status": 1,
        "http/status:4xx": 1,
        "http/seconds:<=1": 1,
    } == counted()


def test_body_given_up_half_way_is_closed_by_the_server_alone(telemetry: Telemetry) -> None:
    """Nothing of ours closes it beside the server."""
    body = Body(b"one", b"two")
    answer: Any = TallypostMiddleware(answering(body), telemetry)(environ_of(), started)

    next(iter(answer))
    del answer

    assert 0 == body.closed


def test_list_stays_the_list(telemetry: Telemetry, counted: Read) -> None:
    """A server reads its length; it has no end to wait for."""
    body = [b"secret"]

    answer = TallypostMiddleware(answering(body), telemetry)(environ_of(), started)

    assert body is answer
    assert {"http/status": 1, "http/status:2xx": 1} == counted("http/status")


def test_file_wrapper_of_the_server_stays_what_it_is(telemetry: Telemetry, counted: Read) -> None:
    """A server hands such a file to the system."""
    body = FileWrapper(io.BytesIO(b"secret"))

    environ = environ_of(**{"wsgi.file_wrapper": FileWrapper})
    answer = TallypostMiddleware(answering(body), telemetry)(environ, started)

    assert body is answer
    assert {"http/status": 1, "http/status:2xx": 1} == counted("http/status")


def test_body_of_known_length_keeps_it(telemetry: Telemetry) -> None:
    """And one of unknown length has none."""
    sized: Any = TallypostMiddleware(answering(Sized(b"secret")), telemetry)(environ_of(), started)
    other: Any = TallypostMiddleware(answering(Body(b"secret")), telemetry)(environ_of(), started)

    assert 1 == len(sized)
    assert not hasattr(other, "__len__")


def test_exception_before_the_answer_is_counted_and_raised_on(telemetry: Telemetry, counted: Read) -> None:
    """The server answers 500 in its place."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise KeyError("secret")

    with pytest.raises(KeyError, match="secret"):
        TallypostMiddleware(app, telemetry)(environ_of(), started)

    assert {"http/status": 1, "http/status:5xx": 1, "http/exception": 1} == counted("http/status") | counted(
        "http/exception"
    )


def test_exception_amid_the_answer_is_counted_and_raised_on(telemetry: Telemetry, counted: Read) -> None:
    """Its status was sent before."""
    app = TallypostMiddleware(answering(Body(b"one", KeyError("secret"))), telemetry)
    answer: Any = app(environ_of(), started)

    with pytest.raises(KeyError, match="secret"):
        list(answer)
    answer.close()

    assert {"http/status": 1, "http/status:2xx": 1, "http/exception": 1} == counted("http/status") | counted(
        "http/exception"
    )


def test_start_response_is_the_servers_own(telemetry: Telemetry) -> None:
    """What it is given and what it gives pass through, with and without an exception's facts."""
    calls: list[tuple[Any, ...]] = []
    given = []

    def start(*arguments: Any) -> str:
        calls.append(arguments)
        return "write"

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        given.append(start_response("200 OK", HEADERS))
        given.append(start_response("500 Sorry", HEADERS, ("exc", "info", None)))
        return []

    TallypostMiddleware(app, telemetry)(environ_of(), start)

    assert ["write", "write"] == given
    assert [("200 OK", HEADERS), ("500 Sorry", HEADERS, ("exc", "info", None))] == calls
    assert calls[0][1] is HEADERS


def test_route_that_the_application_tells_is_counted(telemetry: Telemetry, counted: Read) -> None:
    """An application that knows its routes puts the template into the environment."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["tallypost.route"] = "/users/<int:id>"
        start_response("204 Nothing", [])
        return []

    TallypostMiddleware(app, telemetry, prefix="site")(environ_of(), started)

    assert {"site/route": 1, "site/route:users.<id>": 1} == counted("site/route")


def test_middleware_around_itself_counts_once(telemetry: Telemetry, counted: Read) -> None:
    """Another prefix counts for itself, and an environment that is used again is counted again."""
    inner = TallypostMiddleware(answering(Body(b"secret")), telemetry)
    app = TallypostMiddleware(TallypostMiddleware(inner, telemetry, prefix="site"), telemetry)
    environ = environ_of()

    for _ in range(2):
        answer: Any = app(environ, started)
        answer.close()

    assert {"http/status": 2, "http/status:2xx": 2} == counted("http/status")
    assert {"site/status": 2, "site/status:2xx": 2} == counted("site/status")
    assert [] == [key for key in environ if key.startswith("tallypost")]


def test_middleware_keeps_the_rules_of_wsgi(telemetry: Telemetry, broken: Any) -> None:
    """The standard library's validator, on both sides of it, has nothing to say."""
    for counting in (telemetry, broken):
        app = validator(TallypostMiddleware(validator(answering([b"secret"])), counting))

        answer: Any = app(environ_of(QUERY_STRING=""), lambda status, headers, exc_info=None: lambda data: None)

        assert [b"secret"] == list(answer)
        answer.close()
