"""The page for users as one HTML file: read without scripts, in light and dark, on paper, and aloud.

Takes   a page.
Gives   a document in which every text is escaped.
Never   loads anything, from anywhere: a policy in the page forbids it to the browser, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .letters import one_line, shown
from .page import Block, Code, Example, Link, Page, Paragraph, Points, Row, Section, Table, Text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """\
:root {
  color-scheme: light dark;
  --ink: #1b1b1f; --paper: #ffffff; --soft: #5a5a63; --line: #c9c9d1; --code: #f1f1f4; --link: #1a4fa3;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e7ec; --paper: #17171b; --soft: #a9a9b5; --line: #44444f; --code: #26262d; --link: #9ec1ff; }
}
body {
  margin: 0 auto; max-width: 62rem; padding: 1.5rem;
  font: 1rem/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
}
h1 { font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; }
a { color: var(--link); }
code, pre { font-family: ui-monospace, monospace; background: var(--code); border-radius: 0.25em; }
code { font-size: 0.92em; padding: 0.08em 0.3em; overflow-wrap: anywhere; white-space: break-spaces; }
pre { padding: 0.8rem; overflow: auto; max-height: 32rem; }
pre code { padding: 0; white-space: pre; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td {
  text-align: left; vertical-align: top; padding: 0.4rem 0.6rem;
  border-top: 1px solid var(--line); overflow-wrap: break-word;
}
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; }
tr.over { color: var(--soft); }
@media print {
  :root {
    color-scheme: light;
    --ink: #000000; --paper: #ffffff; --soft: #333333; --line: #999999; --code: #ffffff; --link: #000000;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  pre { max-height: none; overflow: visible; border: 1px solid var(--line); }
  pre code { white-space: pre-wrap; }
  .wide { overflow: visible; }
  tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""


def html(page: Page) -> str:
    """The whole file."""
    return "\n".join(_lines(page)) + "\n"


def _lines(page: Page) -> Iterator[str]:
    title = _escaped(page.title)
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta name="description" content="{_escaped(page.about)}">'
    yield f"<title>{title}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>"
    for number, section in enumerate(page.sections, 1):
        yield from _section(section, f"section-{number}")
    yield "</main>\n</body>\n</html>"


def _section(section: Section, name: str) -> Iterator[str]:
    yield f'<section aria-labelledby="{name}">\n<h2 id="{name}">{_escaped(section.title)}</h2>'
    for block in section.blocks:
        yield from _block(block)
    yield "</section>"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield f"<p>{_text(block.text)}</p>"
    elif isinstance(block, Points):
        yield "<ul>"
        yield from (f"<li>{_text(point)}</li>" for point in block.points)
        yield "</ul>"
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Example):
        # What scrolls must be within reach of the keyboard.
        lines = "\n".join(map(_escaped_line, block.text.split("\n")))
        yield f'<pre tabindex="0" role="region" aria-label="Example"><code>{lines}</code></pre>'


def _table(table: Table) -> Iterator[str]:
    caption = _escaped(table.caption)
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{caption}">\n<table>\n<caption>{caption}</caption>'
    heads = "".join(f'<th scope="col">{_escaped(head)}</th>' for head in table.heads)
    yield f"<thead>\n<tr>{heads}</tr>\n</thead>\n<tbody>"
    yield from map(_row, table.rows)
    yield "</tbody>\n</table>\n</div>"


def _row(row: Row) -> str:
    head, *cells = map(_text, row.cells)
    kind = ' class="over"' if row.over else ""
    return f'<tr{kind}><th scope="row">{head}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _text(text: Text) -> str:
    return "".join(map(_piece, text))


def _piece(piece: str | Code | Link) -> str:
    if isinstance(piece, Code):
        return f"<code>{_escaped_line(piece.text)}</code>"
    if isinstance(piece, Link):
        return f'<a href="{escape(piece.address)}">{_escaped(piece.text)}</a>'
    return _escaped(piece)


def _escaped(text: str) -> str:
    return escape(one_line(text))


def _escaped_line(text: str) -> str:
    return escape(shown(text))
