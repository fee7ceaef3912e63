"""What the tests of the commands share: commands as a user gives them, and a server on the loopback."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from tallypost.cli.main import main
from tallypost_schema.receipts import encode_receipt, hash_of


class Said:
    """What a command came to: its exit status, and what it printed."""

    def __init__(self, status: int, out: bytes, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def text(self) -> str:
        return self.out.decode()


@pytest.fixture
def command(
    base: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Give a command, with ``TALLYPOST_DIR`` set and nothing else said; words of the environment as keywords."""

    def run(*words: str, **environ: str) -> Said:
        for variable in ("DO_NOT_TRACK", "CI", "TALLYPOST_ENDPOINT", "TALLYPOST_TESTING_CLOCK_SHIFT"):
            monkeypatch.delenv(variable, raising=False)
        # Without the variable a test runner is *off*.
        for variable, value in {"TALLYPOST": "on", "TALLYPOST_DIR": str(base), **environ}.items():
            monkeypatch.setenv(variable, value)
        capsysbinary.readouterr()
        try:
            status = main(words)
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else 1
        out, err = capsysbinary.readouterr()
        return Said(status, out, err.decode())

    return run


class Receiver:
    """A server that stores: `documents` has what was posted to it, `status` is what it answers instead of a 200."""

    def __init__(self) -> None:
        self.documents: list[bytes] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(404, b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                document = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
                receiver.documents.append(document)
                self._answer(receiver.status, encode_receipt(hash_of(document)) if receiver.status == 200 else b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A server that stores what is posted to it."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    receiver = Receiver()
    yield receiver
    receiver.close()
