from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, Router

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


def ask(app: Any, path: str, method: str = "GET", kind: str = "http", host: str = "site") -> list[Any]:
    """The messages that an application sends; an exception is the last of them."""
    sent: list[Any] = []
    headers = [(b"host", host.encode())]
    scope = {"type": kind, "method": method, "path": path, "query_string": b"", "headers": headers, "root_path": ""}
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


def test_request_whose_visitor_goes_away_counts_no_exception(telemetry: Telemetry, counted: Read) -> None:
    """Starlette raises in the page that reads what is no longer sent; it is raised on."""

    async def upload(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def run() -> None:
        app = TallypostMiddleware(Router(routes=[Route("/", upload)]), telemetry)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await app(scope, receive, None)  # type: ignore[arg-type]  # Nothing is sent.

    with pytest.raises(ClientDisconnect):
        asyncio.run(run())

    assert {"http/status": 1, "http/status:none": 1} == counted("http/status")
    assert {} == counted("http/exception")


def test_request_with_a_background_task_is_timed_until_all_is_sent(telemetry: Telemetry, counted: Read) -> None:
    """The visitor does not wait for what is done after that; if it raises, that is counted."""
    at = 0.0

    def work() -> None:
        nonlocal at
        at = 5.0
        raise KeyError("secret")

    async def with_task(request: Request) -> Response:
        return PlainTextResponse("secret", background=BackgroundTask(work))

    app = Starlette(routes=[Route("/", with_task)])
    answers = ask(TallypostMiddleware(app, telemetry, clock=lambda: at), "/")

    assert "KeyError('secret')" == repr(answers[-1])
    assert {"http/seconds:<=0.001": 1} == counted("http/seconds")
    assert {"http/exception": 1, "http/status": 1, "http/status:2xx": 1} == counted("http/exception") | counted(
        "http/status"
    )


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


def test_router_in_two_mounts_has_its_routes_counted_without_them(telemetry: Telemetry, counted: Read) -> None:
    """One and the same route lies in both: which of them it was does not show."""
    shared = Router(routes=[Route("/users/{id}", page)])
    app = Starlette(
        routes=[Mount("/v1", app=shared), Mount("/v2", app=shared), Mount("/v3", app=Router(routes=ROUTES))]
    )

    for path in ("/v1/users/7", "/v2/users/7", "/v3/users/7", "/v1/users/8"):
        ask(TallypostMiddleware(app, telemetry), path)

    assert {"http/route": 4, "http/route:users.<id>": 3, "http/route:v3.users.<id>": 1} == counted("http/route")


def test_host_without_routes_is_counted_as_other(telemetry: Telemetry, counted: Read) -> None:
    """It has no path; it is not the first page."""
    app = Starlette(routes=[Host("{name}", app=PlainTextResponse("secret"))])

    ask(TallypostMiddleware(app, telemetry), "/anything", host="secret")

    assert {"http/route": 1, "http/route:other": 1} == counted("http/route")


class Older:
    """A site made with a Starlette before 1.1, which tells where a route leads and not which it is."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            scope.pop("route", None)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "other"),  # Several routes lead to this page.
        ("/crash", "crash"),
        ("/stream", "stream"),
        ("/static/secret.css", "static.<path>"),
        ("/groups/secret/members/secret/one", "groups.<team>.members.<name>.one"),
        ("/secret", "none"),
    ],
)
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_request_to_an_older_starlette_is_counted_by_where_its_route_leads(
    place: str, path: str, route: str, telemetry: Telemetry, counted: Read
) -> None:
    """If only one route leads there."""

    async def one(request: Request) -> Response:
        return PlainTextResponse("secret")

    team = Mount("/groups/{team}", routes=[Route("/members/{name}/one", one)])
    routes = [*ROUTES, team, Mount("/static", app=PlainTextResponse("secret"))]
    inner = [Middleware(Older)]
    app: Any = TallypostMiddleware(Starlette(routes=routes, middleware=inner), telemetry)
    if place == "inside":
        app = Starlette(routes=routes, middleware=[Middleware(TallypostMiddleware, telemetry=telemetry), *inner])

    ask(app, path)

    assert {"http/route": 1, f"http/route:{route}": 1} == counted("http/route")


def test_request_to_an_application_whose_routes_are_not_known_is_not_counted_by_route(
    telemetry: Telemetry, counted: Read
) -> None:
    """Unless it tells the template: nobody can say that no route took it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/told":
            scope["tallypost.route"] = "/users/{id}"
        await send({"type": "http.response.start", "status": 200})

    for path in ("/told", "/untold"):
        ask(TallypostMiddleware(app, telemetry), path)

    assert {"http/route": 1, "http/route:users.<id>": 1} == counted("http/route")
    assert {"http/status": 2, "http/status:2xx": 2} == counted("http/status")


def test_middleware_around_and_in_one_site_counts_once(telemetry: Telemetry, counted: Read) -> None:
    """With the whole template; another prefix counts for itself, and a scope that is used again is counted again."""
    app = TallypostMiddleware(TallypostMiddleware(site(telemetry), telemetry, prefix="site"), telemetry)

    for _ in range(2):
        ask(app, "/teams/a/members/b")

    route = "teams.<team>.members.<name>"
    assert {"http/route": 2, f"http/route:{route}": 2} == counted("http/route")
    assert {"site/route": 2, f"site/route:{route}": 2} == counted("site/route")
