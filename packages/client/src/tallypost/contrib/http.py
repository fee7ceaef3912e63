"""The counters of whatever answers requests over HTTP.

Takes   what is known when a request is over: route, method, status, seconds, whether an exception went by.
Gives   ``http/route:users.<id>``, ``http/method:GET``, ``http/status:2xx``, ``http/seconds:<=0.1``, ``http/exception``.
Never   sees a path, a query, a header or a body.
"""

from __future__ import annotations

from time import perf_counter

from . import bounded
from .words import NONE, OTHER, route_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any

    from ..telemetry import Telemetry

# From what a cache answers to what a visitor gives up on.
EDGES = (0.001, 0.01, 0.1, 1.0, 10.0)
# Any word may come as a method from outside; these have a meaning.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
CLASSES = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
# Where an application that knows its routes tells the template of the one that took the request: in WSGI's environment,
# in ASGI's scope.
ROUTE_KEY = "tallypost.route"


class HttpCounters:
    """Counts requests, each when it is over."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        prefix: str = "http",
        edges: tuple[float, ...] = EDGES,
        limit: int = bounded.buckets_max,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.now = clock
        # Kept, so that no other one comes to have its identity.
        self._telemetry, self._mark = telemetry, f"tallypost.{prefix}.{id(telemetry)}"
        self._routes = bounded.BoundedCounter(telemetry, f"{prefix}/route", limit=limit, spelled=route_of)
        self._methods = bounded.BoundedCounter(telemetry, f"{prefix}/method")
        self._statuses = bounded.BoundedCounter(telemetry, f"{prefix}/status")
        self._exceptions = bounded.BoundedCounter(telemetry, f"{prefix}/exception")
        self._seconds = bounded.Seconds(telemetry, f"{prefix}/seconds", edges)

    def takes(self, notes: MutableMapping[str, Any]) -> bool:
        """Whether a request is to be counted here: it is not where another one, around this one, counts the same.

        `notes` go along with the request; what is put there is taken away by `leaves`.
        """
        if self._mark in notes:
            return False
        notes[self._mark] = True
        return True

    def leaves(self, notes: MutableMapping[str, Any]) -> None:
        """Have the request be over: its notes may be used for another one."""
        notes.pop(self._mark, None)

    def count(
        self, *, seconds: float, method: object, status: int | None, route: str | None = None, raised: bool = False
    ) -> None:
        """Count a request; `status` is None if nothing was answered.

        A request without `route` is not counted by route: who knows the routes says ``none`` where none took it.
        """
        self._seconds.observe(seconds)
        if route is not None:
            self._routes.inc(route)
        self._methods.inc(method if isinstance(method, str) and method in METHODS else OTHER)
        if raised:
            self._exceptions.inc()
            status = 500 if status is None else status  # What the server answers in the application's place.
        self._statuses.inc(NONE if status is None else CLASSES.get(status // 100, OTHER))


class HttpMiddleware:
    """What a middleware is made of, whichever way requests come to it.

    Raises:
        WrongUse: the prefix or the edges are not allowed.
    """

    def __init__(
        self,
        app: Any,
        telemetry: Telemetry,
        *,
        prefix: str = "http",
        edges: tuple[float, ...] = EDGES,
        limit: int = bounded.buckets_max,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        # Under the name that middlewares have for it, so that those who look for the routes see through this one.
        self.app = app
        self._counters = HttpCounters(telemetry, prefix=prefix, edges=edges, limit=limit, clock=clock)
