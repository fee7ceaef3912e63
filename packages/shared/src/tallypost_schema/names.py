"""The grammar of names: one place, so that what a client accepts a server stores.

Takes   strings.
Gives   yes or no, or the parts of a name.
Never   knows what is declared (``declaration.py``).
"""

from __future__ import annotations

import re
from functools import lru_cache

from . import limits

_WORDS = r"[a-z0-9]+(?:-[a-z0-9]+)*"
_CAPITALS = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_PLAIN = re.compile(rf"{_WORDS}(?:/{_WORDS})*")
_STACK = re.compile(rf"{_CAPITALS}(?:/{_CAPITALS})*")
_BUCKET = re.compile(r"[A-Za-z0-9._<>=+-]+")
_COUNTER = re.compile(rf"{_PLAIN.pattern}(?::{_BUCKET.pattern})?")
_APPLICATION = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?:/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)*")
_PROGRAM = re.compile(r"[A-Za-z0-9._+-]+")
_FIELD = re.compile(r"[a-z][a-z0-9_]*")
_CONTROLS = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
_CONTROL = re.compile(rf"[{_CONTROLS}]")
_FRAME_WORD = rf"[^:{_CONTROLS}]+"
_FRAMES = re.compile(rf"(?:\n{_FRAME_WORD}:{_FRAME_WORD}:\+[0-9]+)*")

NAME_RULE = "words of a-z and 0-9 joined by '-', parts joined by '/', 200 characters at most (cmd/export)"
BUCKET_RULE = "letters, digits and . _ < > = + - (pdf, <=0.1, other)"
STACK_RULE = "a name of which one part may have capitals (crash/KeyError)"
APPLICATION_RULE = "parts of a-z, 0-9, '.', '_' and '-' joined by '/', 100 characters at most (example.org/mytool)"
PROGRAM_RULE = "letters, digits and . _ + -, 100 characters at most (mytool)"
FIELD_RULE = "a-z, 0-9 and '_', begun by a letter (format)"


def is_name(text: str) -> bool:
    """Whether `text` is a counter's, histogram's or event's name, without bucket."""
    return len(text) <= limits.name_characters_max and _is_name(text)


def is_bucket(text: str) -> bool:
    """Whether `text` may stand behind the colon of a counter."""
    return len(text) <= limits.name_characters_max and _BUCKET.fullmatch(text) is not None


def is_counter(text: str) -> bool:
    """Whether `text` is a name, or a name with one bucket, as in a document's ``counters``."""
    return len(text) <= limits.name_characters_max and _is_counter(text)


def is_stack_name(text: str) -> bool:
    """Whether `text` is a stack counter's name: a name of which at most one part has capitals."""
    if len(text) > limits.name_characters_max or _STACK.fullmatch(text) is None:
        return False
    return text.islower() or sum(part != part.lower() for part in text.split("/")) <= 1


def is_stack(text: str) -> bool:
    """Whether `text` is a key of a document's ``stacks``: a stack name and its frames, one a line."""
    if len(text) > limits.stack_bytes_max or len(text.encode("utf-8", "surrogatepass")) > limits.stack_bytes_max:
        return False
    name = text.partition("\n")[0]
    return is_stack_name(name) and _FRAMES.fullmatch(text, len(name)) is not None


def is_application(text: str) -> bool:
    """Whether `text` is an application's name; it is also a relative path of folders, so no part is ``..``."""
    return len(text) <= limits.application_characters_max and _APPLICATION.fullmatch(text) is not None


def is_program(text: str) -> bool:
    """Whether `text` is a program's name."""
    return len(text) <= limits.program_characters_max and _PROGRAM.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Whether `text` may be a version or a word of a platform: short, printable, not empty."""
    return 0 < len(text) <= limits.label_characters_max and not has_control(text)


def is_field(text: str) -> bool:
    """Whether `text` is a name of an event's field."""
    return len(text) <= limits.name_characters_max and _is_field(text)


def has_control(text: str) -> bool:
    """Whether `text` holds a control character or a lone surrogate."""
    return not text.isprintable() and _CONTROL.search(text) is not None  # Most text is printable, and that is cheaper.


def histogram_buckets(edges: tuple[float, ...]) -> tuple[str, ...]:
    """The buckets of a histogram, from its edges in rising order: ``<=0.1``, ``<=1``, ``>1``; without edges none."""
    if not edges:
        return ()
    return (*(f"<={format(edge, 'g')}" for edge in edges), f">{format(edges[-1], 'g')}")


# A server meets the same few thousand names in every document, so the answers are kept. Callers check the length first:
# what is kept stays small, whoever sends it.
@lru_cache(maxsize=4096)
def _is_name(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _is_counter(text: str) -> bool:
    return _COUNTER.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _is_field(text: str) -> bool:
    return _FIELD.fullmatch(text) is not None
