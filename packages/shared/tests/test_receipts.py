from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost_schema import receipts
from tallypost_schema.receipts import ErrorDetail

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_hash_of_a_document_is_its_sha256_in_hex() -> None:
    """The hash is the one that other tools print."""
    assert HELLO == receipts.hash_of(b"hello")


def test_receipt_encoded_is_the_promised_example() -> None:
    """A receipt is one key and the hash."""
    assert b'{"stored":"' + HELLO.encode() + b'"}' == receipts.encode_receipt(HELLO)


def test_error_encoded_is_the_promised_example() -> None:
    """An error body has code, message and retry, in this order."""
    body = receipts.encode_error("too_large", "…what was given…", retry=False)

    assert '{"error":{"code":"too_large","message":"…what was given…","retry":false}}'.encode() == body


@given(st.binary(), st.binary())
def test_receipt_of_a_document_is_no_other_documents(document: bytes, other: bytes) -> None:
    """A receipt answers for exactly the bytes whose hash it repeats."""
    body = receipts.encode_receipt(receipts.hash_of(document))

    assert receipts.is_receipt_of(body, document)
    assert (document == other) == receipts.is_receipt_of(body, other)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"{}",
        b"null",
        b"[]",
        b'{"stored":null}',
        b'{"stored":true}',
        b'{"stored":["' + HELLO.encode() + b'"]}',
        b'{"stored":"' + HELLO.upper().encode() + b'"}',
        b'{"stored":"' + HELLO[:-1].encode() + b'"}',
        b'{"stored":"' + HELLO.encode() + b'\\n"}',
        b'{"stored":"' + HELLO.encode() + b'"} trailing',
        b'{"stored":"' + HELLO.encode(),
        HELLO.encode(),
        b"<html>Welcome to our hotel</html>",
        b'{"stored":' + b"9" * 5000 + b"}",
        b'{"stored":' + b"[" * 100_000,
        b'{"other":' + b"[" * 100_000,
        b"\xff",
    ],
)
def test_receipt_in_any_other_form_is_none(body: bytes) -> None:
    """What is not whole, or not ours, is no receipt, and raises nothing."""
    assert not receipts.is_receipt_of(body, b"hello")


def test_receipt_with_a_further_key_is_one() -> None:
    """A later server may tell more."""
    body = b'{"stored":"' + HELLO.encode() + b'","at":"2026-11-24"}'

    assert receipts.is_receipt_of(body, b"hello")


@given(st.text(max_size=20), st.text(max_size=40), st.booleans())
def test_error_of_any_content_survives_its_bytes(code: str, message: str, retry: bool) -> None:
    """A client reads of an error what the server wrote."""
    body = receipts.encode_error(code, message, retry=retry)

    assert ErrorDetail(code, message, retry) == receipts.error_in(body)
    assert {"error": {"code": code, "message": message, "retry": retry}} == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Not Found",
        b"{}",
        b'{"error":"not found"}',
        b'{"error":{"code":"invalid","message":"m"}}',
        b'{"error":{"code":"invalid","retry":false}}',
        b'{"error":{"message":"m","retry":false}}',
        b'{"error":{"code":"invalid","message":"m","retry":0}}',
        b'{"error":{"code":"invalid","message":"m","retry":"false"}}',
        b'{"error":{"code":"invalid","message":"m","retry":null}}',
        b'{"error":{"code":422,"message":"m","retry":false}}',
        b'{"code":"invalid","message":"m","retry":false}',
        b'[{"error":{"code":"invalid","message":"m","retry":false}}]',
        b'{"error":{"code":"invalid","message":"m","retry":false}',
        b'{"error":' + b"[" * 100_000,
        b'{"e":' + b'{"error":' * 100_000,
        b'{"error":{"code":"\xff","message":"m","retry":false}}',
    ],
)
def test_error_in_a_body_that_is_not_ours_is_none(body: bytes) -> None:
    """Then somebody else answered, and nothing is raised."""
    assert receipts.error_in(body) is None


@given(st.binary(max_size=40), st.binary(max_size=5))
def test_answer_of_any_bytes_raises_nothing(body: bytes, document: bytes) -> None:
    """Whatever a stranger answers, there is neither receipt nor error."""
    assert not receipts.is_receipt_of(body, document)
    assert receipts.error_in(body) is None
