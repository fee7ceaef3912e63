"""A server in memory that gives any answer, and keeps what it stored and what reached it.

Takes   what the next answers are to be, and an upload config.
Gives   a `Transport`; every document that reached it, with the instant.
Never   judges: whoever made it hears of each post before it is answered.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable

import zstandard

from tallypost.errors import NoAnswer
from tallypost.testing import FakeClock
from tallypost.uploads.transport import Answer
from tallypost_schema import receipts, upload_config
from tallypost_schema.upload_config import UploadConfig

ENDPOINT = "https://telemetry.example.org"
OUTCOMES = (
    "stored",
    "answer lost",
    "timeout",
    "refused",
    "busy",
    "captive portal",
    "another receipt",
    "unsupported",
    "unknown status",
)


class Server:
    """Everything beyond the network."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.hear: Callable[[bytes, str | None], None] = lambda document, encoding: None
        self.script: list[str] = []
        self.stored: dict[bytes, int] = {}
        self.config: UploadConfig | None = None
        self.given: set[str] = set()
        self.last: tuple[str, bytes] = "", b""

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Answer as the script says, with a receipt where it says nothing."""
        assert url == f"{ENDPOINT}/v1/reports"
        document = gzip.decompress(body) if encoding == "gzip" else zstandard.ZstdDecompressor().decompress(body)
        self.hear(document, encoding)
        outcome = self.script.pop(0) if self.script else "stored"
        self.last = outcome, document
        return self._answer(outcome, document)

    def get(self, url: str, etag: str | None) -> Answer:
        """The upload config."""
        assert url == f"{ENDPOINT}/v1/config/example.org/mytool"
        if self.config is None:
            raise NoAnswer("no config here")
        self.given.add(self.config.version)
        if etag == self.config.version:
            return Answer(304, b"", {})
        return Answer(200, upload_config.encode(self.config), {"etag": self.config.version})

    def _answer(self, outcome: str, document: bytes) -> Answer:
        receipt = receipts.encode_receipt(receipts.hash_of(document))
        if outcome in ("stored", "answer lost"):
            self.stored[document] = self.stored.get(document, 0) + 1
        if outcome == "stored":
            return Answer(200, receipt, {})
        if outcome == "refused":
            return Answer(422, receipts.encode_error("invalid", "not that", retry=False), {})
        if outcome == "unsupported":
            return Answer(415, receipts.encode_error("unsupported_encoding", "not that", retry=False), {})
        if outcome == "busy":
            return Answer(503, receipts.encode_error("busy", "later", retry=True), {"retry-after": "120"})
        if outcome == "captive portal":
            return Answer(200, b"<html>welcome</html>", {})
        if outcome == "another receipt":
            return Answer(200, receipts.encode_receipt("0" * 64), {})
        if outcome == "unknown status":
            return Answer(418, b"", {})
        if outcome == "timeout":
            self._clock.sleep(10)
        raise NoAnswer(outcome)
