"""The transport: one request, one answer, within a total deadline.

Takes   an address, bytes, headers.
Gives   the answer, whatever it is, or `NoAnswer`.
Never   follows a redirect, keeps a cookie, or tells the server more than the document does.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx

from tallypost_schema import retry_after

from .. import limits
from ..errors import NoAnswer

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: status, the first 64 KiB of its body, and its headers by lower-case name."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def retry_after(self, now: float) -> float | None:
        """The server's wish in seconds from `now`; None where none can be read, or it lies in the past."""
        return retry_after.seconds_in(self.headers.get("retry-after", ""), now)


class Transport(Protocol):
    """The network."""

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Post a JSON document in that content encoding.

        Raises:
            NoAnswer: nothing is known of what the server did.
        """

    def get(self, url: str, etag: str | None) -> Answer:
        """Get what lies at an address, unless it still has that ETag.

        Raises:
            NoAnswer: there was no answer.
        """


class HttpxTransport:
    """The network through httpx: proxies from the environment, certificates as the system trusts them."""

    def __init__(self, *, seconds_max: float = limits.post_seconds_max) -> None:
        self._seconds_max = seconds_max

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Post a JSON document."""
        headers = {"content-type": "application/json"}
        if encoding is not None:
            headers["content-encoding"] = encoding
        return self._ask("POST", url, body, headers)

    def get(self, url: str, etag: str | None) -> Answer:
        """Get what lies at an address."""
        return self._ask("GET", url, None, {"if-none-match": etag} if etag is not None else {})

    def _ask(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        def ask() -> Answer:
            return asyncio.run(asyncio.wait_for(_ask(method, url, body, headers), self._seconds_max))

        try:
            # In a thread of its own: the caller's may be running an event loop, or have one set that it wants to keep.
            return _in_daemon_thread(ask).result()
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise NoAnswer(f"none within {self._seconds_max:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
            # ImportError: the environment names a SOCKS proxy, and what httpx needs for one is not installed.
            raise NoAnswer(f"{type(error).__name__}: {error}") from error


class _DaemonThreads(ThreadPoolExecutor):
    """Where the event loop looks up names: nobody waits for a lookup that hangs, neither the deadline nor the exit."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return _in_daemon_thread(lambda: fn(*args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """There is nothing to wait for."""


def _in_daemon_thread(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  # Whatever it is, it is raised where the result is asked for.
                future.set_exception(error)

    threading.Thread(target=run, name="tallypost-transport", daemon=True).start()
    return future


async def _ask(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    asyncio.get_running_loop().set_default_executor(_DaemonThreads())
    # A client for one request alone: no cookie, no connection, nothing that ties one post to the next. The encodings
    # that httpx would accept depend on what else is installed, and that is nobody's business.
    headers = {"user-agent": "tallypost", "accept": "application/json", "accept-encoding": "identity", **headers}
    opened: list[Any] = []

    async def keep(event: str, facts: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            opened.append(facts["return_value"])

    try:
        async with (
            httpx.AsyncClient(verify=ssl.create_default_context(), follow_redirects=False, timeout=None) as client,  # noqa: S113  # The caller's deadline holds for all of it.
            client.stream(method, url, content=body, headers=headers, extensions={"trace": keep}) as response,
        ):
            start = b""
            async for piece in response.aiter_bytes():
                start += piece
                if len(start) > limits.answer_bytes_max:
                    break
            return Answer(response.status_code, start[: limits.answer_bytes_max], dict(response.headers))
    finally:
        for stream in opened:  # Called off during a TLS handshake, httpx leaves the connection open.
            await stream.aclose()
