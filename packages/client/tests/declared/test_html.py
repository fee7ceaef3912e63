from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallypost.declared.html import html
from tallypost.declared.letters import one_line, shown
from tallypost.declared.page import Code, Example, Link, Page, Paragraph, Points, Row, Section, Table, page
from tallypost_schema import declaration
from tallypost_schema.declaration import Declaration

from .conftest import ROOT, TODAY, repeatable

Declared = Callable[..., Declaration]
FILES = sorted([*ROOT.glob("examples/**/telemetry.toml"), *ROOT.glob("tests/**/*.toml")])
EMPTY = ("meta", "br", "img", "input", "link", "hr")


class Reader(HTMLParser):
    """Reads a page as a browser would: its tags in order, each with its attributes and the text directly in it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert [] == self._open, "a tag stays open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs))
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in EMPTY:
            self._open.append(len(self.tags) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.tags[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    def of(self, tag: str) -> list[str]:
        """The texts of all tags of a name."""
        return [text for (name, _), text in zip(self.tags, self.texts, strict=True) if name == tag]


def page_of(why: str) -> Page:
    """A page that says `why` in each place in which a text can stand."""
    blocks = (
        Paragraph((why, Code(why), Link(why, "https://example.org"))),
        Points(((why,),)),
        Table(why, (why,), (Row(((why,), (why,)), over=True),)),
        Example(why),
    )
    return Page(why, why, (Section(why, blocks),))


@repeatable
@given(st.text() | st.text("<>&\"'/=!-[]{}`|;#x\n abct"))
@example("</td></tr></table><script>alert(1)</script>")
@example('"><img src=x onerror=alert(1)>')
@example("<!-- --></style></title><![CDATA[")
@example("&lt;b&gt; &amp; &#60;")
def test_html_of_any_text_keeps_it_in_its_place(why: str) -> None:
    """The tags are those of a page that says a plain word, and each place holds the text, letter by letter."""
    plain, read = Reader(html(page_of("word"))), Reader(html(page_of(why)))

    assert [tag for tag, _ in plain.tags] == [tag for tag, _ in read.tags]
    for tag in ("td", "li", "caption", "h1", "h2", "title", "a"):
        assert [text.replace("word", one_line(why)) for text in plain.of(tag)] == read.of(tag), tag
    in_table, example_ = [shown(why)], "\n".join(map(shown, why.split("\n")))
    assert [*in_table, example_] == read.of("code")
    (described,) = [attributes["content"] for _, attributes in read.tags if attributes.get("name") == "description"]
    assert one_line(why) == described
    assert one_line(why) in [attributes.get("aria-label") for _, attributes in read.tags]


@repeatable
@given(st.text(min_size=1).filter(str.strip))
@example("</td></tr></table><script>alert(1)</script>")
def test_html_of_a_declaration_with_any_why_keeps_it_in_its_cell(why: str) -> None:
    """From the file to the page, and none of the other cells changes."""
    spelled = "".join(f"\\U{ord(letter):08x}" if not 0xD800 <= ord(letter) < 0xE000 else "?" for letter in why)
    text = f'application = "a"\n[counters.run]\nwhy = "{spelled}"\nowner = "{spelled}"\nexpires = "never"\n'
    declared = declaration.parse(text)

    cells = Reader(html(page(declared, today=TODAY))).of("td")

    expected = one_line(declared.counters["run"].why)
    assert [expected, "a number", expected, "no end is set", "in all reports"] == cells[:5]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_html_of_a_real_declaration_is_a_whole_page(path: object) -> None:
    """One file that loads nothing and runs nothing; its headings, tables and language are told to those who listen."""
    text = html(page(declaration.parse(path.read_text("utf-8")), today=TODAY))  # type: ignore[attr-defined]  # Whatever the fixture is, it is a path.

    read = Reader(text)

    tags = [tag for tag, _ in read.tags]
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(tags)
    assert not [key for _, attributes in read.tags for key in attributes if key.startswith("on") or key == "src"]
    assert "url(" not in text
    assert "@import" not in text
    assert ["h1", "h2"] == sorted({tag for tag in tags if re.fullmatch(r"h\d", tag)})
    assert (1, 1) == (tags.count("h1"), tags.count("main"))
    assert {"row", "col"} == {str(attributes.get("scope")) for tag, attributes in read.tags if tag == "th"}
    assert tags.count("table") == tags.count("caption") >= 1
    names = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert {attributes["aria-labelledby"] for _, attributes in read.tags if "aria-labelledby" in attributes} == set(
        names
    )
    assert text.isprintable() or text.replace("\n", "").isprintable()


def test_html_of_a_row_that_is_over_says_so_to_the_style_too(declared: Declared) -> None:
    """In words for all, in a shade for those who see it."""
    text = html(page(declared(("counters", "run", "rate = 1")), today=TODAY))

    assert 'class="over"' not in text
    assert 'class="over"' in html(page_of("why"))


@pytest.mark.parametrize(("scheme", "at"), [("light", 0), ("dark", 1), ("print", 2)])
def test_html_in_each_scheme_has_ink_that_can_be_read(scheme: str, at: int) -> None:
    """Text, soft text and links stand out from the paper, and from the ground of code, by 4.5 to 1."""
    colours = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", rule))
        for rule in re.findall(r":root \{(.*?)\}", html(page_of("why")), re.DOTALL)
    ][at]

    for ink in ("ink", "soft", "link"):
        for ground in ("paper", "code"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (scheme, ink, ground)


def contrast(one: str, other: str) -> float:
    """The ratio of two colours, as the Web Content Accessibility Guidelines have it."""
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
