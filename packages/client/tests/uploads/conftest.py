"""What the tests of uploads share: documents, the pending database, and a real server on the loopback."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tallypost.state_directory import StateDirectory
from tallypost.testing import FaultyDisk
from tallypost.uploads.pending import Pending
from tallypost_schema.documents import Program, ProgramCounts, Report, encode


@pytest.fixture
def document() -> Callable[[str], bytes]:
    """An upload report of a day."""

    def make(day: str = "2026-11-19") -> bytes:
        program = Program("mytool", "1.2.3", "3.12", "linux", "x86_64")
        counts = ProgramCounts(
            program.program, program.version, program.python, program.os, program.arch, {"cmd/export": 3}, {}
        )
        identity = day.replace("-", "").rjust(32, "0")
        return encode(Report(1, "report", 0.5, identity, "example.org/mytool", day, None, None, [counts]))

    return make


@pytest.fixture
def pending(directory: StateDirectory, disk: FaultyDisk) -> Pending:
    """The pending database of a state directory that was just made."""
    for folder in directory.folders():
        os.makedirs(folder, 0o700)  # Without a sync each: the disk is not what is tested here.
    return Pending(directory, disk=disk)


@pytest.fixture
def lying(directory: StateDirectory) -> Callable[[], dict[str, list[str]]]:
    """What lies where, of documents, receipts and reasons."""

    def read() -> dict[str, list[str]]:
        folders = (directory.pending, directory.sent, directory.refused, directory.begins)
        return {Path(folder).name: sorted(path.name for path in Path(folder).iterdir()) for folder in folders}

    return read


class Server:
    """A server on the loopback that answers each connection with the next of `answers`; the last one is repeated.

    An answer is bytes, or a function that is given the connection once the request has come; with `is_deaf` no request
    is read before. Whether an answer waits is the test's business: `ended` is set when the server goes away.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.is_deaf = False
        self.answers: list[bytes | Callable[[socket.socket], None]] = []
        self.ended = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}" if tls is None else f"https://localhost:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Go away."""
        self.ended.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)
        assert not self._thread.is_alive(), "a client left its connection open"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue  # The client went away first.

    def _answer(self, connection: socket.socket) -> None:
        if self._tls is not None:
            connection.settimeout(5)
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            request = b"" if self.is_deaf else _request(connection)
            self.requests.append(request)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(answer):
                answer(connection)
            elif request:
                connection.sendall(answer)


def _request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def no_proxy_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine's stands before a test's server."""
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.fixture
def server(no_proxy_here: None) -> Iterator[Server]:
    """A server of the test's own."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for ``localhost`` that nobody signed but itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("a certificate is made with the openssl command")
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = [openssl, *words.split(), "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls_server(no_proxy_here: None, certificate: tuple[str, str]) -> Iterator[Server]:
    """A server of the test's own behind TLS, with a certificate that no system trusts."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server = Server(context)
    yield server
    server.close()
