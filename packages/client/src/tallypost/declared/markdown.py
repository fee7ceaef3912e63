"""The page for users as Markdown, with tables as GitHub has them.

Takes   a page.
Gives   a document in which every text is escaped: nothing in it becomes a mark-up, a tag, a cell or a line of its own.
Never   holds HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .letters import one_line, shown
from .page import Block, Code, Example, Link, Page, Paragraph, Points, Row, Table, Text

# An entity means the letter wherever Markdown is read, and never structure: a backslash does not help in each of them.
_ESCAPES = str.maketrans(
    {letter: f"&#{ord(letter)};" for letter in "&<>|\\`{}$"} | {letter: f"\\{letter}" for letter in "*_[]~#"}
)


def markdown(page: Page) -> str:
    """The whole file."""
    return "\n\n".join(_blocks(page)) + "\n"


def _blocks(page: Page) -> Iterator[str]:
    yield f"# {_escaped(page.title)}"
    for section in page.sections:
        yield f"## {_escaped(section.title)}"
        for block in section.blocks:
            yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield _text(block.text)
    elif isinstance(block, Points):
        yield "\n".join(f"- {_text(point)}" for point in block.points)
    elif isinstance(block, Table):
        yield f"### {_escaped(block.caption)}"
        heads = _row(tuple(map(_escaped, block.heads)))
        yield "\n".join((heads, _row(("---",) * len(block.heads)), *map(_cells, block.rows)))
    elif isinstance(block, Example):
        fence = "`" * (max(map(len, re.findall("`+", block.text)), default=0) + 3)
        lines = "\n".join(map(shown, block.text.split("\n")))
        yield f"{fence}json\n{lines}\n{fence}"


def _cells(row: Row) -> str:
    return _row(tuple(map(_text, row.cells)))


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: Text) -> str:
    return "".join(map(_piece, text))


def _piece(piece: str | Code | Link) -> str:
    if isinstance(piece, Code):
        text = shown(piece.text)
        # Between backticks nothing can be escaped: what would end them, or a cell, is written without.
        is_plain = text.strip() == text != "" and not set("`|") & set(text)
        return f"`{text}`" if is_plain else text.translate(_ESCAPES)
    if isinstance(piece, Link):
        return f"[{_escaped(piece.text)}](<{piece.address.replace('&', '&amp;')}>)"
    return _escaped(piece)


def _escaped(text: str) -> str:
    return one_line(text).translate(_ESCAPES)
