"""Serving: socket, signals and uvicorn around an `App`.

Takes   settings.
Gives   an exit status, once everything that was under way is answered, committed and sealed.
Never   logs a payload or an address of a sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
import uvloop

from . import limits
from .app import App, prepare
from .archiving import ArchivistProcess
from .clock import SystemClock
from .errors import CannotListen
from .ingest.hot_path import hot_path, is_known
from .ingest.protocol import BoundedHead
from .logs import log_to_stderr
from .notify import Manager
from .settings import Listen, Settings
from .workers import Supervisor, Worker

_log = logging.getLogger(__name__)
_BACKLOG = 2048
# Proxies reach a socket through its group.
_SOCKET_MODE = 0o660


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    log_to_stderr(settings.log_format)
    if settings.workers == 1:
        archivist = archivist_for(settings)
        app = App(settings)
        manager = Manager(os.environ, clock=SystemClock())
        try:
            return _listening(
                settings, lambda listener: uvloop.run(_serve(app, listener, settings, manager, archivist))
            )
        finally:
            app.close()
    archivist = archivist_for(settings)
    prepared = prepare(settings)
    try:
        return _listening(settings, lambda listener: _supervise(listener, settings, prepared.run, archivist))
    finally:
        prepared.lock.close()


def archivist_for(settings: Settings) -> ArchivistProcess | None:
    """Who archives beside the server, if anybody does.

    Raises:
        ExtraMissing: the archive's libraries are not installed.
    """
    return None if settings.no_archive else ArchivistProcess(settings, clock=SystemClock())


def _listening(settings: Settings, work: Callable[[socket.socket], int]) -> int:
    listener = listen(settings.listen)
    try:
        where = settings.listen
        if not where.path:
            host, port = listener.getsockname()[:2]
            where = where._replace(host=host, port=port)
        _log.info("listening on %s, data in %s", where, settings.data.resolve())
        return work(listener)
    finally:
        listener.close()
        if settings.listen.path:
            Path(settings.listen.path).unlink(missing_ok=True)


def _supervise(listener: socket.socket, settings: Settings, run: str, archivist: ArchivistProcess | None) -> int:
    def work(worker: Worker) -> int:
        # A service manager hears of the process that it started alone.
        return uvloop.run(_serve(App(settings, worker=worker), listener, settings, Manager({}, clock=SystemClock())))

    manager = Manager(os.environ, clock=SystemClock())
    return Supervisor(
        settings.workers, work, run=run, manager=manager, close=listener.close, archivist=archivist
    ).serve()


def listen(where: Listen) -> socket.socket:
    """A listening socket.

    Raises:
        CannotListen: the address is taken, or not ours.
    """
    try:
        if where.path:
            return _listen_on_path(where)
        family, _, _, _, address = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as failure:
        raise CannotListen(str(where), failure) from failure


def _listen_on_path(where: Listen) -> socket.socket:
    path = Path(where.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listener.bind(where.path)
        except OSError as failure:
            if failure.errno != errno.EADDRINUSE or _answers(path):
                raise
            path.unlink()  # Left by a server that was killed: nobody listens there.
            listener.bind(where.path)
        path.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    if not stat.S_ISSOCK(path.stat().st_mode):
        return True  # A file of somebody else's: not ours to remove.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def protocol_for(app: App, settings: Settings) -> type[BoundedHead]:
    """The protocol by which documents come in."""
    if settings.hot_path == "off" or (settings.hot_path == "auto" and not is_known()):
        return BoundedHead
    return hot_path(app.intake, new_id=app.new_id)


class _Server(uvicorn.Server):
    """Uvicorn's server, whose signals are handled by `_serve`: its own way ends the process by the signal, not by 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    app: App, listener: socket.socket, settings: Settings, manager: Manager, archivist: ArchivistProcess | None = None
) -> int:
    server = _Server(
        uvicorn.Config(
            app,
            http=protocol_for(app, settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.keep_alive_seconds,
            timeout_graceful_shutdown=limits.drain_seconds_max,
        )
    )

    loop = asyncio.get_running_loop()

    def end() -> None:
        manager.tell("STOPPING=1")
        app.begin_stop()
        tending.cancel()
        if archivist is not None:
            archivist.end()
        # Who is connected, or about to be, hears it from an answer; only then are sockets closed.
        loop.call_later(limits.stop_notice_seconds, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    starting = asyncio.create_task(app.start())
    telling = asyncio.create_task(manager.keep_telling())
    tending = asyncio.create_task(_tend(archivist))
    # Without recovery nothing would ever be taken; whoever started the server must hear of it.
    starting.add_done_callback(lambda task: end() if task.cancelled() or task.exception() else manager.tell("READY=1"))
    try:
        await server.serve(sockets=[listener])
    finally:
        results = await asyncio.gather(starting, return_exceptions=True)
        ended = await app.stop()
        telling.cancel()
        tending.cancel()
        if archivist is not None:
            await loop.run_in_executor(None, archivist.wait)
    if isinstance(results[0], BaseException):
        _log.error("recovery failed: %r", results[0])
        return 1
    _log.info("stopped" if ended else "stopped before everything was on disk or sealed: the disk is too slow")
    return 0 if ended else 1


async def _tend(archivist: ArchivistProcess | None) -> None:
    while archivist is not None:
        archivist.tend()
        await asyncio.sleep(limits.tick_seconds)
