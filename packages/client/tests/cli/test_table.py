from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tallypost.cli.main import DAYS_MAX
from tallypost.cli.table import chosen, last_days, lines, shortened

TODAY = "2026-11-24"


def program(counters: dict[str, int], stacks: dict[str, int] | None = None, **changes: str) -> dict[str, Any]:
    """What one program counted on a day, as ``tallypost show --json`` has it."""
    facts = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64", **changes}
    return {**facts, "counters": counters, "stacks": stacks or {}}


def facts(**days: list[dict[str, Any]]) -> dict[str, Any]:
    """Days by their date in November, as ``d24``."""
    return {"days": [{"day": f"2026-11-{day[1:]}", "programs": programs} for day, programs in sorted(days.items())]}


def test_table_has_today_and_the_week_by_name_and_bucket() -> None:
    """The last seven UTC days are the week, today included; what is older is not in it."""
    seen = facts(
        d17=[program({"cmd/export": 1000})],
        d18=[program({"cmd/export": 10, "cmd/export:pdf": 4, "cmd/open": 7})],
        d24=[program({"cmd/export": 1, "cmd/export:other": 1})],
    )

    table = lines(seen, today=TODAY)

    assert [
        "name        bucket  today  this week",
        "cmd/export              1         11",
        "            pdf         0          4",
        "            other       1          1",
        "cmd/open                0          7",
    ] == table


def test_table_of_large_numbers_aligns_them_with_separators() -> None:
    """Thousands are separated, and the last digits stand below each other."""
    table = lines(facts(d24=[program({"a": 1234567, "b": 8})]), today=TODAY)

    assert ["a             1,234,567  1,234,567", "b                     8          8"] == table[1:]


def test_table_of_a_histogram_has_its_buckets_in_the_order_of_their_edges() -> None:
    """Edges are numbers, not words, and a bucket that was empty these days stands there as 0."""
    counters = {"s:<=0.1": 5, "s:<=1": 2, "s:<=10": 3, "s:<=1e+06": 4, "s:>1e+06": 1}
    seen = facts(d10=[program({"s:<=2": 9})], d24=[program(dict(sorted(counters.items(), reverse=True)))])

    table = lines(seen, today=TODAY)

    assert ["<=0.1", "<=1", "<=2", "<=10", "<=1e+06", ">1e+06"] == [line.split()[-3] for line in table[1:]]
    assert "      <=2          0          0" == table[3]
    assert table[1].startswith("s ")


def test_table_has_frames_of_a_stack_below_its_name_the_commonest_way_first() -> None:
    """A way is a row with its frames indented; what came from elsewhere says so."""
    seen = facts(
        d24=[
            program(
                {"cmd": 1},
                {"crash/KeyError\nmytool.a:f:+1": 1, "crash/KeyError\nmytool.b:g:+2\nmytool.c:h:+3": 5, "x\n?:?:+0": 1},
            )
        ]
    )

    table = lines(seen, today=TODAY)

    assert [
        "cmd                         1          1",
        "crash/KeyError              5          5",
        "  mytool.b:g:+2",
        "  mytool.c:h:+3",
        "crash/KeyError              1          1",
        "  mytool.a:f:+1",
        "x                           1          1",
        "  elsewhere",
    ] == table[1:]


def test_table_of_one_program_has_no_heading_and_of_several_one_each() -> None:
    """Programs are told apart by name and version; Pythons and systems are put together."""
    one = facts(d23=[program({"a": 1}), program({"a": 2}, python="3.13")])
    several = facts(d22=[program({"a": 1}, version="1.2.2")], d24=[program({"a": 2}), program({"b": 3}, program="gui")])

    assert ["name  bucket  today  this week", "a                 0          3"] == lines(one, today=TODAY)
    assert [
        "gui 1.2.3",
        "name  bucket  today  this week",
        "b                 3          3",
        "",
        "mytool 1.2.2",
        "name  bucket  today  this week",
        "a                 0          1",
        "",
        "mytool 1.2.3",
        "name  bucket  today  this week",
        "a                 2          2",
    ] == lines(several, today=TODAY)


def test_table_of_a_few_days_has_a_column_each_and_their_sum() -> None:
    """Up to seven days, the oldest first."""
    seen = facts(d22=[program({"a": 1})], d23=[program({"a": 2})], d24=[program({"a": 4})])

    table = lines(seen, today=TODAY, days=3)

    assert ["name  bucket  11-22  11-23  today  3 days", "a                 1      2      4       7"] == table


def test_table_of_one_day_has_no_sum_and_of_many_days_no_columns_but_today() -> None:
    """What would be said twice is said once; what would not fit is summed."""
    seen = facts(d01=[program({"a": 1})], d24=[program({"a": 4})])

    assert ["name  bucket  today", "a                 4"] == lines(seen, today=TODAY, days=1)
    assert ["name  bucket  today  30 days", "a                 4        5"] == lines(seen, today=TODAY, days=30)


def test_table_of_nothing_in_these_days_is_empty() -> None:
    """No heading without a row; a day that is yet to come is not in the window either."""
    assert [] == lines(facts(), today=TODAY)
    assert [] == lines(facts(d10=[program({"a": 1})], d30=[program({"a": 1})]), today=TODAY)


@pytest.mark.parametrize("width", [40, 60, 80, 132])
@pytest.mark.parametrize("days", [None, 1, 3, 7, 400])
def test_table_fits_a_width(width: int, days: int | None) -> None:
    """Names lose their middle, frames too; the numbers stay whole."""
    long = "part/" * 30 + "end"
    counters = {long: 1, f"{long}:{'bucket' * 4}": 12_345, "cmd/export": 3}
    seen = facts(d23=[program(counters, {f"crash/KeyError\n{'module.' * 20}f:+1": 1})])

    table = lines(seen, today="2026-11-23", days=days, width=width)

    assert all(len(line) <= width for line in table)
    assert any("12,345" in line for line in table)
    assert any(line.startswith("part/") and "…" in line for line in table)


def test_table_that_is_too_narrow_for_its_days_has_fewer_of_them() -> None:
    """Older days lose their columns; today and the sum stay."""
    seen = facts(d24=[program({"cmd/export": 123})])

    table = lines(seen, today=TODAY, days=7, width=50)

    assert ["name", "bucket", "11-22", "11-23", "today", "7", "days"] == table[0].split()
    assert ["cmd/export", "0", "0", "123", "123"] == table[1].split()


def test_table_of_a_file_that_somebody_wrote_obeys_nothing() -> None:
    """Letters that a terminal would act on are shown as question marks."""
    seen = facts(d24=[program({"a\x1b[2J": 1}, version="1\r2"), program({"b": 1})])

    assert "\x1b" not in "".join(lines(seen, today=TODAY))
    assert "mytool 1?2" in lines(seen, today=TODAY)


def test_chosen_keeps_the_shape_and_drops_what_was_not_asked_for() -> None:
    """By a part of the name, bucket and frames included, and by day."""
    seen = facts(
        d22=[program({"cmd/export": 1, "cmd/open": 2})],
        d23=[program({"cmd/open": 3})],
        d24=[program({"cmd/export:pdf": 4}, {"crash/export\nm:f:+1": 1})],
    )

    kept = chosen(seen, days=["2026-11-23", "2026-11-24"], name="export")

    assert seen == chosen(seen)
    assert facts(d24=[program({"cmd/export:pdf": 4}, {"crash/export\nm:f:+1": 1})]) == kept


def test_last_days_go_over_the_end_of_a_month() -> None:
    """They are calendar days, today the last."""
    assert ["2026-02-28", "2026-03-01"] == last_days("2026-03-01", 2)


@pytest.mark.parametrize(
    ("width", "text"), [(None, "abcdefgh"), (8, "abcdefgh"), (7, "abc…fgh"), (6, "abc…gh"), (1, "…")]
)
def test_shortened_loses_its_middle(width: int | None, text: str) -> None:
    """Begin and end tell most."""
    assert text == shortened("abcdefgh", width)


def test_page_of_the_commands_shows_tables_as_they_are() -> None:
    """Both tables of the page are what these counts come to."""
    page = (Path(__file__).resolve().parents[4] / "docs" / "client" / "commands.md").read_text("utf-8")
    seconds = [(1, 0, 0), (4, 8, 1), (2, 10, 0)]
    days = [
        program({f"export/seconds:{bucket}": n for bucket, n in zip(("<=0.1", "<=1", ">1"), counts, strict=True) if n})
        for counts in seconds
    ]
    three = facts(d22=[days[0]], d23=[days[1]], d24=[days[2]])
    today = {"cmd/export": 12, "cmd/export:html": 9, "cmd/export:pdf": 3}
    before = {"cmd/export": 28, "cmd/export:html": 22, "cmd/export:pdf": 6}
    histogram = {"export/seconds:<=0.1": 9, "export/seconds:<=1": 16, "export/seconds:>1": 3}
    stack = {"crash/KeyError\nmytool.cli:main:+12\nmytool.io:load:+4": 1}
    week = facts(d20=[program({**before, **histogram}, stack)], d24=[program({**today, **days[2]["counters"]})])

    assert "\n".join(["$ tallypost show", *lines(week, today=TODAY), "```"]) in page
    assert "\n".join(["$ tallypost show --days 3 export/", *lines(three, today=TODAY, days=3), "```"]) in page
    assert f"{DAYS_MAX:,} at most" in page
