"""The site: its pages, and where its telemetry is set up.

Takes   requests of visitors.
Gives   pages of plain HTML.
Never   keeps anything of a visitor.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from tallypost import Telemetry
from tallypost.contrib.asgi import TallypostMiddleware
from tallypost_schema import declaration

from . import __version__

APPLICATION = "example.org/unit-converter"
# Where reports go if the one who runs the site says yes: the default address of `tallypost-server serve`.
# TALLYPOST_ENDPOINT overrides it.
ENDPOINT = "http://127.0.0.1:8080"

# A unit, its partner, and how many of the partner one of it is.
UNITS = {
    "km": ("miles", 0.621371),
    "miles": ("km", 1.609344),
    "kg": ("pounds", 2.204623),
    "pounds": ("kg", 0.453592),
    "litres": ("gallons", 0.264172),
    "gallons": ("litres", 3.785412),
}


def telemetry_of(**arguments: Any) -> Telemetry:
    """The site's telemetry; further arguments are `Telemetry`'s own, such as ``dir``."""
    return Telemetry(
        APPLICATION,
        __version__,
        endpoint=ENDPOINT,
        declaration="unit_converter:telemetry.toml",
        # A server lives for weeks: one of its threads does the day's work, and no other process is started.
        uploader="thread",
        **arguments,
    )


def site(telemetry: Telemetry) -> Starlette:
    """The site, counting into `telemetry`."""
    app = Starlette(
        routes=[
            Route("/", index),
            Route("/convert", choose),
            Route("/convert/{unit}/{value:float}", convert),
            Route("/telemetry", explain),
        ],
        middleware=[Middleware(TallypostMiddleware, telemetry=telemetry)],
    )
    app.state.telemetry = telemetry
    return app


async def index(request: Request) -> Response:
    """The form."""
    choices = "".join(f"<option>{unit}</option>" for unit in UNITS)
    return page(
        "Units",
        f'<form action="/convert"><input name="value" value="1" size="8" aria-label="value"> '
        f'<select name="unit" aria-label="unit">{choices}</select> <button>Convert</button></form>',
    )


async def choose(request: Request) -> Response:
    """The form's target: leads to the page of that conversion."""
    unit, value = request.query_params.get("unit", ""), request.query_params.get("value", "")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if unit not in UNITS or not 0 <= number < 1e12:
        return page("Units", "<p>A number from 0 on, please, and one of the units.</p>", status=400)
    return RedirectResponse(f"/convert/{unit}/{number:f}", status_code=303)


async def convert(request: Request) -> Response:
    """A conversion."""
    unit, value = request.path_params["unit"], request.path_params["value"]
    if unit not in UNITS:
        return page("Units", "<p>This unit is not known here.</p>", status=404)
    partner, factor = UNITS[unit]
    return page("Units", f"<p>{value:g} {unit} are {value * factor:g} {partner}.</p>")


def explain(request: Request) -> Response:
    """What is counted here, and who decides. Not a coroutine: `status` reads files, so it is given a thread."""
    status = request.app.state.telemetry.status()
    declared = declaration.parse(files("unit_converter").joinpath("telemetry.toml").read_text("utf-8"))
    entries = {**declared.counters, **declared.histograms}
    rows = "".join(f"<tr><th>{escape(name)}<td>{escape(entry.why)}" for name, entry in entries.items())
    sentence = {
        "off": "Nothing is counted.",
        "local": "Requests are counted for the one who runs this site; nothing is sent to anybody.",
        "on": f"Requests are counted; once a day the sums are sent to {escape(str(status['endpoint']))}.",
    }[status["mode"]]
    return page(
        "Telemetry",
        f"<p>The mode is <strong>{escape(status['mode'])}</strong>. {sentence}</p>"
        f"<table><caption>All that is counted</caption>{rows}</table>"
        "<p>Only sums: no path, no address, no cookie, nothing of what you type.</p>"
        f"<p>So far {status['sent']} reports were sent and {status['pending']} wait.</p>"
        "<p>Who runs this site switches it off with</p>"
        f"<pre>tallypost --app {APPLICATION} off</pre>"
        "<p>and sees what was counted with</p>"
        f"<pre>tallypost --app {APPLICATION} show</pre>",
    )


def page(title: str, body: str, status: int = 200) -> HTMLResponse:
    """A page, with the way to the others."""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<h1>{title}</h1>{body}<p><a href="/">Convert</a> · <a href="/telemetry">What is counted here</a></p></html>',
        status_code=status,
    )
