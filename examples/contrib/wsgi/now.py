"""A WSGI application without any framework, served by the standard library's server."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from time import gmtime, strftime
from typing import Any
from wsgiref.simple_server import make_server

from tallypost import Telemetry
from tallypost.contrib.wsgi import TallypostMiddleware

DECLARATION = Path(__file__).with_name("telemetry.toml")
telemetry = Telemetry("example.org/now", "1.0", declaration=DECLARATION, uploader="thread")


def now(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Tell the time."""
    if environ["REQUEST_METHOD"] != "GET":
        start_response("405 Method Not Allowed", [("Allow", "GET")])
        return
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield strftime("%H:%M:%S\n", gmtime()).encode()


app = TallypostMiddleware(now, telemetry)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8002)
    with make_server("127.0.0.1", parser.parse_args().port, app) as server:
        server.serve_forever()
