"""Counts the requests of a WSGI application.

Takes   requests, on their way to the application and back.
Gives   counts of method, class of status, seconds until the body is closed, exceptions; of the route, where it is told.
Never   changes status, headers or body; a list stays a list, a server's own file wrapper goes through as it is.
"""

from __future__ import annotations

from .http import ROUTE_KEY, HttpCounters, HttpMiddleware

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Environ = dict[str, Any]
    App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# Where an application tells that an exception was answered for; the template of its route has a place like this.
RAISED_KEY = "tallypost.raised"


class TallypostMiddleware(HttpMiddleware):
    """Around any WSGI application.

    Raises:
        WrongUse: the prefix or the edges are not allowed.
    """

    app: App

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Have the application answer, and count when its body is closed."""
        if not self._counters.takes(environ):
            return self.app(environ, start_response)
        request = _Request(environ, self._counters)

        def noting_start(status: str, headers: Any, *exc_info: Any) -> Any:
            request.note(status)
            return start_response(status, headers, *exc_info)

        try:
            body = self.app(environ, noting_start)
        except BaseException as error:
            request.end(raised=isinstance(error, Exception))
            raise
        if isinstance(body, (list, tuple)) or _is_file_wrapper(environ, body):
            # Servers look at these: at a list's length, and at a file they may hand to the system.
            request.end()
            return body
        return (_SizedBody if hasattr(body, "__len__") else _Body)(body, request)


class _Request:
    """What is known of one request; counted once."""

    __slots__ = ("_begin", "_counters", "_environ", "_is_over", "_raised", "_status")

    def __init__(self, environ: Environ, counters: HttpCounters) -> None:
        self._environ, self._counters = environ, counters
        self._begin = counters.now()
        self._status: int | None = None
        self._raised = self._is_over = False

    def note(self, status: object) -> None:
        """Take the status line; what is none is for the server to refuse."""
        digits = str(status)[:3]
        self._status = int(digits) if digits.isascii() and digits.isdigit() else None

    def note_exception(self) -> None:
        """Know that an exception went by."""
        self._raised = True

    def end(self, *, raised: bool = False) -> None:
        """Count it."""
        if self._is_over:
            return
        self._is_over = True
        environ = self._environ
        self._counters.leaves(environ)
        self._counters.count(
            seconds=self._counters.now() - self._begin,
            method=environ.get("REQUEST_METHOD"),
            status=self._status,
            route=environ.get(ROUTE_KEY),
            raised=raised or self._raised or bool(environ.get(RAISED_KEY)),
        )


class _Body:
    """A body that says when it is closed."""

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
        self._body, self._request = body, request

    def __iter__(self) -> Iterator[bytes]:
        # No generator: one that is given up half-way would close the body, and the server closes it again.
        self._iterator = iter(self._body)
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._iterator)
        except StopIteration:
            raise
        except Exception:
            self._request.note_exception()
            raise

    def close(self) -> None:
        """Close it; the request is over."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._request.end()


class _SizedBody(_Body):
    """A body of which the server may ask the length."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]  # It is made for bodies that have a length.


def _is_file_wrapper(environ: Environ, body: object) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
