"""A server in memory.

Takes   what is posted.
Gives   answers as told, and receipts where nothing is told.
Never   loads the network's library before something is posted: no test of a count needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallypost_schema import receipts

from ..errors import NoAnswer

if TYPE_CHECKING:
    from ..uploads.transport import Answer


class FakeTransport:
    """A server in memory: answers as told, with a receipt if nothing is told, and keeps what was posted."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, str | None, bytes]] = []
        self.asked: list[tuple[str, str | None]] = []
        self.answers: list[Answer | NoAnswer] = []
        self.config: Answer | NoAnswer = NoAnswer("no config here")

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Answer as told next, else with a receipt."""
        self.posted.append((url, encoding, body))
        if not self.answers:
            from ..uploads.transport import Answer

            return Answer(200, receipts.encode_receipt(receipts.hash_of(_decoded(body, encoding))), {})
        answer = self.answers.pop(0)
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    def get(self, url: str, etag: str | None) -> Answer:
        """The config that was set."""
        self.asked.append((url, etag))
        if isinstance(self.config, NoAnswer):
            raise self.config
        return self.config


def _decoded(body: bytes, encoding: str | None) -> bytes:
    if encoding == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompress(body, max_output_size=8 << 20)
    if encoding == "gzip":
        import gzip

        return gzip.decompress(body)
    return body
