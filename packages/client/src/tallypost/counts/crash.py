"""Crashes and exceptions, counted by kind and by the way that they came.

Takes   a way to a stack counter by name.
Gives   a ``with`` block or decorator that counts what passes it, and hooks for what nobody catches.
Never   keeps an exception, its text or its values; never swallows one; never takes a hook's place without calling it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from .stack import StackCounter

    Stack = Callable[[str], StackCounter]


class CountedExceptions:
    """A ``with`` block, or a decorator, through which exceptions pass on and are counted."""

    __slots__ = ("_name", "_stack")

    def __init__(self, name: str, *, stack: Stack) -> None:
        self._name, self._stack = name, stack

    def __enter__(self) -> CountedExceptions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, Exception):
            count(self._name, error, stack=self._stack)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Count the exceptions that leave a function."""
        from .wrap import wrapped

        return wrapped(function, lambda: CountedExceptions(self._name, stack=self._stack))


def count(name: str, error: BaseException, *, stack: Stack) -> None:
    """Count an exception under ``name/KindOfException``."""
    kind = "".join(letter for letter in type(error).__name__ if letter.isascii() and letter.isalnum())
    stack(f"{name}/{kind or 'Exception'}").inc_for(error)


def install(name: str, *, stack: Stack) -> None:
    """Count what nobody catches, in this thread and in others, then do what was done before."""
    import threading

    before, before_thread = sys.excepthook, threading.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception):  # A Ctrl-C or an exit is no crash.
            count(name, error, stack=stack)
        before(kind, error, traceback)

    def thread_hook(arguments: threading.ExceptHookArgs) -> None:
        if isinstance(arguments.exc_value, Exception):
            count(name, arguments.exc_value, stack=stack)
        before_thread(arguments)

    sys.excepthook, threading.excepthook = hook, thread_hook
