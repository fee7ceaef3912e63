from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost.events.declared_events import misfit, parsed, plain, spelled, table_of
from tallypost_schema import declaration as declarations
from tallypost_schema import names

repeatable = settings(deadline=None, derandomize=True, database=None)
TABLE: dict[str, dict[str, Any]] = {
    "export": {"format": ("pdf", "html"), "pages": "count", "took": "seconds", "size": "bytes", "again": "flag"}
}
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda word: not names.has_control(word)
)


class Liar(str):
    """A string that says it equals whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("pdf")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"format": "pdf"},
        {"format": "html", "pages": 3, "took": 0.5, "size": 0, "again": True},
        {"pages": 2**53 - 1, "took": 3},
        {"format": None, "pages": None},
    ],
)
def test_misfit_of_what_is_declared_is_none(fields: dict[str, object]) -> None:
    """Words of the set, numbers of the kind; a field may be left out, and None leaves it out."""
    assert misfit(TABLE, "export", fields) is None


@pytest.mark.parametrize(
    ("name", "fields", "what"),
    [
        ("exported", {}, "event"),
        (7, {}, "event"),
        ("export", {"path": "/home/me"}, "field of export"),
        ("export", {"format": "docx"}, "field format of export"),
        ("export", {"format": 1}, "field format of export"),
        ("export", {"pages": -1}, "field pages of export"),
        ("export", {"pages": 1.5}, "field pages of export"),
        ("export", {"pages": True}, "field pages of export"),
        ("export", {"pages": 2**53}, "field pages of export"),
        ("export", {"took": float("nan")}, "field took of export"),
        ("export", {"took": float("inf")}, "field took of export"),
        ("export", {"size": "12"}, "field size of export"),
        ("export", {"again": 1}, "field again of export"),
    ],
)
def test_misfit_says_what_was_given_and_what_is_allowed(name: object, fields: dict[str, object], what: str) -> None:
    """What is not declared, and what is of another kind, does not fit."""
    wrong = misfit(TABLE, name, fields)

    assert wrong is not None
    assert what == wrong[0]
    assert wrong[2]


def test_plain_gives_the_declared_word_whatever_the_value_says_of_itself() -> None:
    """A string cannot get through by claiming to be a declared one."""
    fields = plain(TABLE, "export", {"format": Liar("secret")})

    assert ["pdf"] == list(fields.values())
    assert str is type(fields["format"])


def test_plain_gives_plain_numbers() -> None:
    """What a number's class may print is the class's own affair."""

    class Whole(int):
        def __repr__(self) -> str:
            return "secret"

    class Real(float):
        def __repr__(self) -> str:
            return "secret"

    fields = plain(TABLE, "export", {"pages": Whole(3), "took": Real(0.5), "size": None})

    assert "{'pages': 3, 'took': 0.5}" == repr(fields)


@repeatable
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c-d"]), st.one_of(st.sampled_from(["count", "flag"]), st.lists(words)))
)
def test_table_that_was_spelled_is_read_again(given_fields: dict[str, Any]) -> None:
    """The small file gives back the table that it was made from, whatever the words are."""
    fields = {key: tuple(one) if isinstance(one, list) else one for key, one in given_fields.items()}
    table = {"export": fields, "opened": {}}

    assert table == parsed(spelled(table))


@pytest.mark.parametrize("content", [b"export\tpages=much\n", b"\xff\n", b"export\tpages\n", b"export\tformat=,%zz\n"])
def test_table_of_what_is_no_table_raises_value_error(content: bytes) -> None:
    """Damage is told from a table, so that the declaration is read instead."""
    with pytest.raises(ValueError, match=r"."):
        parsed(content)


def test_table_of_a_declaration_has_its_events_alone() -> None:
    """Counters are no events."""
    declared = declarations.parse(
        """
        application = "a"
        [counters.exports]
        why = "-"
        owner = "-"
        expires = "never"
        [events.export]
        why = "-"
        owner = "-"
        expires = "never"
        fields = { format = ["pdf"], pages = "count" }
        """
    )

    assert {"export": {"format": ("pdf",), "pages": "count"}} == table_of(declared)
