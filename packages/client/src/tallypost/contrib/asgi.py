"""Counts the requests of an ASGI application.

Takes   requests, on their way to the application and back.
Gives   counts of route, method, class of status, seconds, exceptions.
Never   touches what passes: messages go through as they are; websockets and lifespan not even past a function of ours.
"""

from __future__ import annotations

from time import perf_counter

from . import bounded
from .http import EDGES, HttpCounters
from .words import NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping
    from typing import Any

    from ..telemetry import Telemetry

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

# A site has this many routes at most whose full template is kept; and mounts lie no deeper in each other.
routes_max = 10_000
depth_max = 10


class TallypostMiddleware:
    """Around any ASGI application. The route is Starlette's (FastAPI's), by its template; elsewhere it is ``none``.

    Raises:
        WrongUse: the prefix or the edges are not allowed.
    """

    def __init__(
        self,
        app: App,
        telemetry: Telemetry,
        *,
        prefix: str = "http",
        edges: tuple[float, ...] = EDGES,
        limit: int = bounded.buckets_max,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._app = app
        self._counters = HttpCounters(telemetry, prefix=prefix, edges=edges, limit=limit, clock=clock)
        self._templates: dict[int, tuple[object, str]] = {}
        self.problem: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, and count when it is done."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, outermost = self._counters.now(), scope.get("app", self._app)
        status: int | None = None
        raised = False

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message.get("status")
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception:
            raised = True
            raise
        finally:
            self._count(scope, outermost, begin, status, raised)

    def _count(self, scope: Scope, outermost: object, begin: float, status: int | None, raised: bool) -> None:
        try:
            route = scope.get("route")
            template = NONE if route is None else self._template(route, outermost)
            self._counters.count(begin=begin, method=scope.get("method"), status=status, route=template, raised=raised)
        except Exception as problem:  # noqa: BLE001  # A scope of another shape: the answer is on its way all the same.
            self.problem = problem

    def _template(self, route: object, outermost: object) -> str:
        """A route's template, with those of the mounts in which it lies: the path they took holds values."""
        known = self._templates.get(id(route))
        if known is not None and known[0] is route:
            return known[1]
        if len(self._templates) < routes_max:
            # The routes are kept with their templates, or another object could come to lie where one was.
            self._templates |= {id(found): (found, template) for found, template in _walk(_routes_of(outermost))}
            return self._templates.setdefault(id(route), (route, _own(route)))[1]
        return _own(route)


def _routes_of(app: Any) -> Any:
    """The routes of an application, seen through the middlewares around it."""
    for _ in range(depth_max):
        if hasattr(app, "routes"):
            return app.routes
        app = getattr(app, "app", None)
    return ()


def _walk(routes: Any, before: str = "", depth: int = 0) -> Iterator[tuple[object, str]]:
    for route in routes or ():
        yield route, before + _own(route)
        below = getattr(route, "routes", None)
        if below and depth < depth_max:
            # A mount's template ends in {path}, which is what the routes below it take.
            yield from _walk(below, before + _own(route).removesuffix("/{path}"), depth + 1)


def _own(route: object) -> str:
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) else ""
