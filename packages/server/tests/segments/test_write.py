"""What a manifest tells of lines."""

from __future__ import annotations

import msgspec
import pytest

from tallypost_server.segments.write import Told

FIRST, LAST = b'{"v":1,"received":"2026-11-24T10:00:00.000Z"}\n', b'{"v":1,"received":"2026-11-24T10:00:01.000Z"}\n'


def test_told_of_lines_knows_how_many_and_from_when_to_when() -> None:
    """Lines need not come in the order in which they were received."""
    told = Told()

    told.add(LAST + FIRST)
    told.add(FIRST)

    assert (3, 3 * len(FIRST)) == (told.rows, told.lines_bytes)
    assert ("2026-11-24T10:00:00.000Z", "2026-11-24T10:00:01.000Z") == (told.first, told.last)


def test_told_of_lines_that_another_program_spelled_is_the_same() -> None:
    """Whoever wrote a segment anew may have other space, or keys in another order."""
    told = Told()

    told.add(FIRST + b'{"received": "2026-11-24T10:00:01.000Z", "v": 1}\n')

    assert (2, "2026-11-24T10:00:00.000Z", "2026-11-24T10:00:01.000Z") == (told.rows, told.first, told.last)


@pytest.mark.parametrize(
    "lines",
    [
        b"{}\n",
        b"rubbish\n",
        b"\n" + FIRST,
        FIRST + b"\n",
        FIRST + b"\n" + LAST,
        FIRST.replace(b":", b":\n", 1),
        FIRST + LAST[:-5],
        FIRST + LAST[:-5] + b"\n",
        FIRST[:-2] + b"\n",
    ],
    ids=[
        "no moment",
        "no document",
        "an empty line first",
        "an empty line last",
        "an empty line between",
        "one in two lines",
        "a torn line",
        "a torn line and its end",
        "a line without its end",
    ],
)
def test_told_of_what_is_no_document_a_line_adds_nothing(lines: bytes) -> None:
    """What a reader would count otherwise is damage, and nothing of it is told."""
    told = Told()

    with pytest.raises(msgspec.MsgspecError):
        told.add(lines)

    assert (0, 0) == (told.rows, told.lines_bytes)
