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
    from collections.abc import Callable

    from ..telemetry import Telemetry

# From what a cache answers to what a visitor gives up on.
EDGES = (0.001, 0.01, 0.1, 1.0, 10.0)
# Any word may come as a method from outside; these have a meaning.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
CLASSES = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


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
        self._routes = bounded.BoundedCounter(telemetry, f"{prefix}/route", limit=limit, spelled=route_of)
        self._methods = bounded.BoundedCounter(telemetry, f"{prefix}/method")
        self._statuses = bounded.BoundedCounter(telemetry, f"{prefix}/status")
        self._exceptions = bounded.BoundedCounter(telemetry, f"{prefix}/exception")
        self._seconds = bounded.Seconds(telemetry, f"{prefix}/seconds", edges)

    def count(
        self, *, begin: float, method: object, status: int | None, route: str | None = None, raised: bool = False
    ) -> None:
        """Count a request that began at `begin`; `status` is None if nothing was answered.

        A request without `route` is not counted by route: who knows the routes says ``none`` where none took it.
        """
        self._seconds.observe(self.now() - begin)
        if route is not None:
            self._routes.inc(route)
        self._methods.inc(method if isinstance(method, str) and method in METHODS else OTHER)
        if raised:
            self._exceptions.inc()
            status = 500 if status is None else status  # What the server answers in the application's place.
        self._statuses.inc(NONE if status is None else CLASSES.get(status // 100, OTHER))
