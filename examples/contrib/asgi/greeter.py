"""An ASGI site, made with Starlette, served by uvicorn."""

import argparse
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tallypost import Telemetry
from tallypost.contrib.asgi import TallypostMiddleware

DECLARATION = Path(__file__).with_name("telemetry.toml")
telemetry = Telemetry("example.org/greeter", "1.0", declaration=DECLARATION, uploader="thread")


async def hello(request: Request) -> Response:
    """Greet somebody, whose name is nobody's business."""
    return PlainTextResponse(f"Hello, {request.path_params['name']}!\n")


app = Starlette(routes=[Route("/hello/{name}", hello)])
app.add_middleware(TallypostMiddleware, telemetry=telemetry)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8001)
    uvicorn.run(app, port=parser.parse_args().port, log_level="warning")
