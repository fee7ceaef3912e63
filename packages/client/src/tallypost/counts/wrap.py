"""Decorators out of ``with`` blocks, for functions, coroutines and generators' makers alike.

Takes   a function, and a maker of ``with`` blocks.
Gives   the function, each call of it in a block of its own.
Never   changes what a function takes, returns or raises.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

_IS_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the price of importing it.


def wrapped(function: Callable[..., Any], block: Callable[[], AbstractContextManager[Any]]) -> Callable[..., Any]:
    """`function` with each call in a block; of a coroutine the block lasts until it is done."""
    from functools import wraps

    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _IS_COROUTINE:

        @wraps(function)
        async def coroutine(*arguments: Any, **named: Any) -> Any:
            with block():
                return await function(*arguments, **named)

        return coroutine

    @wraps(function)
    def plain(*arguments: Any, **named: Any) -> Any:
        with block():
            return function(*arguments, **named)

    return plain
