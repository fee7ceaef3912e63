"""A real server for proofs: started on a folder and a port, as often as it is killed.

Takes   a data folder, which has the declarations of what it shall take, and a port.
Gives   a process that can store when `start` returns.
Never   ends one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

# What a process at a user's or an operator's has of this one's environment: nothing of a test runner's.
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("TALLYPOST", "PYTEST", "COV_")) and name not in ("CI", "DO_NOT_TRACK")
}


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def start(data: Path, port: int, *options: str, archive: bool = False) -> subprocess.Popen[bytes]:
    """Start it, and wait until it can store."""
    command = ["serve", "--listen", f"127.0.0.1:{port}", "--seal-seconds", "2", *options]
    command += [] if archive else ["--no-archive"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tallypost_server", "--data", str(data), *command],
        env=ENVIRON,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(400):
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return server
        except (OSError, http.client.HTTPException):
            pass
        assert server.poll() is None, "the server did not start again"
        time.sleep(0.05)
    server.kill()
    server.wait()
    raise AssertionError("the server did not become ready")
