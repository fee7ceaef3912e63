from __future__ import annotations

from http import HTTPStatus
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost_schema import outcomes, receipts
from tallypost_schema.outcomes import CODES, REFUSABLE, ErrorCode

DOCUMENT = b'{"v":1}'
RECEIPT = receipts.encode_receipt(receipts.hash_of(DOCUMENT))
FINAL = receipts.encode_error("invalid", "m", retry=False)
AGAIN = receipts.encode_error("busy", "m", retry=True)
PORTAL = b"<html>Welcome to our hotel</html>"
BODIES = [RECEIPT, FINAL, AGAIN, PORTAL, b"", b"{}"]
REFUSING = [400, 403, 404, 410, 413, 415, 422]


def test_outcome_of_200_with_the_receipt_is_stored() -> None:
    """The document is stored when its own hash comes back."""
    assert "stored" == outcomes.of_answer(200, RECEIPT, DOCUMENT)


@pytest.mark.parametrize(
    "body", [b"", PORTAL, FINAL, AGAIN, b"{}", receipts.encode_receipt(receipts.hash_of(b"another"))]
)
def test_outcome_of_200_without_the_receipt_is_recoverable(body: bytes) -> None:
    """A captive portal says 200 too, and a receipt of another document is none of this one."""
    assert "recoverable" == outcomes.of_answer(200, body, DOCUMENT)


@pytest.mark.parametrize("status", [*range(100, 104), *range(201, 227), *range(300, 309)])
@pytest.mark.parametrize("body", BODIES)
def test_outcome_of_other_1xx_2xx_3xx_is_recoverable(status: int, body: bytes) -> None:
    """A receipt counts with 200 alone; a redirection is a wrong address."""
    assert "recoverable" == outcomes.of_answer(status, body, DOCUMENT)


@pytest.mark.parametrize("status", REFUSING)
def test_outcome_of_a_refusing_status_with_our_final_error_is_refused(status: int) -> None:
    """Our own server said so, and the same bytes may not come again."""
    assert "refused" == outcomes.of_answer(status, FINAL, DOCUMENT)


@pytest.mark.parametrize("status", REFUSING)
@pytest.mark.parametrize("body", [RECEIPT, AGAIN, PORTAL, b"", b"{}", FINAL[:-1]])
def test_outcome_of_a_refusing_status_otherwise_is_recoverable(status: int, body: bytes) -> None:
    """Without our body it may come from a proxy; with retry it may come again."""
    assert "recoverable" == outcomes.of_answer(status, body, DOCUMENT)


@pytest.mark.parametrize("status", [401, 407, 408, 425, 429, *range(500, 512), 599, 418, 451, 499, 600, 0])
@pytest.mark.parametrize("body", BODIES)
def test_outcome_of_trouble_on_the_way_is_recoverable(status: int, body: bytes) -> None:
    """Whatever the body says: no such status may delete a document."""
    assert "recoverable" == outcomes.of_answer(status, body, DOCUMENT)


@given(st.integers(0, 999), st.binary(max_size=30) | st.sampled_from(BODIES))
def test_outcome_of_any_answer_loses_no_document_without_cause(status: int, body: bytes) -> None:
    """Stored needs a receipt, refused needs our error body; all else is tried again."""
    outcome = outcomes.of_answer(status, body, DOCUMENT)

    assert (outcome == "stored") == (status == 200 and body == RECEIPT)
    assert (outcome == "refused") == (status in REFUSING and body == FINAL)


@pytest.mark.parametrize("code", get_args(ErrorCode))
def test_code_sent_by_a_server_leads_to_the_outcome_that_its_retry_tells(code: ErrorCode) -> None:
    """What the server sends with a code is what a client makes of it."""
    sent = CODES[code]
    body = receipts.encode_error(code, "m", retry=sent.retry)

    outcome = outcomes.of_answer(sent.status, body, DOCUMENT)

    expected = "refused" if not sent.retry and sent.status in REFUSABLE else "recoverable"
    assert expected == outcome


def test_codes_are_all_named_with_a_reason_and_a_status_that_exists() -> None:
    """Table and type name the same codes; each has its sentence."""
    assert list(get_args(ErrorCode)) == list(CODES)
    assert all(code.reason and HTTPStatus(code.status) for code in CODES.values())
    assert REFUSING == list(REFUSABLE)
    assert all(REFUSABLE.values())


def test_codes_that_may_come_again_are_the_servers_own_trouble() -> None:
    """Only slowness and the server's trouble are worth the same bytes."""
    again = {status for status, retry, _ in CODES.values() if retry}

    assert {408, 503} == again
    assert {408, 503}.isdisjoint(status for status, retry, _ in CODES.values() if not retry)
