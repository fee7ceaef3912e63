from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost_schema import limits, names

Check = Callable[[str], bool]

ACCEPTED: list[tuple[Check, list[str]]] = [
    (names.is_name, ["a", "0", "cmd/export", "a-b-c/d-9/e", "a" * 200]),
    (names.is_bucket, ["pdf", "<=0.1", ">10", "<=1e+06", "other", "A_b-c.D", "=", "b" * 200]),
    (names.is_counter, ["cmd/export", "cmd/export:pdf", "export/seconds:<=0.1", "a:" + "b" * 198]),
    (names.is_stack_name, ["crash/KeyError", "KeyError", "crash", "a/HTTP-Error/b", "1/2"]),
    (
        names.is_stack,
        [
            "crash/KeyError",
            "crash/KeyError\nmytool.cli:main:+12\nmytool.io:load:+4",
            "crash\nmytool.cli:main.<locals>.<lambda>:+0",
            "crash\nmodül:größe:+1",
        ],
    ),
    (
        names.is_application,
        ["example.org/mytool", "tallypost", "a", "a.b-c_d/0", "example.org/events", "a/b/count", "a" * 100],
    ),
    (names.is_program, ["mytool", "my_tool.exe", "Tool-2+x", "p" * 100]),
    (names.is_label, ["1.2.3", "x86_64", "3.12", " ", "ü", "1.0\u2028", "v" * 64]),
    (names.is_field, ["format", "a", "pages_2", "f" * 200]),
]

REFUSED: list[tuple[Check, list[str]]] = [
    (
        names.is_name,
        ["", "A", "a b", "a:", "a:b", "-a", "a-", "a--b", "/a", "a/", "a//b", "a_b", "a.b", "a\n", "é", "²", "a" * 201],
    ),
    (names.is_bucket, ["", "a b", "a:b", "a/b", "a\n", "ü", "b" * 201]),
    (
        names.is_counter,
        ["", "a:", ":b", "a:b:c", "A:b", "a\n", "a:b\n", "a:" + "b" * 199, "crash/KeyError"],
    ),
    (names.is_stack_name, ["", "A/B", "crash/Key Error", "crash/", "a:b", "crash\n", "a\nb:c:+1", "a" * 201]),
    (
        names.is_stack,
        [
            "",
            "A/B\nm:f:+1",
            "crash\n",
            "crash\nm:f",
            "crash\nm:f:1",
            "crash\nm:f:-1",
            "crash\nm:f:+",
            "crash\nm:f:+1\n",
            "crash\n\nm:f:+1",
            "crash\n:f:+1",
            "crash\nm::+1",
            "crash\nm:f:+1:+2",
            "crash\nm\t:f:+1",
            "crash\nm:\x9f:+1",
            "crash\r\nm:f:+1",
            "crash\nm:\ud800:+1",
            "crash\nm:f:+²",
        ],
    ),
    (
        names.is_application,
        ["", "..", "a/..", "../a", "a/./b", "/a", "a/", "a//b", ".a", "a.", "A", "a b", "a\\b", "a\n", "a" * 101],
    ),
    (names.is_application, ["example.org/mytool/counts", "a/b/mode", "a/b/c/private/d"]),
    (names.is_program, ["", "a/b", "a b", "a\n", "ü", "p" * 101]),
    (names.is_label, ["", "a\nb", "\x7f", "\x85", "\x00", "\ud800", "v" * 65]),
    (names.is_field, ["", "1a", "_a", "A", "a-b", "a.b", "a\n", "f" * 201]),
]


def pairs(table: list[tuple[Check, list[str]]]) -> list[object]:
    return [
        pytest.param(is_one, text, id=f"{is_one.__name__}-{text[:30]!a}") for is_one, texts in table for text in texts
    ]


@pytest.mark.parametrize(("is_one", "text"), pairs(ACCEPTED))
def test_grammar_of_an_example_within_it_accepts(is_one: Check, text: str) -> None:
    """Each rule takes its examples, those at the limit of length included."""
    assert is_one(text)


@pytest.mark.parametrize(("is_one", "text"), pairs(REFUSED))
def test_grammar_of_an_example_outside_of_it_refuses(is_one: Check, text: str) -> None:
    """Each rule refuses the neighbours of its examples, a trailing line feed and foreign digits among them."""
    assert not is_one(text)


def test_grammar_asked_twice_answers_the_same() -> None:
    """An answer that is kept is the answer that was given."""
    asked = ["cmd/export:pdf", "cmd/export:", "Cmd", "a" * 201] * 2

    answers = [names.is_counter(text) for text in asked]

    assert [True, False, False, False] * 2 == answers


@pytest.mark.parametrize(
    ("rule", "is_one"),
    [
        (names.NAME_RULE, names.is_name),
        (names.STACK_RULE, names.is_stack_name),
        (names.APPLICATION_RULE, names.is_application),
        (names.PROGRAM_RULE, names.is_program),
        (names.FIELD_RULE, names.is_field),
        (names.BUCKET_RULE, lambda text: all(names.is_bucket(bucket) for bucket in text.split(", "))),
    ],
)
def test_rule_told_to_people_gives_an_example_that_keeps_it(rule: str, is_one: Check) -> None:
    """What a refusal says is allowed ends with an example that is."""
    example = re.findall(r"\(([^)]*)\)\Z", rule)

    assert [True] == [is_one(text) for text in example]


def test_stack_of_the_most_bytes_accepts_and_one_more_refuses() -> None:
    """The limit counts bytes of UTF-8, not characters."""
    head, tail = "crash\n", ":f:+1"
    room = limits.stack_bytes_max - len(head + tail)

    assert names.is_stack(head + "m" * room + tail)
    assert not names.is_stack(head + "m" * (room + 1) + tail)
    assert not names.is_stack(head + "ü" * (room // 2 + 1) + tail)


@given(st.text(max_size=20) | st.characters())
def test_has_control_of_any_text_is_what_the_categories_say(text: str) -> None:
    """A control character is one of Unicode's category Cc, or a lone surrogate."""
    expected = any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F or 0xD800 <= ord(c) <= 0xDFFF for c in text)

    assert expected == names.has_control(text)


@given(st.text("aB0-/:._<=>+\n \x00é", max_size=12))
def test_is_counter_of_any_text_agrees_with_name_and_bucket(text: str) -> None:
    """A counter is a name, or a name, one colon and a bucket."""
    name, colon, bucket = text.partition(":")

    assert (names.is_name(name) and (not colon or names.is_bucket(bucket))) == names.is_counter(text)


@given(st.text("aB0-/", max_size=12))
def test_is_stack_name_of_any_text_agrees_with_a_count_of_its_parts(text: str) -> None:
    """A stack's name is a name once it is in small letters, and one part at most was not."""
    capitals = sum(part != part.lower() for part in text.split("/"))

    assert (names.is_name(text.lower()) and capitals <= 1) == names.is_stack_name(text)


@given(st.text("aB0:+1\n\t\x85", max_size=20))
def test_is_stack_of_any_text_agrees_with_a_reading_frame_by_frame(text: str) -> None:
    """A stack is its name and, line by line, frames of two words and a line number."""
    name, *frames = text.split("\n")
    words = [frame.split(":") for frame in frames]
    framed = all(
        len(parts) == 3 and parts[0] and parts[1] and re.fullmatch(r"\+[0-9]+", parts[2]) for parts in words
    ) and not any(names.has_control(frame) for frame in frames)

    assert (names.is_stack_name(name) and framed) == names.is_stack(text)


@pytest.mark.parametrize("text", ["a" * (8 << 20), "a-" * (4 << 20), "a\n" + "m:f:+1\n" * (1 << 20), "ü" * (1 << 20)])
def test_grammar_of_megabytes_refuses_at_once(text: str) -> None:
    """A text far over the length costs no time, and is not kept."""
    begin = time.process_time()

    answers = {is_one(text) for is_one, _ in ACCEPTED}

    assert {False} == answers
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "text", ["a-" * 99 + "!", "a/" * 97 + "B/C", "a" * 199 + "!", "a/" * 99 + "!", "a.-" * 33 + "!", "a." * 49 + "/!"]
)
def test_grammar_of_the_longest_near_miss_refuses_without_backtracking(text: str) -> None:
    """No rule has two ways to read one text, so a miss at the end is found once."""
    begin = time.process_time()

    answers = {is_one(text) for is_one, _ in ACCEPTED if is_one is not names.is_label} | {
        names.is_stack("crash" + "\nm:f:+1" * 580 + "!")
    }

    assert {False} == answers
    assert time.process_time() - begin < 5


def test_histogram_buckets_of_edges_are_not_cumulative() -> None:
    """There is a bucket up to each edge, and one above the last."""
    buckets = names.histogram_buckets((0.1, 1.0, 10.0, 1e6))

    assert ("<=0.1", "<=1", "<=10", "<=1e+06", ">1e+06") == buckets


def test_histogram_buckets_without_edges_are_none() -> None:
    """No edge, no bucket."""
    assert () == names.histogram_buckets(())


@given(st.lists(st.floats(min_value=0, exclude_min=True, allow_infinity=False), min_size=1, max_size=4))
def test_histogram_buckets_of_any_edges_keep_the_grammar(edges: list[float]) -> None:
    """However an edge is spelled, its bucket may stand behind a colon."""
    buckets = names.histogram_buckets(tuple(edges))

    assert all(map(names.is_bucket, buckets))


@pytest.mark.parametrize("text", [".", "..", ".hidden", "-x", "_x", "+x"])
def test_is_program_of_what_a_file_name_should_not_begin_with_is_no(text: str) -> None:
    """A program's name begins a file's name, so it begins with a letter or digit."""
    assert not names.is_program(text)


def test_module_is_within_its_package_and_not_within_one_of_like_name() -> None:
    """A package is itself and what lies below it, whichever part of a path it is."""
    assert names.is_within("mytool", ["mytool"])
    assert names.is_within("mytool.io.pdf", ["other", "mytool.io"])
    assert not names.is_within("mytools", ["mytool"])
    assert not names.is_within("mytool", ["mytool.io"])
    assert not names.is_within("mytool", [])
