"""What a field of an event may be: a word of a declared set, or a kind of number.

Takes   what is declared for a field, and a value.
Gives   yes or no.
Never   imports more than ``limits.py``: an application's own process asks it of each event.
"""

from __future__ import annotations

from . import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    FieldKind: TypeAlias = Literal["count", "seconds", "bytes", "flag"]
    Allowed: TypeAlias = "tuple[str, ...] | FieldKind"


def accepts(allowed: Allowed, value: object) -> bool:
    """Whether `value` is what is declared."""
    if isinstance(allowed, tuple):
        return isinstance(value, str) and value in allowed
    if allowed == "flag":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if allowed != "seconds" and not isinstance(value, int):
        return False
    return 0 <= value <= limits.count_max  # A comparison takes whole numbers of any length; NaN fails it.


def described(allowed: Allowed) -> str:
    """What is declared, for people."""
    if isinstance(allowed, tuple):
        return f"one of {', '.join(allowed)}" if allowed else "nothing (its set of words is empty)"
    rules = {
        "flag": "True or False",
        "seconds": "a number of seconds from 0 on",
        "count": "a whole number from 0 on",
        "bytes": "a whole number of bytes from 0 on",
    }
    return rules[allowed]
