"""Everything but the two paths that take documents, on Starlette: upload config, health, version, metrics, OpenAPI.

Takes   GET requests.
Gives   JSON, or Prometheus' text; an error body for what is not served.
Never   stores anything.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import tallypost_schema
from tallypost_schema import upload_config

from . import __version__
from .clock import Clock
from .errors import CommitFailed, Declined, Refused, place_of
from .ingest.answers import error_body, error_headers
from .ingest.applications import Applications
from .ingest.endpoint import Receive, Scope, Send
from .ingest.head import head_of
from .metrics import Metrics
from .openapi import description

_log = logging.getLogger(__name__)


def web(
    *,
    applications: Applications,
    clock: Clock,
    metrics: Metrics,
    not_ready: Callable[[], Declined | None],
    new_id: Callable[[], str],
    numbers_text: Callable[[], str],
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI callable."""
    described = description()

    def request_id_of(request: Request) -> str:
        return head_of(request.headers.raw).request_id or new_id()

    async def config(request: Request) -> Response:
        today = clock.now().date()
        asked = applications.find(request.path_params["application"]).upload_config(today)
        tag = f'"{asked.version}"'
        # A config may change at midnight or with a new declaration, so it is asked for again each time.
        headers = {"etag": tag, "cache-control": "no-cache"}
        if _matches(request.headers.getlist("if-none-match"), tag):
            return Response(status_code=304, headers=headers)
        return Response(upload_config.encode(asked), headers=headers, media_type="application/json")

    async def healthz(_: Request) -> Response:
        return _json({"status": "alive"})

    async def readyz(request: Request) -> Response:
        trouble = await run_in_threadpool(not_ready)
        if trouble is not None:
            return await declined(request, trouble)
        return _json({"status": "ready"})

    async def version(_: Request) -> Response:
        return _json(
            {
                "name": "tallypost-server",
                "version": __version__,
                "schema": tallypost_schema.__version__,
                "python": platform.python_version(),
            }
        )

    async def numbers(_: Request) -> Response:
        text = await run_in_threadpool(numbers_text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(_: Request) -> Response:
        return Response(described, media_type="application/json")

    async def declined(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, Declined)
        metrics.declined.add(failure.code)
        body = error_body(failure)
        response = Response(body, status_code=failure.status)
        response.raw_headers = error_headers(failure, body, request_id_of(request))
        return response

    async def not_served(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, HTTPException)
        path = request.url.path[:100]
        if failure.status_code == 405:
            allowed = (failure.headers or {}).get("Allow", "")
            answer = Refused("method_not_allowed", f"{path!a} takes {allowed}, not {request.method[:20]!a}")
            response = await declined(request, answer)
            response.headers["allow"] = allowed
            return response
        return await declined(request, Refused("not_found", f"{path!a} is not served here"))

    async def unexpected(request: Request, failure: Exception) -> Response:
        return await declined(request, CommitFailed(failure))

    application = Starlette(
        routes=[
            Route("/v1/config/{application:path}", config),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/version", version),
            Route("/metrics", numbers),
            Route("/openapi.json", openapi),
        ],
        exception_handlers={Declined: declined, HTTPException: not_served, Exception: unexpected},
    )
    application.router.redirect_slashes = False

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await application(scope, receive, send)
        except Exception as failure:  # noqa: BLE001  Starlette raises again what it has answered.
            metrics.unexpected.add()
            _log.error("a request met what nobody foresaw: %s", place_of(failure))

    return answer


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _matches(given: list[str], tag: str) -> bool:
    """Whether an If-None-Match names `tag`; weak tags compare as strong ones here."""
    tags = [part.strip().removeprefix("W/") for header in given for part in header.split(",")]
    return tag in tags or "*" in tags
