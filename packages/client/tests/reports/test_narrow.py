from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost.reports.narrow import narrow
from tallypost_schema.declaration import Declaration, parse
from tallypost_schema.upload_config import UploadConfig

TODAY = datetime.date(2026, 11, 24)
TEXT = """
application = "example.org/mytool"
contact = "privacy@example.org"
consent_version = 1
[counters."cmd/export"]
why = "w"
owner = "o"
expires = "never"
buckets = ["pdf", "other"]
[counters."cmd/plain"]
why = "w"
owner = "o"
expires = "never"
buckets = ["yes"]
[counters."cmd/rated"]
why = "w"
owner = "o"
expires = "never"
rate = 0.5
[counters."cmd/ended"]
why = "w"
owner = "o"
expires = 2026-11-24
[histograms."export/seconds"]
why = "w"
owner = "o"
expires = "never"
edges = [0.1, 1]
[stacks."crash/KeyError"]
why = "w"
owner = "o"
expires = "never"
packages = ["mytool"]
depth = 2
"""


@pytest.fixture(scope="module")
def declared() -> Declaration:
    """A declaration with one of each."""
    return parse(TEXT)


def config(**counters: float) -> UploadConfig:
    """An upload config that asks for these counters alone."""
    return UploadConfig("1", {name.replace("_", "/"): rate for name, rate in counters.items()}, {}, {}, {})


def leaving(
    counts: dict[str, int], declared: Declaration | None, asked: UploadConfig | None = None, x: float = 0.3
) -> dict[str, int]:
    """What of `counts` leaves on the day of these tests."""
    return narrow(counts, declaration=declared, config=asked, x=x, today=TODAY)


def test_declared_names_leave(declared: Declaration) -> None:
    """A declared counter, bucket, histogram bucket and stack leave as they were counted."""
    counts = {
        "cmd/export": 3,
        "cmd/export:pdf": 2,
        "export/seconds:<=0.1": 1,
        "export/seconds:>1": 1,
        "crash/KeyError\nmytool.cli:main:+12": 1,
    }

    assert counts == leaving(counts, declared)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"\A[a-z]{1,6}(/[a-z]{1,6}){0,2}(:[A-Za-z0-9.<=>]{1,8})?\Z"), st.integers(1, 100), max_size=8
    )
)
def test_what_is_not_declared_never_leaves(counts: dict[str, int]) -> None:
    """Of random names nothing leaves but what the declaration names, and nothing of it grows."""
    declared = parse(TEXT)

    left = leaving({**counts, "cmd/export": 5}, declared)

    assert set(left) <= declared.counter_names
    assert 5 == left["cmd/export"]


def test_frames_of_other_packages_and_over_the_depth_stay(declared: Declaration) -> None:
    """A stack leaves with the innermost frames of the declared packages alone; what becomes alike is added up."""
    counts = {
        "crash/KeyError\nmytool.a:f:+1\nmytool.b:g:+2\nother.c:h:+3\nmytool.d:i:+4": 1,
        "crash/KeyError\nmytool.b:g:+2\nmytool.d:i:+4": 2,
        "crash/KeyError\nother:f:+1": 4,
        "crash/ValueError\nmytool.a:f:+1": 8,
    }

    assert {"crash/KeyError\nmytool.b:g:+2\nmytool.d:i:+4": 3, "crash/KeyError\n?:?:+0": 4} == leaving(counts, declared)


def test_bucket_that_is_not_declared_leaves_as_other_if_that_is_declared(declared: Declaration) -> None:
    """The words of an undeclared bucket stay here; its count is in the plain name and in ``:other``."""
    counts = {"cmd/export": 5, "cmd/export:pdf": 1, "cmd/export:secret": 3, "cmd/export:other": 1}

    assert {"cmd/export": 5, "cmd/export:pdf": 1, "cmd/export:other": 4} == leaving(counts, declared)


def test_bucket_that_is_not_declared_leaves_in_the_plain_name_alone(declared: Declaration) -> None:
    """Without a declared ``other`` an undeclared bucket is in the plain name only."""
    assert {"cmd/plain": 5} == leaving({"cmd/plain": 5, "cmd/plain:secret": 3}, declared)


def test_histogram_bucket_of_another_edge_stays(declared: Declaration) -> None:
    """An edge that is not declared names no bucket that may leave."""
    assert {} == leaving({"export/seconds:<=5": 3, "export/seconds": 1}, declared)


def test_counter_leaves_only_below_its_rate(declared: Declaration) -> None:
    """A counter with a rate leaves where the report's x is below it."""
    assert {"cmd/rated": 1} == leaving({"cmd/rated": 1}, declared, x=0.49)
    assert {} == leaving({"cmd/rated": 1}, declared, x=0.5)


def test_counter_stays_from_the_day_it_expires_on(declared: Declaration) -> None:
    """On the day of its end a counter leaves no more."""
    assert {} == leaving({"cmd/ended": 1}, declared)
    assert {"cmd/ended": 1} == narrow(
        {"cmd/ended": 1}, declaration=declared, config=None, x=0.1, today=TODAY - datetime.timedelta(days=1)
    )


def test_config_narrows_and_never_widens(declared: Declaration) -> None:
    """What the config lacks stays, and what only the config names stays too."""
    counts = {"cmd/export": 5, "cmd/plain": 2, "cmd/secret": 1, "cmd/rated": 1, "export/seconds:>1": 1}
    asked = config(cmd_export=1.0, cmd_secret=1.0, cmd_rated=1.0)

    assert {"cmd/export": 5} == leaving(counts, declared, asked, x=0.7)


def test_without_a_declaration_nothing_leaves() -> None:
    """An application that declares nothing sends nothing, the library's own counters included."""
    assert {} == leaving({"cmd/export": 5, "tallypost/dropped-names": 1}, None)


def test_losses_of_the_library_leave_by_its_own_declaration(declared: Declaration) -> None:
    """What the library counts of itself is declared in a file of its own."""
    assert {"tallypost/dropped-names": 1} == leaving({"tallypost/dropped-names": 1, "tallypost/other": 1}, declared)
