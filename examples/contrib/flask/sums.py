"""A site made with Flask."""

import argparse
from pathlib import Path

from flask import Flask

from tallypost import Telemetry
from tallypost.contrib.flask import instrument

DECLARATION = Path(__file__).with_name("telemetry.toml")
telemetry = Telemetry("example.org/sums", "1.0", declaration=DECLARATION, uploader="thread")
app = Flask(__name__)
instrument(app, telemetry)


@app.get("/sum/<int:a>/<int:b>")
def sum_of(a: int, b: int) -> str:
    """Add two numbers."""
    return f"{a + b}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8003)
    app.run(port=parser.parse_args().port)
