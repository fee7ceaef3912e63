from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tallypost_schema import limits, strict_json
from tallypost_schema.errors import Malformed

LARGE = limits.decoded_bytes_max


def reference(body: bytes) -> dict[str, Any] | None:
    """What `strict_json.decode` gives, or None where it refuses: slow, by the standard library, each rule by itself."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("duplicate")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def finite(text: str) -> float:
        if float(text) in (float("inf"), float("-inf")):
            raise ValueError(text)
        return float(text)

    def visit(value: Any) -> int:
        """How deep `value` is; no string in it has a lone surrogate."""
        if isinstance(value, str):
            value.encode("utf-8")
        if isinstance(value, dict):
            return 1 + max([visit(item) for pair in value.items() for item in pair], default=0)
        if isinstance(value, list):
            return 1 + max([visit(item) for item in value], default=0)
        return 0

    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
        return value if isinstance(value, dict) and visit(value) <= limits.nesting_max else None
    except (ValueError, RecursionError):
        return None


def decoded(body: bytes) -> dict[str, Any] | None:
    try:
        return strict_json.decode(body)
    except Malformed:
        return None


# What stands between the quotes of a string: marks, escapes, and one word in two spellings.
SPELLINGS = [
    "a",
    "b",
    "\\u0061",
    "\\u0062",
    '\\"',
    "\\\\",
    "\\n",
    "\\/",
    *"{}[]:, é",
    "\\u00e9",
    "\\ud83d\\ude00",
    "😀",
    "\\u0000",
]
NO_SPELLINGS = ["\\ud800", "\\udc00\\ud800", "\\x", "\n", '"', "\\", "\\u12", "\t", "\\ud83d"]
SCALARS = ["0", "-0", "1.5", "1e5", "1E-5", "9007199254740993", "18446744073709551616", "1" + "0" * 400, "true", "null"]
NO_SCALARS = ["01", "1.", ".5", "+1", "NaN", "Infinity", "-Infinity", "1e999", "-", "0x1", "tru", "None", ""]


def written(spellings: list[str], scalars: list[str], spaces: list[str]) -> st.SearchStrategy[str]:
    """The texts of objects, and rarely of something else, made of these parts."""
    strings = st.lists(st.sampled_from(spellings), max_size=3).map(lambda parts: f'"{"".join(parts)}"')
    space = st.sampled_from(spaces)
    leaves = strings | st.sampled_from(scalars)

    def lists(items: st.SearchStrategy[str], opening: str, closing: str) -> st.SearchStrategy[str]:
        return st.builds(
            lambda values, space: opening + space + ("," + space).join(values) + space + closing,
            st.lists(items, max_size=4),
            space,
        )

    def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return lists(st.builds("{}{}:{}".format, strings, space, values), "{", "}")

    values = st.recursive(leaves, lambda inner: lists(inner, "[", "]") | objects(inner), max_leaves=10)
    return objects(values)


@settings(max_examples=250)
@given(written(SPELLINGS, SCALARS, ["", "", " ", "\n\t\r"]))
def test_decode_of_a_written_object_agrees_with_the_reference(text: str) -> None:
    """Keys by their value, brackets, quotes and colons in strings: only a key written twice is refused."""
    body = text.encode()

    result = decoded(body)

    assert repr(reference(body)) == repr(result)


@settings(max_examples=150)
@given(
    written(SPELLINGS * 2 + NO_SPELLINGS, SCALARS * 4 + NO_SCALARS, ["", "", "", " ", "\f"]),
    st.sampled_from(["", "", "", " ", "x", "{}", "\x00", ","]),
)
def test_decode_of_a_badly_written_object_agrees_with_the_reference(text: str, rest: str) -> None:
    """Lone surrogates, bad escapes, numbers, words and rests are refused where the standard library refuses them."""
    body = (text + rest).encode()

    result = decoded(body)

    assert repr(reference(body)) == repr(result)


@settings(max_examples=200)
@given(st.dictionaries(st.text('ab"\\:{}[]', max_size=3), st.integers() | st.text(max_size=5), max_size=5), st.data())
def test_decode_of_a_key_written_twice_refuses(value: dict[str, Any], data: st.DataObject) -> None:
    """An object to which one of its keys is added, however spelled, is refused; without the addition it is taken."""
    body = json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode()
    key = data.draw(st.sampled_from(sorted(value))) if value else "a"
    spelled = (
        "".join(f"\\u{ord(character):04x}" for character in key) if data.draw(st.booleans()) else json.dumps(key)[1:-1]
    )
    twice = b'{"%s":0,' % spelled.encode() + body[1:] if value else b'{"a":1,"\\u0061":2}'

    assert value == strict_json.decode(body)
    with pytest.raises(Malformed, match="same key twice"):
        strict_json.decode(twice)


@settings(max_examples=200)
@given(
    st.integers(28, 36),
    st.lists(st.sampled_from(['"[[[["', '"\\"{{"', "[]", "{}", '{"a:":[[]]}', "1"]), max_size=6),
    st.lists(st.booleans(), min_size=36, max_size=36),
)
def test_decode_nested_around_the_limit_agrees_with_the_reference(
    depth: int, inner: list[str], kinds: list[bool]
) -> None:
    """The thirty-second level is taken, the next refused, whatever brackets stand in strings or beside."""
    text = ",".join(inner)
    for as_list in kinds[: depth - 2]:
        text = f"[{text}]" if as_list or not text or "," in text else f'{{"k":{text}}}'
    body = f'{{"a":{text or 0},"b":[]}}'.encode()

    result = decoded(body)

    assert reference(body) == result


@pytest.mark.parametrize(("opening", "inner", "closing"), [("[", "", "]"), ('{"a":', "1", "}"), ('[{"a":', "[]", "}]")])
def test_decode_at_the_deepest_level_takes_it_and_refuses_the_next(opening: str, inner: str, closing: str) -> None:
    """The document itself is the first level."""
    levels = opening.count("[") + opening.count("{")
    inside = inner.count("[")

    def nested(depth: int) -> bytes:
        times, rest = divmod(depth - 1 - inside, levels)
        return ('{"a":' + "[" * rest + opening * times + inner + closing * times + "]" * rest + "}").encode()

    assert "a" in strict_json.decode(nested(limits.nesting_max))
    with pytest.raises(Malformed, match="nested deeper than the 32 levels"):
        strict_json.decode(nested(limits.nesting_max + 1))


@settings(max_examples=500)
@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b'{"a":' + rest + b"}"))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b'{"a":"\xed\xa0\x80"}')
@example(b'{"a":"\xc0\x80"}')
@example("{}".encode("utf-16"))
def test_decode_of_any_bytes_agrees_with_the_reference(body: bytes) -> None:
    """Bytes that are no UTF-8, or no JSON, are refused with `Malformed` and nothing else."""
    result = decoded(body)

    assert reference(body) == result


@pytest.mark.parametrize("seed", range(20))
def test_decode_of_a_damaged_document_agrees_with_the_reference(seed: int) -> None:
    """A document with one byte changed, lost or doubled, or cut short, is read as the reference reads it."""
    chance = random.Random(seed)
    whole = b'{"v":1,"a\\"b":{"c:":["{","\\\\",{"\\u0061":1.5,"b":null}]},"s":"\\ud83d\\ude00","e":[[],{}]}'

    for _ in range(50):
        place = chance.randrange(len(whole))
        body = chance.choice(
            [
                whole[:place],
                whole[:place] + whole[place + 1 :],
                whole[:place] + whole[place : place + 1] + whole[place:],
                whole[:place] + bytes([chance.choice(b'{}[]":,\\a0 \xff')]) + whole[place + 1 :],
            ]
        )

        assert reference(body) == decoded(body), body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "a JSON array, allowed is one object"),
        (b'"a"', "a JSON string, allowed is one object"),
        (b"1", "a JSON number, allowed is one object"),
        (b"true", "a JSON boolean, allowed is one object"),
        (b"null", "a JSON null, allowed is one object"),
        (b"{} {}", "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b'{"a":1,"a":1}', "the same key twice"),
        (b'{"":1,"":1}', "the same key twice"),
        (b'{"x":[{"a":1,"\\u0061":2}]}', "the same key twice"),
        (b'{"x":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"x":' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper than the 32 levels allowed"),
        (b'{"x":[' + b"{}," * limits.containers_max + b"0]}", f"allowed are {limits.containers_max}"),
    ],
)
def test_decode_of_what_is_refused_says_why(body: bytes, reason: str) -> None:
    """The refusal names what was given or what is allowed."""
    with pytest.raises(Malformed, match=reason):
        strict_json.decode(body)


def test_decode_of_a_truncated_document_with_many_brackets_does_not_blame_their_depth() -> None:
    """Only brackets that have their partner are counted as levels."""
    body = (b'{"a":[' + b"{}," * 100 + b"[[[[")[:-1]

    with pytest.raises(Malformed, match="not JSON"):
        strict_json.decode(body)


def test_decode_of_brackets_in_strings_counts_none_of_them() -> None:
    """A string may hold more brackets than a document may have containers or levels."""
    value = {"a": "[{" * limits.containers_max, "b": '"[":{' * 100}
    body = json.dumps(value).encode()

    assert value == strict_json.decode(body)


@pytest.fixture(scope="module")
def plain_s() -> float:
    """Seconds of the processor that the standard library's `json` takes for a body as large as is allowed."""
    body = large(b"[", b"1,", b"1]")
    begin = time.process_time()
    json.loads(body)
    return time.process_time() - begin


def large(begin: bytes, unit: bytes, end: bytes) -> bytes:
    return begin + unit * ((LARGE - len(begin) - len(end)) // len(unit)) + end


@pytest.mark.parametrize(
    ("begin", "unit", "end"),
    [
        (b"", b"[", b""),
        (b"", b"{", b""),
        (b"", b'"', b""),
        (b"", b"\\", b""),
        (b"", b'{"a":', b""),
        (b'{"a":[', b"{},", b"{}]}"),
        (b'{"a":[', b"[],", b"[]]}"),
        (b'{"a":[', b"[" * 30 + b"]" * 30 + b",", b"0]}"),
        (b'{"a":[', b'"",', b'""]}'),
        (b'{"a":[', b"1,", b"1]}"),
        (b'{"a":"', b"\\\\", b'"}'),
        (b'{"a":"', b'\\"', b'"}'),
        (b'{"a":"', b'\\"', b""),
        (b'{"a":"', b"\\u0061", b'"}'),
        (b'{"a":"', b"[", b'"}'),
        (b'{"a":', b'"x', b""),
        (b'{"a":', b"9", b"}"),
        (b'{"a":0.', b"9", b"}"),
        (b'{"a":[', b"9" * 4000 + b",", b"1]}"),
        (b"{", b'"a":1,', b'"a":1}'),
    ],
    ids=lambda part: repr(part[:8]),
)
def test_decode_of_the_largest_hostile_body_takes_a_few_times_that_of_a_plain_one(
    begin: bytes, unit: bytes, end: bytes, plain_s: float
) -> None:
    """Neither depth nor escapes, quotes, digits or empty containers make 8 MiB slow."""
    body = large(begin, unit, end)
    start = time.process_time()

    decoded(body)

    assert time.process_time() - start < 5 * plain_s


@pytest.mark.parametrize("shape", [b'{"%x":{},', b'{"%x":0,'])
def test_decode_of_many_different_keys_takes_a_few_times_that_of_a_plain_body(shape: bytes, plain_s: float) -> None:
    """So many keys as fit in are counted without looking at each."""
    body = b"{" + b",".join(shape[1:-1] % number for number in range(LARGE // 13)) + b"}"
    start = time.process_time()

    decoded(body)

    assert time.process_time() - start < 5 * plain_s
