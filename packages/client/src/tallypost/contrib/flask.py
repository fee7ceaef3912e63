"""Counts the requests of a Flask application.

Takes   the application.
Gives   counts of route (``users.<id>``), method, class of status, seconds, exceptions.
Never   registers a function that could change an answer: it listens to Flask's signals, around it is a WSGI middleware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flask

from . import bounded
from .http import EDGES, ROUTE_KEY
from .words import NONE
from .wsgi import RAISED_KEY, TallypostMiddleware

if TYPE_CHECKING:
    from typing import Any

    from ..telemetry import Telemetry


def instrument(
    app: flask.Flask,
    telemetry: Telemetry,
    *,
    prefix: str = "http",
    edges: tuple[float, ...] = EDGES,
    limit: int = bounded.buckets_max,
) -> None:
    """Count each request of `app` from now on. Said again it changes nothing.

    Raises:
        WrongUse: the prefix or the edges are not allowed.
    """
    if "tallypost" in app.extensions:
        return
    middleware = TallypostMiddleware(app.wsgi_app, telemetry, prefix=prefix, edges=edges, limit=limit)
    app.extensions["tallypost"] = middleware
    app.wsgi_app = middleware  # type: ignore[method-assign]  # As Flask's documentation says to put a middleware.
    # Not weakly: nobody else keeps these functions.
    flask.request_started.connect(_note_route, app, weak=False)
    flask.got_request_exception.connect(_note_exception, app, weak=False)


def _note_route(sender: flask.Flask, **more: Any) -> None:
    rule = flask.request.url_rule
    flask.request.environ[ROUTE_KEY] = NONE if rule is None else rule.rule


def _note_exception(sender: flask.Flask, **more: Any) -> None:
    flask.request.environ[RAISED_KEY] = True
