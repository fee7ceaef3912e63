"""Counts the requests of a Django site.

Takes   requests, on their way through Django's middlewares; the setting ``TALLYPOST``.
Gives   counts of route (``users.<id>``), method, class of status, seconds, exceptions that nobody made an answer of.
Never   changes a request or an answer; without the setting, or if what it names cannot be had, it is not there at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.signals import got_request_exception
from django.utils.module_loading import import_string

from . import bounded
from .http import EDGES, HttpCounters
from .words import NONE, OTHER, route_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_RAISED = "_tallypost_raised"


class TallypostMiddleware:
    """To stand first in ``MIDDLEWARE``, so that it sees what the others do. A subclass changes prefix, edges, limit."""

    sync_capable = True
    async_capable = True
    prefix = "http"
    edges = EDGES
    limit = bounded.buckets_max

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        telemetry = getattr(settings, "TALLYPOST", None)
        try:
            if isinstance(telemetry, str):
                telemetry = import_string(telemetry)
        except Exception as problem:
            # Django leaves such a middleware out, and says so in its log while DEBUG is on.
            raise MiddlewareNotUsed(f"TALLYPOST names what cannot be imported: {problem!r}") from problem
        if telemetry is None:
            raise MiddlewareNotUsed("the setting TALLYPOST names no telemetry object")
        self._counters = HttpCounters(telemetry, prefix=self.prefix, edges=self.edges, limit=self.limit)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        self.problem: Exception | None = None
        # A function of the module, so that it is connected once however many middlewares there are.
        got_request_exception.connect(_note_exception, dispatch_uid=_RAISED)

    def __call__(self, request: Any) -> Any:
        """Have the site answer, and count when the answer is made; a streaming one is sent after that."""
        if not self._counters.takes(vars(request)):
            return self.get_response(request)
        if self._is_async:
            return self._answer(request)
        begin, status = self._counters.now(), None
        try:
            response = self.get_response(request)
            status = getattr(response, "status_code", None)
            return response
        finally:
            self._count(request, begin, status)

    async def _answer(self, request: Any) -> Any:
        begin, status = self._counters.now(), None
        try:
            response = await self.get_response(request)
            status = getattr(response, "status_code", None)
            return response
        finally:
            self._count(request, begin, status)

    def _count(self, request: Any, begin: float, status: int | None) -> None:
        try:
            self._counters.leaves(vars(request))
            self._counters.count(
                seconds=self._counters.now() - begin,
                method=request.method,
                status=status,
                route=_route(request),
                raised=hasattr(request, _RAISED),
            )
        except Exception as problem:  # noqa: BLE001  # A request of another shape: the answer is made all the same.
            self.problem = problem


def _note_exception(sender: object, request: Any = None, **more: object) -> None:
    """Know that an exception came as far as Django itself, be it a view's or a middleware's; a 404 is none."""
    if request is not None:
        setattr(request, _RAISED, True)


def _route(request: Any) -> str:
    """The template of the route; where it is a regular expression that does not fit, the name of the view."""
    match = getattr(request, "resolver_match", None)
    if match is None:
        return NONE
    template = str(match.route)
    if route_of(template) is not None:
        return template
    return str(match.view_name) if match.url_name else OTHER
