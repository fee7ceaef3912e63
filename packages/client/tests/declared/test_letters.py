from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tallypost.declared.letters import one_line, shown

from .conftest import repeatable

MARK = "\N{REPLACEMENT CHARACTER}"


def test_letters_of_any_script_stay() -> None:
    """Joiners too, without which some scripts and pictures fall apart."""
    text = "Größe · 形式 · می‌خواهم · 👩‍💻 · <b>&'\"`|"

    assert text == one_line(text) == shown(text)


def test_letters_that_are_obeyed_become_a_mark() -> None:
    """Control characters, turns of the order of writing, and what is no letter."""
    assert MARK * 7 == shown("\x00\x1b\x7f\u202e\u2066\ufffe\ud800")
    assert f"a{MARK}b" == shown("a\nb")


@repeatable
@given(st.text())
def test_one_line_is_one_line_for_every_reader(text: str) -> None:
    """Runs of white space are one space, and nothing that ends a line or turns it is left."""
    line = one_line(text)

    assert len(line.splitlines()) <= 1
    assert "  " not in line
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in line)
    assert not any(unicodedata.bidirectional(letter) in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI") for letter in line)
    line.encode()
