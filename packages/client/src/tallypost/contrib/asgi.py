"""Counts the requests of an ASGI application.

Takes   requests, on their way to the application and back.
Gives   counts of route, method, class of status, seconds, exceptions.
Never   touches what passes: messages go through as they are; websockets and lifespan not even past a function of ours.
"""

from __future__ import annotations

from functools import cached_property

from .http import ROUTE_KEY, HttpMiddleware
from .routes import Templates
from .words import NONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Exceptions by which frameworks say that the visitor went away: no fault of the application.
VISITOR_LEFT = frozenset({"ClientDisconnect"})


class TallypostMiddleware(HttpMiddleware):
    """Around any ASGI application. The route is Starlette's (FastAPI's), by its template, or what an application tells.

    Raises:
        WrongUse: the prefix or the edges are not allowed.
    """

    app: App
    problem: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, and count when it is done."""
        if scope["type"] != "http" or not self._counters.takes(scope):
            await self.app(scope, receive, send)
            return
        now, outermost = self._counters.now, scope.get("app", self.app)
        begin, end = now(), None
        status: int | None = None
        raised = False

        async def noting_send(message: Message) -> None:
            nonlocal status, end
            if message["type"] == "http.response.start":
                status = message.get("status")
            await send(message)
            end = now()  # What the application does after its last message nobody waits for.

        try:
            await self.app(scope, receive, noting_send)
        except Exception as error:
            raised = type(error).__name__ not in VISITOR_LEFT
            raise
        finally:
            self._count(scope, outermost, (now() if end is None else end) - begin, status, raised)

    def _count(self, scope: Scope, outermost: object, seconds: float, status: int | None, raised: bool) -> None:
        try:
            self._counters.leaves(scope)
            route = self._route(scope, outermost)
            self._counters.count(seconds=seconds, method=scope.get("method"), status=status, route=route, raised=raised)
        except Exception as problem:  # noqa: BLE001  # A scope of another shape: the answer is on its way all the same.
            self.problem = problem

    def _route(self, scope: Scope, outermost: object) -> str | None:
        told: str | None = scope.get(ROUTE_KEY)
        if told is not None:
            return told
        # Starlette tells the route from 1.1 on, and before that only where it leads; FastAPI always did.
        found = scope.get("route", scope.get("endpoint"))
        if found is not None:
            return self._templates.of(found, outermost)
        return NONE if "router" in scope else None

    @cached_property
    def _templates(self) -> Templates:
        return Templates()
