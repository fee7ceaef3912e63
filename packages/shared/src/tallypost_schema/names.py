"""The grammar of names: one place, so that what a client accepts a server stores.

Takes   strings.
Gives   yes or no, or the parts of a name.
Never   knows what is declared (``declaration.py``); never imports `re`, which a process that only counts would feel.
"""

from __future__ import annotations

from . import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_DIGITS = "0123456789"
_LOWER = "abcdefghijklmnopqrstuvwxyz" + _DIGITS
_LETTERS = _LOWER + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BUCKET = _LETTERS + "._<>=+-"
_PROGRAM = _LETTERS + "._+-"
# What lies in a state directory: an application of such a name would lie in the middle of its parent's.
_FOLDERS = ("counts", "events", "reports", "uploads", "private", "mode")

NAME_RULE = "words of a-z and 0-9 joined by '-', parts joined by '/', 200 characters at most (cmd/export)"
BUCKET_RULE = "letters, digits and . _ < > = + - (pdf, <=0.1, other)"
STACK_RULE = "a name of which one part may have capitals (crash/KeyError)"
APPLICATION_RULE = (
    "parts of a-z, 0-9, '.', '_' and '-' joined by '/', 100 characters at most, from the third on none that is counts, "
    "events, reports, uploads, private or mode (example.org/mytool)"
)
PROGRAM_RULE = "letters, digits and . _ + -, begun by a letter or digit, 100 characters at most (mytool)"
FIELD_RULE = "a-z, 0-9 and '_', begun by a letter (format)"


def is_name(text: str) -> bool:
    """Whether `text` is a counter's, histogram's or event's name, without bucket."""
    return len(text) <= limits.name_characters_max and _is_path(text, _LOWER)


def is_bucket(text: str) -> bool:
    """Whether `text` may stand behind the colon of a counter."""
    return len(text) <= limits.name_characters_max and _is_of(text, _BUCKET)


def is_counter(text: str) -> bool:
    """Whether `text` is a name, or a name with one bucket, as in a document's ``counters``."""
    if len(text) > limits.name_characters_max:
        return False
    name, colon, bucket = text.partition(":")
    return _is_path(name, _LOWER) and (not colon or _is_of(bucket, _BUCKET))


def is_stack_name(text: str) -> bool:
    """Whether `text` is a stack counter's name: a name of which at most one part has capitals."""
    if len(text) > limits.name_characters_max or not _is_path(text, _LETTERS):
        return False
    return sum(part != part.lower() for part in text.split("/")) <= 1


def is_stack(text: str) -> bool:
    """Whether `text` is a key of a document's ``stacks``: a stack name and its frames, one a line."""
    if len(text) > limits.stack_bytes_max or len(text.encode("utf-8", "surrogatepass")) > limits.stack_bytes_max:
        return False
    name, *frames = text.split("\n")
    return is_stack_name(name) and all(map(_is_frame, frames))


def is_application(text: str) -> bool:
    """Whether `text` is an application's name; it is also a relative path of folders, so no part is ``..``."""
    if len(text) > limits.application_characters_max:
        return False
    parts = text.split("/")
    if any(part in _FOLDERS for part in parts[2:]):
        return False
    return all(_is_of(part, _LOWER + "._-") and part[0] in _LOWER and part[-1] in _LOWER for part in parts)


def is_program(text: str) -> bool:
    """Whether `text` is a program's name; it is also the begin of a file's name, so it is neither hidden nor ``..``."""
    return len(text) <= limits.program_characters_max and _is_of(text, _PROGRAM) and text[0] in _LETTERS


def is_label(text: str) -> bool:
    """Whether `text` may be a version or a word of a platform: short, printable, not empty."""
    return 0 < len(text) <= limits.label_characters_max and not has_control(text)


def is_within(module: str, packages: Iterable[str]) -> bool:
    """Whether a module is one of `packages`, or in one of them."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def is_field(text: str) -> bool:
    """Whether `text` is a name of an event's field."""
    return len(text) <= limits.name_characters_max and _is_of(text, _LOWER + "_") and text[0] not in _DIGITS + "_"


def has_control(text: str) -> bool:
    """Whether `text` holds a control character or a lone surrogate."""
    if text.isprintable():  # Most text is, and then there is nothing to look for.
        return False
    return any(letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" for letter in text)


def histogram_buckets(edges: tuple[float, ...]) -> tuple[str, ...]:
    """The buckets of a histogram, from its edges in rising order: ``<=0.1``, ``<=1``, ``>1``; without edges none."""
    if not edges:
        return ()
    return (*(f"<={format(edge, 'g')}" for edge in edges), f">{format(edges[-1], 'g')}")


def _is_of(text: str, letters: str) -> bool:
    # What is left after taking such letters from both ends begins with another one.
    return text != "" and not text.strip(letters)


def _is_path(text: str, letters: str) -> bool:
    return all(_is_of(word, letters) for part in text.split("/") for word in part.split("-"))


def _is_frame(text: str) -> bool:
    module, _, rest = text.partition(":")
    function, _, line = rest.partition(":")
    return module != "" and function != "" and line[:1] == "+" and _is_of(line[1:], _DIGITS) and not has_control(text)
