"""``python -m unit_converter``: the site, served by uvicorn."""

import argparse

import uvicorn

from .site import site, telemetry_of


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m unit_converter", description="A site that converts units.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    uvicorn.run(site(telemetry_of()), host=given.host, port=given.port)


if __name__ == "__main__":
    main()
