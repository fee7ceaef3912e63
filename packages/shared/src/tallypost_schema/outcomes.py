"""Error codes, and what a client makes of each answer: data, with a reason beside each member.

Takes   a status and a body.
Gives   an outcome.
Never   counts, waits or moves a document; that is the upload manager's.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from . import receipts

Outcome: TypeAlias = Literal["stored", "refused", "recoverable"]

ErrorCode: TypeAlias = Literal[
    "malformed",
    "unknown_application",
    "not_found",
    "method_not_allowed",
    "too_slow",
    "too_large",
    "unsupported_type",
    "unsupported_encoding",
    "invalid",
    "too_old",
    "from_the_future",
    "busy",
    "no_space",
    "storage_failed",
    "starting",
    "stopping",
]


class Code(NamedTuple):
    """An error code: the status it is sent with, whether the same bytes may come again, and why so."""

    status: int
    retry: bool
    reason: str


CODES: dict[ErrorCode, Code] = {
    "malformed": Code(400, False, "the same bytes will not parse tomorrow"),
    "unknown_application": Code(403, False, "nobody here asked for it"),
    "not_found": Code(404, False, "no such path"),
    "method_not_allowed": Code(405, False, "the path does not take this method"),
    "too_slow": Code(408, True, "a slow network, not a bad document"),
    "too_large": Code(413, False, "the same bytes will not shrink"),
    "unsupported_type": Code(415, False, "a document is application/json"),
    "unsupported_encoding": Code(415, False, "the client may try another encoding within the same task"),
    "invalid": Code(422, False, "the same document will not keep the rules tomorrow"),
    "too_old": Code(422, False, "it will be older tomorrow"),
    "from_the_future": Code(422, False, "a day later than tomorrow comes from a wrong clock"),
    "busy": Code(503, True, "more came than is taken at once"),
    "no_space": Code(503, True, "the disk has no room; it may have later"),
    "storage_failed": Code(503, True, "the disk refused; the segment was closed, the next one may do"),
    "starting": Code(503, True, "recovery is under way"),
    "stopping": Code(503, True, "another server takes over"),
}

# Statuses with which a server may refuse for good. Without our error body they may come from a proxy, a captive
# portal or a wrong address, and then they say nothing about the document. A status that is not named here is
# trouble on the way: what the next version of a server or proxy may answer must never delete a document.
REFUSABLE: dict[int, str] = {
    400: "malformed",
    403: "the application is not registered",
    404: "the path is not served",
    410: "the path is served no more",
    413: "over a size",
    415: "neither zstd nor gzip is taken",
    422: "breaks a document's rules",
}


def of_answer(status: int, body: bytes, document: bytes) -> Outcome:
    """What an answer means for `document`: a pure function of the three."""
    if status == 200:
        return "stored" if receipts.is_receipt_of(body, document) else "recoverable"
    if status in REFUSABLE:
        error = receipts.error_in(body)
        if error is not None and not error.retry:
            return "refused"
    return "recoverable"
