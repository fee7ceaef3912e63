from __future__ import annotations

import gzip

import pytest
import zstandard

from tallypost.errors import NoAnswer
from tallypost.testing import FakeTransport
from tallypost.uploads.transport import Answer
from tallypost_schema.receipts import is_receipt_of


@pytest.mark.parametrize("encoding", [None, "gzip", "zstd"])
def test_fake_transport_answers_with_a_receipt_of_what_was_posted(encoding: str | None) -> None:
    """Whatever the encoding, the receipt is of the document before it."""
    document = b'{"v":1}'
    body = {None: document, "gzip": gzip.compress(document), "zstd": zstandard.compress(document)}[encoding]
    transport = FakeTransport()

    answer = transport.post("https://host/v1/reports", body, encoding)

    assert is_receipt_of(answer.body, document)
    assert [("https://host/v1/reports", encoding, body)] == transport.posted


def test_fake_transport_answers_as_told_in_order() -> None:
    """What a test put there comes first, errors too; after that, receipts."""
    transport = FakeTransport()
    transport.answers = [Answer(503, b"", {}), NoAnswer("down")]

    assert 503 == transport.post("https://host", b"{}", None).status
    with pytest.raises(NoAnswer, match="down"):
        transport.post("https://host", b"{}", None)
    assert 200 == transport.post("https://host", b"{}", None).status
