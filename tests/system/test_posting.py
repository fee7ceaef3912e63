"""What a sender of documents sees, and where its documents are afterwards."""

from __future__ import annotations

import datetime
import gzip
import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import zstandard

pytestmark = pytest.mark.system

Json = dict[str, Any]
NewDocument = Callable[..., Json]
Post = Callable[..., httpx.Response]
Show = Callable[[str], list[Json]]


def test_report_through_the_proxy_gets_a_receipt_of_its_bytes(post: Post, new_report: NewDocument) -> None:
    """The receipt repeats the SHA-256 of the document as it was posted."""
    answer = post(new_report())

    assert 200 == answer.status_code, answer.text
    assert "application/json" == answer.headers["content-type"].partition(";")[0]
    assert {"stored": hashlib.sha256(answer.request.content).hexdigest()} == answer.json()


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("zstd", zstandard.ZstdCompressor().compress),
        ("gzip", gzip.compress),
        ("identity", bytes),
    ],
)
def test_report_compressed_gets_a_receipt_of_the_bytes_before_compression(
    encoding: str, compress: Callable[[bytes], bytes], post: Post, new_report: NewDocument
) -> None:
    """The receipt is about the document, whatever it was compressed with on the way."""
    document = post(new_report()).request.content

    answer = post(compress(document), content_encoding=encoding)

    assert 200 == answer.status_code, answer.text
    assert {"stored": hashlib.sha256(document).hexdigest()} == answer.json()


def test_report_in_several_frames_is_one_document(post: Post, new_report: NewDocument) -> None:
    """A sender that ends a zstd frame at each flush has sent one document."""
    document = post(new_report()).request.content
    step = -(-len(document) // 64)
    frames = [zstandard.ZstdCompressor().compress(document[at : at + step]) for at in range(0, len(document), step)]

    answer = post(b"".join(frames), content_encoding="zstd")

    assert 200 == answer.status_code, answer.text
    assert {"stored": hashlib.sha256(document).hexdigest()} == answer.json()


def test_report_of_exactly_one_mebibyte_is_stored(post: Post, new_report: NewDocument) -> None:
    """The limit on the wire is the last size that is taken; an unknown key is no reason to refuse."""
    without = len(post(new_report(unknown="")).request.content)

    answer = post(new_report(unknown="x" * ((1 << 20) - without)))

    assert 1 << 20 == len(answer.request.content)
    assert 200 == answer.status_code, answer.text


@pytest.mark.parametrize("age", [21, -1])
def test_report_of_the_outermost_days_is_stored(age: int, post: Post, new_report: NewDocument) -> None:
    """A day of 21 days ago and tomorrow are both still taken."""
    day = datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=age)

    answer = post(new_report(day=day.isoformat()))

    assert 200 == answer.status_code, answer.text


def test_report_stored_is_shown_with_what_is_declared(post: Post, new_report: NewDocument, show: Show) -> None:
    """The command prints the report without the names that its declaration lacks."""
    report = new_report(surprise=1)
    report["programs"][0]["counters"] |= {"cmd/undeclared": 7, "cmd/export:undeclared": 1}

    answer = post(report)
    entries = show(report["id"])

    assert 200 == answer.status_code, answer.text
    assert [0] == [entry["index"] for entry in entries]
    document = entries[0]["doc"]
    assert report["id"] == document["id"]
    assert "surprise" not in document
    counters = document["programs"][0]["counters"]
    assert {"cmd/export": 12, "cmd/export:pdf": 3, "export/seconds:<=0.1": 5} == counters
    assert report["programs"][0]["stacks"] == document["programs"][0]["stacks"]


def test_report_posted_again_under_its_id_gets_its_own_receipt_and_is_stored_once(
    post: Post, new_report: NewDocument, show: Show
) -> None:
    """Two documents with one id are one report: the one received first."""
    report = new_report()
    other = report | {"previous": report["day"]}

    first, second = post(report), post(other)
    entries = show(report["id"])

    assert [200, 200] == [first.status_code, second.status_code]
    assert hashlib.sha256(second.request.content).hexdigest() == second.json()["stored"]
    assert [None] == [entry["doc"]["previous"] for entry in entries]


def test_batch_stored_is_shown_event_by_event(post: Post, new_batch: NewDocument, show: Show) -> None:
    """A session's events are shown in the order of their indexes, what was lost as a range."""
    batch = new_batch(first=0, lost=2, terminal=3)

    answer = post(batch, "/v1/events")
    entries = show(batch["session"])

    assert 200 == answer.status_code, answer.text
    assert hashlib.sha256(answer.request.content).hexdigest() == answer.json()["stored"]
    assert {"lost": [0, 1]} == entries[0]
    assert [(2, 3), (3, 4)] == [(entry["index"], entry["fields"]["pages"]) for entry in entries[1:]]
    assert batch["events"][0] == {key: entries[1][key] for key in ("name", "at", "fields")}


def test_batches_out_of_order_twice_and_overlapping_show_each_index_once(
    post: Post, new_batch: NewDocument, show: Show
) -> None:
    """However a session arrives, each of its events is there once."""
    whole = new_batch()
    events = whole["events"]
    tail = whole | {"first": 1, "events": events[1:]}

    answers = [post(document, "/v1/events") for document in (tail, tail, whole | {"terminal": None}, whole)]
    entries = show(whole["session"])

    assert [200] * 4 == [answer.status_code for answer in answers]
    assert [0, 1] == [entry["index"] for entry in entries]
    assert [3, 4] == [entry["fields"]["pages"] for entry in entries]


def test_batch_with_a_hole_shows_the_gap(post: Post, new_batch: NewDocument, show: Show) -> None:
    """An index that never came is told, not passed over."""
    batch = new_batch(terminal=None)
    later = batch | {"first": 5, "events": batch["events"][:1], "terminal": 5}

    answers = [post(document, "/v1/events") for document in (batch, later)]
    entries = show(batch["session"])

    assert [200, 200] == [answer.status_code for answer in answers]
    assert [{"gap": [2, 4]}] == [entry for entry in entries if "gap" in entry]
    assert [0, 1, 5] == [entry["index"] for entry in entries if "index" in entry]


def test_batch_that_only_closes_its_session_is_stored(post: Post, new_batch: NewDocument, show: Show) -> None:
    """A session's last word may come after its last event, without one."""
    batch = new_batch(terminal=None)
    closing = batch | {"first": 2, "lost": 0, "events": [], "terminal": 1}

    answers = [post(document, "/v1/events") for document in (batch, closing)]
    entries = show(batch["session"])

    assert [200, 200] == [answer.status_code for answer in answers]
    assert [0, 1] == [entry["index"] for entry in entries]


def test_batch_with_an_undeclared_event_keeps_its_place_and_is_not_shown(
    post: Post, new_batch: NewDocument, show: Show
) -> None:
    """What the declaration lacks is not stored, but its index counts as there."""
    batch = new_batch()
    batch["events"][0]["name"] = "undeclared"

    answer = post(batch, "/v1/events")
    entries = show(batch["session"])

    assert 200 == answer.status_code, answer.text
    assert [1] == [entry["index"] for entry in entries]
