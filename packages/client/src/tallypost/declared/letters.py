"""The letters of a declaration's texts, before they are written into a page.

Takes   a text that anybody wrote.
Gives   it without what a reader does not see and a program obeys.
Never   escapes: that is the page's own kind to do (``html.py``, ``markdown.py``).
"""

from __future__ import annotations

import re

from tallypost_schema import names

_MARK = "\N{REPLACEMENT CHARACTER}"
# Ends of lines that are no control characters, and what turns the order of the letters that follow.
_OBEYED = frozenset(map(chr, (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_NO_LETTERS = range(0xFDD0, 0xFDF0)


def shown(text: str) -> str:
    """The same letters; those that are not to be seen, a line feed among them, as a mark."""
    return "".join(_MARK if _is_obeyed(letter) else letter for letter in text)


def one_line(text: str) -> str:
    """Any run of white space as one space."""
    return shown(re.sub(r"\s+", " ", text))


def _is_obeyed(letter: str) -> bool:
    code = ord(letter)
    return names.has_control(letter) or letter in _OBEYED or code & 0xFFFE == 0xFFFE or code in _NO_LETTERS
