from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tallypost.declared.letters import one_line, shown
from tallypost.declared.markdown import markdown
from tallypost.declared.page import Code, Example, Link, Page, Paragraph, Points, Row, Section, Table, page
from tallypost_schema import declaration

from .conftest import ROOT, TODAY, repeatable

FILES = sorted([*ROOT.glob("examples/**/telemetry.toml"), *ROOT.glob("tests/**/*.toml")])


def read(text: str) -> list[Token]:
    """The page as a renderer of GitHub's kind of tables reads it, HTML let through."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from [token] if token.children is None else flat(token.children)


def structure(tokens: list[Token]) -> list[str]:
    """What kinds of things there are; a text may come in pieces, and code may be written without its marks."""
    skipped = ("text", "text_special", "code_inline")
    return [token.type for token in flat(tokens) if token.type not in skipped]


def texts(tokens: list[Token]) -> list[str]:
    """The text of each block: paragraph, point, heading, cell."""
    return [spaced("".join(part.content for part in flat([token]))) for token in tokens if token.type == "inline"]


def spaced(text: str) -> str:
    """One space for many, and none at the ends, as on a page."""
    return " ".join(text.split())


def page_of(why: str) -> Page:
    """A page that says `why` in each place in which a text can stand."""
    blocks = (
        Paragraph(("so: ", why)),
        Paragraph(("so: ", Code(why))),
        Points((("so: ", Link(why, "https://example.org/a_b?c=(d)&copy=1")),)),
        Table(why, ("so", "and so"), (Row(((Code(why),), (why,))), Row(((why,), ("so",))))),
        Example(why),
    )
    return Page(f"So: {why}", why, (Section(f"So: {why}", blocks),))


@repeatable
@given(st.text("|\\`*_[]<>&;#!~{}()-+=: \nabct", min_size=1) | st.text(min_size=1))
@example("#")
@example("|")
@example("\\|")
@example("\\\\|")
@example("a | b | c")
@example("`|`")
@example("</td><script>alert(1)</script>")
@example("[x](javascript:alert(1)) ![x](y)")
@example("a\n\n# b\n- c\n```")
@example("&lt;b&gt; &#124;")
@example("~~x~~ **y** __z__")
@example("```\nfence\n````")
def test_markdown_of_any_text_keeps_it_in_its_place(why: str) -> None:
    """Blocks, cells, links and tags are those of a page that says a plain word, and each place holds the text."""
    plain, made = read(markdown(page_of("word"))), read(markdown(page_of(why)))

    assert structure(plain) == structure(made)
    for expected, found in zip(texts(plain), texts(made), strict=True):
        assert found in [spaced(expected.replace("word", text)) for text in (one_line(why), shown(why))]
    (example_,) = [token.content for token in made if token.type == "fence"]
    assert "\n".join(map(shown, why.split("\n"))) + "\n" == example_


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_markdown_of_a_real_declaration_has_its_tables(path: object) -> None:
    """Each name has a row with six cells, no tag is in it, and no line but those of a list or a table is long in it."""
    declared = declaration.parse(path.read_text("utf-8"))  # type: ignore[attr-defined]  # Whatever the fixture is, it is a path.

    tokens = read(markdown(page(declared, today=TODAY)))

    inline = [token.content for token in tokens if token.type == "inline"]
    assert not {"html_block", "html_inline"} & {token.type for token in flat(tokens)}
    for entries in (declared.counters, declared.histograms, declared.stacks, declared.events):
        assert all(f"`{name}`" in inline for name in entries)
    rows = sum(token.type == "tr_open" for token in tokens)
    assert (
        rows
        == sum(
            len(entries) + bool(entries)
            for entries in (declared.counters, declared.histograms, declared.stacks, declared.events)
        )
        + 1
        + 4
    )  # The library's own.


def test_markdown_of_a_link_leads_where_it_says() -> None:
    """Letters that mean something in Markdown, or in HTML, stay those of the address."""
    (link,) = [token for token in flat(read(markdown(page_of("word")))) if token.type == "link_open"]

    assert "https://example.org/a_b?c=(d)&copy=1" == link.attrs["href"]


def test_markdown_of_plain_words_is_plain() -> None:
    """Who reads the file itself is not troubled by escapes."""
    text = markdown(page_of("Which formats (pdf, html) are worth keeping? 5 - 3 = 2."))

    assert "so: Which formats (pdf, html) are worth keeping? 5 - 3 = 2.\n" in text
