from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost.events.log_reader import read
from tallypost.events.session_log import event_line, header_line, spelled_ms
from tallypost_schema import names

repeatable = settings(deadline=None, derandomize=True, database=None)
FACTS = {
    "session": "ab" * 16,
    "begin": "2026-11-20T12:00:00Z",
    "mode": "on 2026-11-19 1 user",
    "declaration": "00000000-1",
    "app": "example.org/mytool",
    "program": "mytool",
    "version": '1.2 "ü" \\',
    "python": "3.12",
    "os": "linux",
    "arch": "x86_64",
}
HEADER = header_line(0, FACTS)
values = st.one_of(
    st.booleans(),
    st.integers(0, 2**53 - 1),
    st.floats(0, 2**53 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: not names.has_control(text)),
)


def lines(*indexes: int) -> bytes:
    """Events with these indexes."""
    return b"".join(event_line(index, "export", 1.0, {"pages": index}) for index in indexes)


def indexes(content: bytes) -> list[int]:
    """The indexes that a reader has of a log."""
    log = read(content)
    assert log is not None
    return [event.index for event in log.events]


def test_header_is_json_with_its_keys_in_order() -> None:
    """Any reader of JSON reads what was spelled by hand."""
    assert {"v": 1, "first": 3, **FACTS} == json.loads(header_line(3, FACTS))
    assert ["v", "first", "session"] == list(json.loads(header_line(3, FACTS)))[:3]


@repeatable
@given(st.dictionaries(st.sampled_from(["a", "b_c", "d"]), values))
def test_event_is_json_and_is_read_as_it_was_written(fields: dict[str, Any]) -> None:
    """Every value that a field may have comes back as it was, by a real JSON reader and by ours."""
    line = event_line(7, "export/done", 1795176000.1234, fields)

    assert {"index": 7, "name": "export/done", "at": "2026-11-20T12:00:00.123Z", "fields": fields} == json.loads(line)
    log = read(header_line(7, FACTS) + line)
    assert log is not None
    assert [fields] == [event.fields for event in log.events]


@pytest.mark.parametrize(
    ("now", "spelled"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795176000.9999, "2026-11-20T12:00:00.999Z"),
        (1795219199.9995, "2026-11-20T23:59:59.999Z"),
    ],
)
def test_spelled_ms_rounds_down_so_that_no_day_begins_early(now: float, spelled: str) -> None:
    """A millisecond before midnight is still the day before."""
    assert spelled == spelled_ms(now)


def test_read_skips_half_lines_and_repetitions() -> None:
    """A torn line costs itself; what an append that failed half-way left is there once."""
    torn = lines(0, 1) + lines(2)[:20] + b"\n" + lines(2, 3) + lines(2, 3, 4)

    assert [0, 1, 2, 3, 4] == indexes(HEADER + torn)


def test_read_behind_a_cut_skips_what_was_cut() -> None:
    """The header's first index is where the log goes on."""
    assert [5, 6] == indexes(header_line(5, FACTS) + lines(3, 4, 5, 6))


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", HEADER[:-20], HEADER.replace(b'"v":1', b'"v":2'), b"\xff" * 99]
)
def test_read_of_what_has_no_header_is_none(content: bytes) -> None:
    """Whose events they would be nobody could say."""
    assert read(content) is None


@repeatable
@given(st.integers(0, 2000), st.binary(max_size=30))
def test_read_with_damage_anywhere_invents_nothing(at: int, noise: bytes) -> None:
    """Whatever lies in the place of some bytes, each event that is read was written, with its own index."""
    content = HEADER + lines(*range(20))
    at %= len(content)
    damaged = content[:at] + noise + content[at + len(noise) :]

    log = read(damaged)

    written = {(index, index) for index in range(20)}
    found = [] if log is None or noise[:1].isdigit() else log.events
    if not any(letter in b"0123456789" for letter in noise):
        assert {(event.index, event.fields.get("pages")) for event in found if event.name == "export"} <= written | {
            (index, None) for index in range(20)
        }
    assert sorted({event.index for event in found}) == [event.index for event in found]
