from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router

from tallypost import Telemetry
from tallypost.contrib.asgi import TallypostMiddleware

Read = Callable[..., dict[str, int]]


async def page(request: Request) -> Response:
    """A page."""
    return PlainTextResponse("secret")


async def crash(request: Request) -> Response:
    """A page that nobody sees."""
    raise KeyError("secret")


async def stream(request: Request) -> Response:
    """A page in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            yield piece

    return StreamingResponse(pieces())


ROUTES = [
    Route("/", page),
    Route("/users/{id:int}", page, methods=["GET"]),
    Route("/crash", crash),
    Route("/stream", stream),
    Mount("/teams/{team}", routes=[Route("/members/{name}", page), Mount("/deep", routes=[Route("/end", page)])]),
    Mount("/sub", app=Starlette(routes=[Route("/page", page)])),
]


def site(telemetry: Any, **settings: Any) -> Starlette:
    """A site that counts."""
    return Starlette(routes=ROUTES, middleware=[Middleware(TallypostMiddleware, telemetry=telemetry, **settings)])


def ask(app: Any, path: str, method: str = "GET", kind: str = "http") -> list[Any]:
    """The messages that an application sends; an exception is the last of them."""
    sent: list[Any] = []
    scope = {"type": kind, "method": method, "path": path, "query_string": b"", "headers": [], "root_path": ""}

    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()  # A visitor who stays, as far as the application can see.
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            sent.append(error)

    asyncio.run(run())
    return sent


@pytest.mark.parametrize(
    ("path", "method", "route", "status"),
    [
        ("/", "GET", "index", "2xx"),
        ("/users/7", "GET", "users.<id>", "2xx"),
        ("/users/7", "POST", "users.<id>", "4xx"),
        ("/users/secret", "GET", "none", "4xx"),
        ("/crash", "GET", "crash", "5xx"),
        ("/stream", "HEAD", "stream", "2xx"),
        ("/teams/secret/members/secret", "GET", "teams.<team>.members.<name>", "2xx"),
        ("/teams/secret/deep/end", "GET", "teams.<team>.deep.end", "2xx"),
        ("/sub/page", "GET", "sub.page", "2xx"),
        ("/secret", "GET", "none", "4xx"),
    ],
)
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_request_each_is_counted_by_the_template_of_its_route(
    place: str, path: str, method: str, route: str, status: str, telemetry: Telemetry, counted: Read
) -> None:
    """With the mounts in which it lies, whether the middleware is in the site or around it."""
    outside = TallypostMiddleware(Starlette(routes=ROUTES), telemetry)
    app: Any = site(telemetry) if place == "inside" else outside

    for _ in range(2):
        ask(app, path, method)

    assert {
        "http/route": 2,
        f"http/route:{route}": 2,
        "http/method": 2,
        f"http/method:{method}": 2,
        "http/status": 2,
        f"http/status:{status}": 2,
        **({"http/exception": 2} if path == "/crash" else {}),
    } == {name: n for name, n in counted().items() if "/seconds:" not in name}
    assert 2 == sum(counted("http/seconds").values())


@pytest.mark.parametrize("path", ["/", "/users/7", "/secret", "/crash", "/stream", "/teams/a/members/b"])
def test_answer_each_is_as_without_counting(path: str, telemetry: Telemetry, broken: Any) -> None:
    """Message by message, and the exception at the end: uncounted, counted, and with a broken telemetry object."""
    answers = [ask(app, path) for app in (Starlette(routes=ROUTES), site(telemetry), site(broken))]

    assert [repr(answers[0])] * 3 == [repr(answer) for answer in answers]


def test_messages_go_through_as_they_are(telemetry: Telemetry) -> None:
    """The very objects, those of extensions included; and what is received is none of our business."""
    messages = [{"type": "http.response.start", "status": 200}, {"type": "http.response.push"}, {"type": "of tomorrow"}]
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(receive)
        for message in messages:
            await send(message)

    sent = ask(TallypostMiddleware(app, telemetry), "/")

    assert [id(message) for message in messages] == [id(message) for message in sent]
    assert "ask.<locals>.receive" == received[0].__qualname__


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "of tomorrow"])
def test_other_connections_pass_by_untouched(kind: str, telemetry: Telemetry, counted: Read) -> None:
    """The application gets the server's own functions, and nothing is counted."""
    given: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given.extend([receive.__qualname__, send.__qualname__])

    ask(TallypostMiddleware(app, telemetry), "/", kind=kind)

    assert ["ask.<locals>.receive", "ask.<locals>.send"] == given
    assert {} == counted()


def test_request_that_is_given_up_counts_no_exception(telemetry: Telemetry, counted: Read) -> None:
    """A visitor who goes away is no fault of the application; nothing was answered."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    async def run() -> None:
        scope = {"type": "http", "method": "GET", "path": "/"}
        await TallypostMiddleware(app, telemetry)(scope, None, None)  # type: ignore[arg-type]  # The app uses neither.

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())

    assert {"http/status": 1, "http/status:none": 1} == counted("http/status")
    assert {} == counted("http/exception")


def test_request_is_timed_until_all_is_sent(telemetry: Telemetry, counted: Read) -> None:
    """Streaming takes as long as it takes."""
    at = 0.0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal at
        await send({"type": "http.response.start", "status": 200})
        at = 5.0
        await send({"type": "http.response.body"})

    ask(TallypostMiddleware(app, telemetry, clock=lambda: at), "/")

    assert {"http/seconds:<=10": 1} == counted("http/seconds")


@pytest.mark.parametrize("route", [object(), {"path": 7}, type("Route", (), {"path": property(lambda self: 1 / 0)})()])
def test_route_of_another_shape_raises_nothing(route: object, telemetry: Telemetry) -> None:
    """Whatever a framework puts into the scope."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = route
        await send({"type": "http.response.start", "status": 200})

    sent = ask(TallypostMiddleware(app, telemetry), "/")

    assert [{"type": "http.response.start", "status": 200}] == sent


def test_router_alone_has_its_routes_told(telemetry: Telemetry, counted: Read) -> None:
    """A site need not be a whole Starlette."""
    ask(TallypostMiddleware(Router(routes=ROUTES), telemetry, prefix="site"), "/teams/a/members/b")

    assert {"site/route": 1, "site/route:teams.<team>.members.<name>": 1} == counted("site/route")
