"""Counts requests: by route, by how they end, by how long they take.

Takes   requests, on their way to the site and back.
Gives   three counts a request.
Never   looks at the path, the query, the headers or the body; never delays or changes an answer.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallypost import Telemetry


class Counting:
    """A middleware for any Starlette site."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._routes = telemetry.counter("route")
        self._statuses = telemetry.counter("status")
        self._seconds = telemetry.histogram("request/seconds", edges=(0.001, 0.01, 0.1, 1, 10))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the site answer, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # What the visitor gets if the site raises before it has begun to answer.
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self._seconds.time():
                await self._app(scope, receive, note_status)
        finally:
            self._routes.inc(bucket=bucket_of(scope.get("route")))
            self._statuses.inc(bucket=f"{status // 100}xx")


def bucket_of(route: Any) -> str:
    """The template of a route, in the characters that a bucket may have: ``convert.<unit>.<value>``.

    Where no route took the request its path is a stranger's invention, and is not counted.
    """
    template = getattr(route, "path_format", None)
    if template is None:
        return "none"
    parts = template.strip("/").replace("{", "<").replace("}", ">").split("/")
    return ".".join(parts) if parts != [""] else "index"
