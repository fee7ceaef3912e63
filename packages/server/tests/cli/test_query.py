"""The command `query`: three forms of an answer, and what is said when there is none."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
ROWS = """SELECT * FROM (VALUES
  ('a', 1, 1.50::DECIMAL(5, 2), DATE '2026-11-24', TIMESTAMPTZ '2026-11-24 10:00:00.123+00',
   map {'x': [1]}, {'s': true}, NULL),
  (E'b\\nc', 22, 3, NULL, NULL, map {}, NULL, 'nan'::DOUBLE)
) AS _(text, number, exact, day, moment, entries, fields, nothing)"""


def test_answer_is_a_table(say: Say) -> None:
    """Columns stand below their names, numbers on the right, each row in one line."""
    status, out, err = say("query", "SELECT * EXCLUDE (exact, entries, nothing) FROM (" + ROWS + ")")

    assert (0, "") == (status, err)
    assert [
        "text  number  day         moment                       fields",
        'a          1  2026-11-24  2026-11-24T10:00:00.123000Z  {"s":true}',
        "b\\nc      22",
    ] == out.splitlines()


def test_answer_in_json_is_an_object_a_line(say: Say) -> None:
    """Maps and structs are objects, days and moments as documents spell them."""
    status, out, err = say("query", "--json", ROWS)

    first, second = map(json.loads, out.splitlines())
    assert (0, "") == (status, err)
    assert {
        "text": "a",
        "number": 1,
        "exact": 1.5,
        "day": "2026-11-24",
        "moment": "2026-11-24T10:00:00.123000Z",
        "entries": {"x": [1]},
        "fields": {"s": True},
        "nothing": None,
    } == first
    assert ("b\nc", {}, None) == (second["text"], second["entries"], second["nothing"])


def test_answer_in_csv_has_a_head(say: Say) -> None:
    """What is nested stands as JSON, a null as nothing."""
    status, out, err = say("query", "--csv", "SELECT text, number, entries, day FROM (" + ROWS + ")")

    assert (0, "") == (status, err)
    assert 'text,number,entries,day\na,1,"{""x"":[1]}",2026-11-24\n"b\nc",22,{},\n' == out


def test_answer_without_rows_has_its_columns(say: Say) -> None:
    """An archive into which nobody has written is empty, and asking makes none."""
    status, out, err = say("query", "SELECT app, day FROM reports")

    assert (0, "app  day\n", "") == (status, out, err)


def test_asking_makes_nothing(say: Say, data: Path) -> None:
    """The folder is as it was."""
    before = sorted(data.rglob("*"))

    say("query", "FROM sessions")

    assert before == sorted(data.rglob("*"))


def test_statement_that_is_none_is_1_with_the_reason(say: Say) -> None:
    """DuckDB's own words say what is wrong."""
    status, out, err = say("query", "SELECT nothing FROM reports")

    assert (1, "") == (status, out)
    assert 'Referenced column "nothing" not found' in err


def test_two_forms_at_once_are_wrong_use(say: Say) -> None:
    """There is one answer."""
    assert 2 == say("query", "--csv", "--json", "SELECT 1")[0]


def test_archive_that_cannot_be_there_is_told(say: Say, data: Path) -> None:
    """A mistyped folder is no empty archive."""
    status, out, err = say("query", "--data", str(data / "x"), "SELECT 1")

    assert (1, "") == (status, out)
    assert "is not there" in err


def test_without_duckdb_the_command_names_what_to_install(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that has it stands in the words."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "duckdb" else found(name))

    status, out, err = say("query", "SELECT 1")

    assert (1, "") == (status, out)
    assert "pip install 'tallypost-server[query]'" in err
