"""nginx and Caddy in front of a server, with the configurations that operators are given, as plain processes here.

Takes   Debian's nginx and caddy; where ``TALLYPOST_TOOLS`` is ``required`` their absence is a failure.
Gives   what a sender and the server may expect of either.
Never   imports anything of Tallypost: what these tests know, a user knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
MEBIBYTE = 1 << 20
JSON = {"Content-Type": "application/json"}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(holds: Callable[[], bool]) -> None:
    """Look until something is so."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until, "it was not so within 20 s"
        time.sleep(0.02)


class Wire:
    """What lies between proxy and server: it counts connections, and can hold answers back or lose one."""

    def __init__(self, server_port: int) -> None:
        self.port, self._server_port = free_port(), server_port
        self.accepted = 0
        self.holds_answers = self.loses_next_answer = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        self._passing: set[asyncio.Task[None]] = set()
        listener = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        await self._ended.wait()
        listener.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _take(self, from_proxy: asyncio.StreamReader, to_proxy: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        with contextlib.closing(to_proxy), contextlib.suppress(OSError, asyncio.CancelledError):
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            with contextlib.closing(to_server):
                # Whichever side ends first, both connections do.
                ways = [self._pass(from_proxy, to_server), self._pass_back(from_server, to_proxy)]
                tasks = [asyncio.create_task(way) for way in ways]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in tasks:
                        one.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        self._passing.discard(task)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(65536):
            target.write(piece)
            await target.drain()

    async def _pass_back(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(65536):
            while self.holds_answers:
                await asyncio.sleep(0.01)
            if self.loses_next_answer:
                self.loses_next_answer = False
                return
            target.write(piece)
            await target.drain()


def nginx(folder: Path, port: int, server_port: int) -> list[str]:
    """The command that runs nginx on its two files, with ports and folders of ours, as (1) to (4) there say."""
    main = (DEPLOY / "nginx" / "nginx.conf").read_text().replace("/tmp/", f"{folder}/")
    site = (DEPLOY / "nginx" / "tallypost.conf").read_text()
    site = _replaced(site, "server server:8080;", f"server 127.0.0.1:{server_port};")
    site = _replaced(site, "listen 8080;", f"listen 127.0.0.1:{port};")
    site = "".join(line for line in site.splitlines(keepends=True) if not line.strip().startswith("resolver "))
    (folder / "nginx.conf").write_text(main)
    (folder / "tallypost.conf").write_text(site.replace("504 = @moved;", "504 = @away;"))
    # Who is root would else become a user who may not enter the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-g", f"daemon off; {user}"]


def caddy(folder: Path, port: int, server_port: int) -> list[str]:
    """The command that runs Caddy on its file, with ports of ours and without a certificate."""
    site = (DEPLOY / "caddy" / "Caddyfile").read_text()
    site = _replaced(site, "telemetry.example.org {", f"http://127.0.0.1:{port} {{")
    site = _replaced(site, "reverse_proxy 127.0.0.1:8080 {", f"reverse_proxy 127.0.0.1:{server_port} {{")
    site = _replaced(site, "\tlog {\n", "\tadmin off\n\tlog {\n")
    (folder / "Caddyfile").write_text(site)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _replaced(text: str, old: str, new: str) -> str:
    assert 1 == text.count(old), f"the configuration has no {old!r}"
    return text.replace(old, new)


PROXIES = {"nginx": nginx, "caddy": caddy}


class Sender:
    """A connection to the proxy that is kept as long as the proxy keeps it."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def post(self, body: bytes | Iterator[bytes]) -> http.client.HTTPResponse:
        with contextlib.suppress(ConnectionError):  # Who would have too much may stop reading; its answer is there.
            self.connection.request("POST", "/v1/reports", body, JSON)
        answer = self.connection.getresponse()
        self.told = answer.read()
        return answer

    @property
    def code(self) -> str:
        """The code of the error that came last."""
        return str(json.loads(self.told)["error"]["code"])

    @property
    def is_kept(self) -> bool:
        return self.connection.sock is not None


class Front:
    """A proxy, the wire behind it, and a server."""

    def __init__(self, name: str, port: int, wire: Wire, server: Any) -> None:
        self.name, self.port, self.wire, self.server = name, port, wire, server
        self._senders: list[Sender] = []

    def sender(self) -> Sender:
        self._senders.append(Sender(self.port))
        return self._senders[-1]

    def close(self) -> None:
        for sender in self._senders:
            sender.connection.close()

    def counted(self, metric: str) -> int:
        """The sum of a metric's samples since the server's start."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        lines = [line for line in page.splitlines() if line.startswith(metric)]
        return sum(int(line.split()[-1]) for line in lines)

    def lines(self) -> list[str]:
        """Ends the server; the ids of the documents in its segments, in order."""
        assert 0 == self.server.end()
        return [line["stream"] for line in self.server.lines()]


@pytest.fixture(params=PROXIES)
def front(request: pytest.FixtureRequest, server: Any, tmp_path: Path) -> Iterator[Front]:
    """Each proxy before a server."""
    name = request.param
    if shutil.which(name) is None:
        assert os.environ.get("TALLYPOST_TOOLS") != "required", f"{name} is not installed here"
        pytest.skip(f"{name} is not installed here (Debian's package {name})")
    folder, port, wire = tmp_path / "proxy", free_port(), Wire(server.port)
    folder.mkdir()
    environ = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "said").open("wb") as said:
        proxy = subprocess.Popen(PROXIES[name](folder, port, wire.port), env=environ, stdout=said, stderr=said)
    try:
        wait_for(lambda: listens(port) or proxy.poll() is not None)
        assert proxy.poll() is None, (folder / "said").read_text()
        front = Front(name, port, wire, server)
        yield front
        front.close()
    finally:
        proxy.terminate()
        proxy.wait(20)
        wire.close()


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def report() -> Callable[[int], bytes]:
    """A report's bytes, each number another one."""
    program = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}

    def make(number: int) -> bytes:
        document = {"v": 1, "kind": "report", "x": 0.25, "id": f"{number:032x}", "app": "example.org/mytool"}
        document |= {"day": time.strftime("%Y-%m-%d", time.gmtime()), "previous": None, "config": None}
        counts = {**program, "counters": {"cmd/export": number}, "stacks": {}}
        return json.dumps({**document, "programs": [counts]}, separators=(",", ":")).encode()

    return make


Report = Callable[[int], bytes]


def receipt(body: bytes) -> dict[str, str]:
    return {"stored": hashlib.sha256(body).hexdigest()}


def test_connections_to_the_server_are_kept_and_used_again(front: Front, report: Report) -> None:
    """Many requests, from senders who come anew each time, cost the server hardly a connection."""
    statuses = [front.sender().post(report(number)).status for number in range(150)]

    assert [200] * 150 == statuses
    # nginx keeps some for each of its processes, one for each core.
    assert 1 <= front.wire.accepted <= (os.cpu_count() or 1 if front.name == "nginx" else 1)


def test_server_that_was_restarted_between_requests_is_reached_by_the_next(front: Front, report: Report) -> None:
    """What the proxy had kept leads nowhere; nobody hears of it, and the sender's own connection stays."""
    sender = front.sender()
    before = sender.post(report(1)).status
    front.server.end(signal.SIGKILL)
    front.server.start()

    after = sender.post(report(2)).status

    assert [200, 200] == [before, after]
    assert receipt(report(2)) == json.loads(sender.told)
    assert [f"{number:032x}" for number in (1, 2)] == sorted(front.lines())


def test_answer_that_was_lost_on_the_way_is_got_by_sending_again(front: Front, report: Report) -> None:
    """The document was stored; the proxy, or after a 503 the sender, sends it again, and it is stored still."""
    sender = front.sender()
    assert 200 == sender.post(report(1)).status
    front.wire.loses_next_answer = True

    first = sender.post(report(2)).status
    if front.name == "nginx":  # It holds the document still, and a connection that it had kept was what failed.
        assert 200 == first
    else:
        assert (503, "starting") == (first, sender.code)
        assert 200 == sender.post(report(2)).status

    assert receipt(report(2)) == json.loads(sender.told)
    assert [f"{number:032x}" for number in (1, 2, 2)] == front.lines()


def test_server_that_is_away_is_told_of_as_503_and_no_more(front: Front, report: Report) -> None:
    """In words that a client understands, with a time to wait; nothing is stored, and the next try is."""
    sender = front.sender()
    front.server.end(signal.SIGKILL)

    away = sender.post(report(1))
    code = sender.code
    front.server.start()
    back = sender.post(report(1)).status

    assert (503, "starting", True) == (away.status, code, int(away.headers["Retry-After"]) > 0)
    assert 200 == back
    assert [f"{1:032x}"] == front.lines()


def test_servers_own_503_passes_as_it_is_and_is_not_tried_again(front: Front, report: Report) -> None:
    """A disk without room: the sender hears the server's code and its time to wait."""
    front.server.end()
    front.server.start("--reserve-bytes", str(1 << 50), ready=False)
    wait_for(lambda: listens(front.server.port))
    sender = front.sender()

    declined = sender.post(report(1))
    while sender.code == "starting":
        declined = sender.post(report(1))

    assert (503, "no_space") == (declined.status, sender.code)
    assert int(declined.headers["Retry-After"]) >= 300
    assert 1 == front.counted('tallypost_requests_declined_total{code="no_space"}')
    assert [] == front.lines()


def test_sender_who_leaves_once_his_document_is_stored_leaves_it_there(front: Front, report: Report) -> None:
    """He has no receipt, the document is in a segment, and the server goes on with the others."""
    front.wire.holds_answers = True
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as gone:
        body = report(1)
        head = "POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        gone.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: front.counted("tallypost_documents_stored_total") == 1)
    front.wire.holds_answers = False

    answers = [front.sender().post(report(number)).status for number in range(2, 12)]

    assert [200] * 10 == answers
    assert [f"{number:032x}" for number in range(1, 12)] == front.lines()


def test_body_over_the_servers_limit_is_told_and_the_connection_stays_usable(front: Front, report: Report) -> None:
    """The server's 413 arrives although more was sent than it takes."""
    sender = front.sender()

    status = sender.post(b" " * (MEBIBYTE + MEBIBYTE // 2)).status
    code, kept = sender.code, sender.is_kept

    assert (413, "too_large", True) == (status, code, kept)
    assert 200 == sender.post(report(1)).status
    assert [f"{1:032x}"] == front.lines()


@pytest.mark.parametrize("announced", [True, False])
def test_body_over_all_limits_is_told_and_the_next_post_is_stored(
    front: Front, report: Report, announced: bool
) -> None:
    """Whoever answers, proxy or server: it is a 413 in the server's form, whether it knew the length before or not."""
    sender = front.sender()

    pieces = [b" " * MEBIBYTE] * 12
    status = sender.post(b"".join(pieces) if announced else iter(pieces)).status

    assert (413, "too_large") == (status, sender.code)
    assert 200 == sender.post(report(1)).status
    assert [f"{1:032x}"] == front.lines()
