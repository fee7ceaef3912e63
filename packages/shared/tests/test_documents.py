from __future__ import annotations

import datetime
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallypost_schema import documents, limits, names
from tallypost_schema.documents import Batch, Event, Program, ProgramCounts, Report
from tallypost_schema.errors import Invalid, Malformed, SchemaError

# The examples of the promised interface, byte for byte.
REPORT = (
    b'{"v":1,"kind":"report","x":0.2739,"id":"0f5e0f5e0f5e0f5e0f5e0f5e0f5e0f5e","app":"example.org/mytool",'
    b'"day":"2026-11-23","previous":"2026-11-22","config":"3","programs":[{"program":"mytool","version":"1.2.3",'
    b'"python":"3.12","os":"linux","arch":"x86_64","counters":{"cmd/export":12,"cmd/export:pdf":3},'
    b'"stacks":{"crash/KeyError\\nmytool.cli:main:+12\\nmytool.io:load:+4":1}}]}'
)
BATCH = (
    b'{"v":1,"kind":"events","app":"example.org/mytool","session":"0f5e0f5e0f5e0f5e0f5e0f5e0f5e0f5e","first":0,'
    b'"lost":0,"terminal":null,"program":{"program":"mytool","version":"1.2.3","python":"3.12","os":"linux",'
    b'"arch":"x86_64"},"events":[{"name":"export","at":"2026-11-24T10:00:00.123Z",'
    b'"fields":{"format":"pdf","pages":3}}]}'
)


def changed(body: bytes, path: str, value: object) -> bytes:
    """A document with another value at a path, encoded as ours are."""
    document = json.loads(body)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(" ")]
    place: Any = document
    for step in parents:
        place = place[step]
    place[last] = value
    return msgspec.json.encode(document)


def lacking(body: bytes, path: str) -> bytes:
    document = json.loads(body)
    *parents, last = path.split(" ")
    place: Any = document
    for step in parents:
        place = place[int(step) if step.isdigit() else step]
    del place[last]
    return msgspec.json.encode(document)


words = st.from_regex(r"[a-z0-9]{1,5}(-[a-z0-9]{1,3})?", fullmatch=True)
plain_names = st.builds("/".join, st.lists(words, min_size=1, max_size=3))
counters = plain_names | st.builds(
    "{}:{}".format, plain_names, st.from_regex(r"[A-Za-z0-9._<>=+-]{1,8}", fullmatch=True)
)
printable = st.characters(exclude_categories=("Cc", "Cs"))
labels = st.text(printable, min_size=1, max_size=64)
frame_words = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=":"), min_size=1, max_size=9)
frames = st.builds("\n{}:{}:+{}".format, frame_words, frame_words, st.integers(0, 10**6))
stacks = st.builds(
    lambda name, lines: name + "".join(lines),
    plain_names | st.from_regex(r"[a-z]{1,5}/[A-Z][A-Za-z0-9]{0,5}", fullmatch=True),
    st.lists(frames, max_size=4),
)
counts = st.integers(0, limits.count_max)
hexes = st.integers(0, 16**32 - 1).map("{:032x}".format)
days = st.dates().map(datetime.date.isoformat)
apps = st.sampled_from(["example.org/mytool", "a", "a.b/c_d-e"])
program_facts = {
    "program": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,11}", fullmatch=True),
    "version": labels,
    "python": labels,
    "os": labels,
    "arch": labels,
}
program_counts = st.builds(
    ProgramCounts,
    **program_facts,
    counters=st.dictionaries(counters, counts, max_size=4),
    stacks=st.dictionaries(stacks, counts, max_size=3),
)
reports = st.builds(
    Report,
    v=st.just(1),
    kind=st.just("report"),
    x=st.floats(0, 1, exclude_max=True),
    id=hexes,
    app=apps,
    day=days,
    previous=st.none() | days,
    config=st.none() | labels,
    programs=st.lists(program_counts, max_size=3),
)
values = st.text(printable, max_size=20) | st.booleans() | counts | st.floats(0, limits.count_max)
events = st.just(Event()) | st.builds(
    Event,
    name=plain_names,
    at=st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z"),
    fields=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True), values, max_size=4),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    entries = draw(st.lists(events, max_size=4))
    first, lost = draw(st.integers(0, 2**52)), draw(st.integers(0, 2**51))
    last = first + lost + len(entries) - 1
    terminal = draw(st.none() | st.integers(max(last, 0), limits.count_max))
    if not entries and lost == 0:
        first = last + 1 if last >= 0 else 1
        terminal = first - 1
    program = draw(st.builds(Program, **program_facts))
    return Batch(1, "events", draw(apps), draw(hexes), first, lost, terminal, program, entries)


def test_report_of_the_promised_example_decodes_and_encodes_to_the_same_bytes() -> None:
    """The report of the promised interface is a report, and its bytes are the ones we write."""
    report = documents.decode_report(REPORT)

    assert REPORT == documents.encode(report)
    assert {"cmd/export": 12, "cmd/export:pdf": 3} == report.programs[0].counters
    assert Program("mytool", "1.2.3", "3.12", "linux", "x86_64") == report.programs[0].key()


def test_batch_of_the_promised_example_decodes_and_encodes_to_the_same_bytes() -> None:
    """The batch of the promised interface is a batch, and its bytes are the ones we write."""
    batch = documents.decode_batch(BATCH)

    assert BATCH == documents.encode(batch)
    assert 0 == batch.last
    assert {"format": "pdf", "pages": 3} == batch.events[0].fields


@given(reports)
def test_report_of_any_content_survives_its_bytes(report: Report) -> None:
    """Encode, decode, encode: the same report, the same bytes."""
    body = documents.encode(report)

    decoded = documents.decode_report(body)

    assert report == decoded
    assert body == documents.encode(decoded)


@given(batches())
def test_batch_of_any_content_survives_its_bytes(batch: Batch) -> None:
    """Encode, decode, encode: the same batch, the same bytes."""
    body = documents.encode(batch)

    decoded = documents.decode_batch(body)

    assert batch == decoded
    assert body == documents.encode(decoded)


@given(reports, st.booleans())
def test_report_written_by_another_encoder_decodes_to_the_same(report: Report, ascii_only: bool) -> None:
    """Spaces, escapes, another order of keys and unknown keys change nothing of what is read."""
    value = json.loads(documents.encode(report))
    shuffled = {"later": {"a": [1]}, **dict(reversed(value.items()))}
    body = json.dumps(shuffled, indent=1, ensure_ascii=ascii_only).encode()

    decoded = documents.decode_report(body)

    assert report == decoded


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from(
    [
        "x",
        "v",
        "kind",
        "id",
        "app",
        "day",
        "previous",
        "config",
        "programs",
        "programs 0",
        "programs 0 counters",
        "programs 0 counters cmd/export",
        "programs 0 stacks",
        "programs 0 arch",
    ]
)
batch_paths = st.sampled_from(
    [
        "v",
        "app",
        "session",
        "first",
        "lost",
        "terminal",
        "program",
        "program os",
        "events",
        "events 0",
        "events 0 at",
        "events 0 name",
        "events 0 fields",
        "events 0 fields pages",
        "events 0 fields new",
    ]
)


@given(paths, json_values)
def test_report_with_any_value_anywhere_raises_schema_errors_only(path: str, value: object) -> None:
    """Whatever stands in a place, the answer is a report or a `SchemaError`."""
    body = changed(REPORT, path, value)

    try:
        report = documents.decode_report(body)
    except SchemaError:
        return
    assert report == documents.decode_report(documents.encode(report))


@given(batch_paths, json_values)
def test_batch_with_any_value_anywhere_raises_schema_errors_only(path: str, value: object) -> None:
    """Whatever stands in a place, the answer is a batch or a `SchemaError`."""
    body = changed(BATCH, path, value)

    try:
        batch = documents.decode_batch(body)
    except SchemaError:
        return
    assert batch == documents.decode_batch(documents.encode(batch))


@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30))
def test_decode_of_any_json_or_bytes_raises_malformed_or_invalid(body: bytes) -> None:
    """What is no document at all is one of the two refusals, for both kinds."""
    with pytest.raises((Malformed, Invalid)):
        documents.decode_report(body)
    with pytest.raises((Malformed, Invalid)):
        documents.decode_batch(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", 2),
        ("v", True),
        ("v", "1"),
        ("kind", "events"),
        ("x", 1),
        ("x", -0.1),
        ("x", None),
        ("id", "0F5E" * 8),
        ("id", "0f5e" * 7),
        ("id", "0f5e" * 8 + "\n"),
        ("app", "../etc"),
        ("app", "Example"),
        ("day", "2026-02-29"),
        ("day", "20261123"),
        ("day", "2026-W47-1"),
        ("day", "2026-11-23\n"),
        ("day", "0000-01-01"),
        ("day", "２０２６-11-23"),
        ("previous", "yesterday"),
        ("config", ""),
        ("config", "3\n"),
        ("config", 3),
        ("programs", {}),
        ("programs 0", None),
        ("programs 0 program", "my tool"),
        ("programs 0 version", ""),
        ("programs 0 python", "p" * 65),
        ("programs 0 os", "a\x00"),
        ("programs 0 arch", "\x85"),
        ("programs 0 counters", None),
        ("programs 0 counters cmd/export", -1),
        ("programs 0 counters cmd/export", 2**53),
        ("programs 0 counters cmd/export", 1.5),
        ("programs 0 counters cmd/export", True),
        ("programs 0 counters cmd/export", 10**400),
        ("programs 0 counters Cmd/export", 1),
        ("programs 0 counters cmd/export:a:b", 1),
        ("programs 0 stacks crash/KeyError\n", 1),
        ("programs 0 stacks crash/KeyError\na:b:12", 1),
        ("programs 0 stacks A/B", 1),
    ],
)
def test_report_that_breaks_a_rule_is_invalid(path: str, value: object) -> None:
    """Each rule of a report refuses what is just outside of it."""
    body = changed(REPORT, path, value)

    with pytest.raises(Invalid):
        documents.decode_report(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("x", 0),
        ("x", 0.9999999999999999),
        ("previous", None),
        ("config", None),
        ("programs", []),
        ("day", "2028-02-29"),
        ("programs 0 counters", {}),
        ("programs 0 counters cmd/export", 0),
        ("programs 0 counters cmd/export", 2**53 - 1),
        ("programs 0 stacks crash", 1),
    ],
)
def test_report_at_the_edge_of_a_rule_is_taken(path: str, value: object) -> None:
    """The first and the last value that a rule allows are allowed."""
    report = documents.decode_report(changed(REPORT, path, value))

    assert "example.org/mytool" == report.app


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", 0),
        ("kind", "report"),
        ("app", "a/../b"),
        ("session", "0f5e"),
        ("first", -1),
        ("lost", 2**53),
        ("lost", 10**400),
        ("terminal", -1),
        ("terminal", 0.5),
        ("program program", ""),
        ("program arch", "a\nb"),
        ("events", None),
        ("events 0", None),
        ("events 0", {"name": "export"}),
        ("events 0", {"name": None, "at": None, "fields": None}),
        ("events 0 name", "export:pdf"),
        ("events 0 name", "Export"),
        ("events 0 at", "2026-11-24T10:00:00.123"),
        ("events 0 at", "2026-11-24 10:00:00.123Z"),
        ("events 0 at", "2026-11-24T24:00:00Z"),
        ("events 0 at", "2026-11-24T10:60:00Z"),
        ("events 0 at", "2026-11-24T23:59:60Z"),
        ("events 0 at", "2026-02-30T10:00:00Z"),
        ("events 0 at", "2026-11-24T10:00:00.1234567Z"),
        ("events 0 at", "2026-11-24T10:00:00.Z"),
        ("events 0 at", "2026-11-24T10:00:00Z\n"),
        ("events 0 at", "2026-11-24T10:00:00+00:00"),
        ("events 0 fields", {f"f{number}": 1 for number in range(33)}),
        ("events 0 fields Pages", 1),
        ("events 0 fields pages", -1),
        ("events 0 fields pages", -0.5),
        ("events 0 fields pages", 2**53),
        ("events 0 fields pages", 1e308),
        ("events 0 fields pages", 10**400),
        ("events 0 fields pages", -(10**400)),
        ("events 0 fields pages", None),
        ("events 0 fields pages", [1]),
        ("events 0 fields pages", "a\nb"),
        ("events 0 fields pages", "p" * 201),
    ],
)
def test_batch_that_breaks_a_rule_is_invalid(path: str, value: object) -> None:
    """Each rule of a batch refuses what is just outside of it, whole numbers of any length included."""
    body = changed(BATCH, path, value)

    with pytest.raises(Invalid):
        documents.decode_batch(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("events 0", {}),
        ("events 0", {"unknown": 1}),
        ("events 0 at", "2026-11-24T10:00:00Z"),
        ("events 0 at", "2026-11-24T23:59:59.999999Z"),
        ("events 0 fields", {}),
        ("events 0 fields", {f"f{number}": 1 for number in range(32)}),
        ("events 0 fields pages", 0),
        ("events 0 fields pages", 0.5),
        ("events 0 fields pages", True),
        ("events 0 fields pages", 2**53 - 1),
        ("events 0 fields pages", ""),
        ("events 0 fields pages", "p" * 200),
        ("terminal", 0),
        ("terminal", 2**53 - 1),
    ],
)
def test_batch_at_the_edge_of_a_rule_is_taken(path: str, value: object) -> None:
    """The first and the last value that a rule allows are allowed."""
    batch = documents.decode_batch(changed(BATCH, path, value))

    assert 1 == len(batch.events)


@pytest.mark.parametrize(
    ("first", "lost", "terminal", "events_count", "taken"),
    [
        (0, 0, None, 0, False),  # Says nothing.
        (0, 0, 0, 0, False),  # Closes a session without any event.
        (5, 0, 4, 0, True),  # Closes.
        (5, 0, 5, 0, False),
        (5, 0, 3, 0, False),
        (5, 0, None, 0, False),
        (0, 5, None, 0, True),  # A lost range.
        (0, 5, 4, 0, True),
        (0, 5, 3, 0, False),
        (0, 5, 9, 0, True),
        (3, 2, 5, 1, True),
        (3, 2, 4, 1, False),
        (2**53 - 1, 0, None, 1, True),
        (2**53 - 1, 1, None, 1, False),
        (2**53 - 1, 0, None, 2, False),
        (2**53 - 1, 0, 2**53 - 2, 0, True),
    ],
)
def test_batch_of_indexes_keeps_its_session_whole(
    first: int, lost: int, terminal: int | None, events_count: int, taken: bool
) -> None:
    """A batch has events, a lost range or an end; its end is not below its own last index."""
    batch = msgspec.structs.replace(
        documents.decode_batch(BATCH), first=first, lost=lost, terminal=terminal, events=[Event()] * events_count
    )
    body = documents.encode(batch)

    if taken:
        assert first + lost + events_count - 1 == documents.decode_batch(body).last
    else:
        with pytest.raises(Invalid):
            documents.decode_batch(body)


REPORT_KEYS = ["v", "kind", "x", "id", "app", "day", "previous", "config", "programs", "programs 0 stacks"]
BATCH_KEYS = ["v", "kind", "app", "session", "first", "lost", "terminal", "program", "program os", "events"]


@pytest.mark.parametrize("path", [*REPORT_KEYS, "programs 0 counters", "programs 0 arch"])
def test_report_that_lacks_a_key_is_invalid(path: str) -> None:
    """Every key is always there."""
    with pytest.raises(Invalid):
        documents.decode_report(lacking(REPORT, path))


@pytest.mark.parametrize("path", [*BATCH_KEYS, "events 0 at", "events 0 name", "events 0 fields"])
def test_batch_that_lacks_a_key_is_invalid(path: str) -> None:
    """Every key is always there; an event has all three or none."""
    with pytest.raises(Invalid):
        documents.decode_batch(lacking(BATCH, path))


def test_decode_of_a_key_twice_is_malformed_though_each_value_would_do() -> None:
    """Two readers could take either, so neither is taken, also when the key is spelled with an escape."""
    twice = REPORT.replace(b'"x":0.2739', b'"x":0.2739,"\\u0078":0.2739')

    with pytest.raises(Malformed, match="same key twice"):
        documents.decode_report(twice)


def test_decode_of_unknown_keys_leaves_them_out() -> None:
    """What a later version adds is not stored by this one."""
    later = REPORT.replace(b'"v":1,', b'"v":1,"person":"me",').replace(b'"arch":', b'"cpu":{"n":1},"arch":')

    assert REPORT == documents.encode(documents.decode_report(later))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("app", "A/B", ["app is 'A/B'", "allowed is parts of a-z"]),
        ("day", "today", ["day is 'today'", "allowed is a day as 2026-11-24"]),
        ("programs 0 counters a:b:c", 1, ["counters is 'a:b:c'", "at most one :bucket"]),
        ("programs 0 os", "😀" * 65, ["os is '\\U0001f600", "allowed is 1 to 64 printable characters"]),
        ("programs 0 version", "v\x00", ["version is 'v\\x00'", "allowed is 1 to 64 printable characters"]),
    ],
)
def test_refusal_of_a_value_tells_key_given_and_allowed(path: str, value: object, words: list[str]) -> None:
    """A sender learns which key, what stood there, escaped and cut, and what may stand there."""
    body = changed(REPORT, path, value)

    with pytest.raises(Invalid) as refusal:
        documents.decode_report(body)

    assert [] == [word for word in words if word not in str(refusal.value)]
    assert str(refusal.value).isascii()
    assert len(str(refusal.value)) < 1200


@pytest.mark.parametrize("text", ["2026-11-23", "2028-02-29", "0001-01-01", "9999-12-31"])
def test_day_of_a_day_gives_it(text: str) -> None:
    """A day that exists is read, and spelled the same again."""
    day = documents.day_of(text)

    assert day is not None
    assert text == day.isoformat()


@pytest.mark.parametrize(
    "text", ["", "2026-11-31", "2026-1-1", "20261123", "2026-W01-1", "2026-11-23T", "x" * (8 << 20)]
)
def test_day_of_anything_else_gives_none(text: str) -> None:
    """What is not a day in exactly this form is none."""
    assert documents.day_of(text) is None


@pytest.mark.parametrize(
    ("session", "expected"),
    [("0" * 32, 0.0), ("8" + "0" * 31, 0.5), ("f" * 32, 1 - 16.0**-13), ("0" * 12 + "1" + "f" * 19, 16.0**-13)],
)
def test_session_x_of_a_session_is_its_first_digits_exactly(session: str, expected: float) -> None:
    """Thirteen digits make the number, without rounding, and never 1."""
    x = documents.session_x(session)

    assert expected == x
    assert 0 <= x < 1


@given(st.text("aB0:+1\n\t\x85\ud800ü/-", max_size=24) | stacks | stacks.map(lambda text: text + "\n"))
def test_decode_report_takes_exactly_the_stacks_of_the_grammar(text: str) -> None:
    """Documents are read by an expression of their own, since frames are most of what is to be looked at."""
    (program,) = documents.decode_report(REPORT).programs
    report = msgspec.structs.replace(
        documents.decode_report(REPORT), programs=[msgspec.structs.replace(program, stacks={text: 1})]
    )
    try:
        documents.check_report(report)
    except Invalid:
        taken = False
    else:
        taken = True

    assert names.is_stack(text) == taken


@given(
    st.sets(st.sampled_from(["cmd/export", "cmd/export:pdf", "a", "Upper", "b:c:d", ""])),
    st.sets(st.sampled_from(["crash/KeyError", "crash", "a:b:+1", "Two/Parts", ""])),
    st.sets(
        st.sampled_from(["", "\na:b:+1", "\na:b:1", "\ncrash", "\n", "\na:b:+1\nc:d:+2", "\n" + "m" * 4096 + ":b:+1"])
    ),
    st.sets(st.sampled_from(["cmd/export", "cmd/export:pdf", "a", "other"])),
    st.sets(st.sampled_from(["crash/KeyError", "crash", "other"])),
    st.booleans(),
)
@example(set(), {"crash"}, {""}, set(), {"other"}, True)
@example({"cmd/export"}, set(), set(), {"a"}, {"other"}, True)
def test_check_report_that_is_told_of_names_says_the_same_and_whether_there_are_others(
    counters: set[str], stack_names: set[str], frames: set[str], known: set[str], known_stacks: set[str], is_first: bool
) -> None:
    """Names that keep their rules need not be looked at; frames, and all other names, are."""
    report = documents.decode_report(REPORT)
    stacks = {name + its_frames: 1 for name in stack_names for its_frames in frames}
    program = msgspec.structs.replace(report.programs[0], counters=dict.fromkeys(counters, 1), stacks=stacks)
    other = msgspec.structs.replace(program, counters=dict.fromkeys(known, 1), stacks=dict.fromkeys(known_stacks, 1))
    report = msgspec.structs.replace(report, programs=[program, other] if is_first else [other, program])
    is_one = all(map(names.is_counter, counters)) and all(map(names.is_stack, stacks))

    try:
        are_known = documents.check_report(report, frozenset(known), frozenset(known_stacks))
    except Invalid:
        assert not is_one
    else:
        assert is_one
        assert are_known == (counters <= known and {stack.partition("\n")[0] for stack in stacks} <= known_stacks)


def test_decode_report_takes_a_stack_as_long_as_the_grammar_does() -> None:
    """The bound is on bytes, not on characters."""
    room = limits.stack_bytes_max - len("a\n:b:+1")
    for text, is_taken in (("m" * room, True), ("m" * (room + 1), False), ("ü" * (room // 2 + 1), False)):
        body = changed(REPORT, "programs 0 stacks", {f"a\n{text}:b:+1": 1})
        if is_taken:
            documents.decode_report(body)
        else:
            with pytest.raises(Invalid, match="stacks"):
                documents.decode_report(body)


@given(st.lists(st.lists(st.text("ab/-A", max_size=6), max_size=8), max_size=12))
def test_answers_that_are_kept_are_those_of_the_rule(rounds: list[list[str]]) -> None:
    """Whatever was asked before, and however little is kept."""
    asked: list[str] = []

    def rule(text: str) -> bool:
        asked.append(text)
        return names.is_name(text)

    keep = documents._Kept(rule, 5, answers=6).keep

    for texts in rounds:
        assert all(names.is_name(text) and len(text) <= 5 for text in texts) == keep(texts)
    assert all(len(text) <= 5 for text in asked)
