"""Each row of the table of answers, as a sender behind the proxy gets it."""

from __future__ import annotations

import datetime
import gzip
import json
import shlex
import socket
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import zstandard

pytestmark = pytest.mark.system

Json = dict[str, Any]
NewDocument = Callable[..., Json]
Post = Callable[..., httpx.Response]
Spoil = Callable[[bytes], bytes]

MIB = 1 << 20

# Runs in the server's container, since nginx never passes on a head or a body that has not come whole. One sender stops
# in its head, one in its body; each waits for its answer.
SLOW_SENDERS = """
import json, socket, threading, time
HEAD = b"POST /v1/reports HTTP/1.1\\r\\nHost: server\\r\\nContent-Type: application/json\\r\\nContent-Length: 100\\r\\n"
answers = {}
def send(name, sent):
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", 8080), timeout=45) as sender:
        sender.sendall(sent)
        answer = b""
        while part := sender.recv(65536):
            answer += part
            if answer.endswith(b"}}"):
                break
    answers[name] = {"answer": answer.decode(), "seconds": time.monotonic() - begun}
threads = [threading.Thread(target=send, args=pair) for pair in (("head", HEAD), ("body", HEAD + b"\\r\\n{"))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module", autouse=True)
def slow_senders(containers: Any) -> Iterator[Callable[[], Json]]:
    """Start the slow senders with the module, so that the wait for them passes beside its other tests."""
    command = [*containers.exec_in_server, "python", "-c", SLOW_SENDERS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as senders:

        def answers() -> Json:
            output, errors = senders.communicate(timeout=50)
            assert 0 == senders.returncode, f"{shlex.join(command[:-1])}: {errors}"
            return dict(json.loads(output))

        yield answers
        senders.kill()


def refusal_of(answer: httpx.Response) -> tuple[int, str, bool]:
    """What an error body says, after a look at its form."""
    assert "application/json" == answer.headers["content-type"].partition(";")[0], answer.text
    error = answer.json()["error"]
    assert {"code", "message", "retry"} == error.keys()
    assert error["message"]
    return answer.status_code, error["code"], error["retry"]


def connection_of(answer: httpx.Response) -> object:
    """The sender's end of the connection that an answer came by."""
    return answer.extensions["network_stream"].get_extra_info("client_addr")


def cut(document: bytes) -> bytes:
    """The document without its end."""
    return document[:-20]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda document: b"", id="nothing"),
        pytest.param(cut, id="cut"),
        pytest.param(lambda document: document + b"{}", id="trailing"),
        pytest.param(lambda document: document + b"\0", id="trailing-nul"),
        pytest.param(lambda document: b"[" + document + b"]", id="array"),
        pytest.param(lambda document: b'"text"', id="text"),
        pytest.param(lambda document: document.replace(b"0.2739", b"NaN"), id="nan"),
        pytest.param(lambda document: document.replace(b"0.2739", b"Infinity"), id="infinity"),
        pytest.param(lambda document: document.replace(b"1.2.3", b"\\ud800"), id="lone-surrogate"),
        pytest.param(lambda document: document.replace(b"1.2.3", b"\xff"), id="not-utf-8"),
        pytest.param(lambda document: b'{"v":1,' + document[1:], id="duplicate-key"),
        pytest.param(lambda document: b'{"deep":' + b"[" * 40 + b"]" * 40 + b"," + document[1:], id="nesting"),
    ],
)
def test_body_that_is_not_one_json_object_is_malformed(spoil: Spoil, post: Post, new_report: NewDocument) -> None:
    """What cannot be read as one strict JSON object is refused for good."""
    document = post(new_report()).request.content

    answer = post(spoil(document))

    assert (400, "malformed", False) == refusal_of(answer)


@pytest.mark.parametrize(
    ("encoding", "compress"), [("zstd", zstandard.ZstdCompressor().compress), ("gzip", gzip.compress)]
)
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(cut, id="cut"),
        pytest.param(lambda packed: packed + b"more", id="trailing"),
        pytest.param(lambda packed: b"no" + packed, id="no-encoding"),
        pytest.param(lambda packed: b"", id="nothing"),
    ],
)
def test_body_in_a_broken_encoding_is_malformed(
    spoil: Spoil, encoding: str, compress: Spoil, post: Post, new_report: NewDocument
) -> None:
    """An encoding that is not whole, or has something behind it, is refused for good."""
    document = post(new_report()).request.content

    answer = post(spoil(compress(document)), content_encoding=encoding)

    assert (400, "malformed", False) == refusal_of(answer)


@pytest.mark.parametrize("path", ["/v1/reports", "/v1/events"])
def test_document_of_an_unknown_application_is_refused(
    path: str, post: Post, new_report: NewDocument, new_batch: NewDocument
) -> None:
    """Only what is registered here is taken here."""
    new_document = new_report if path == "/v1/reports" else new_batch

    answer = post(new_document(app="example.org/nobody"), path)

    assert (403, "unknown_application", False) == refusal_of(answer)


@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB - 1])
def test_body_over_the_limit_is_answered_and_its_connection_stays_usable(
    size: int, post: Post, new_report: NewDocument
) -> None:
    """The sender of too much hears so, and goes on over the same connection."""
    before = post(new_report())

    refused = post(b"x" * size)
    after = post(new_report())

    assert (413, "too_large", False) == refusal_of(refused)
    assert 200 == after.status_code, after.text
    assert connection_of(before) == connection_of(refused) == connection_of(after)


@pytest.mark.parametrize("size", [3 * MIB, 20 * MIB])
def test_body_far_over_the_limit_is_answered(size: int, post: Post) -> None:
    """The answer arrives however much there would have been to send."""
    answer = post(b"x" * size)

    assert (413, "too_large", False) == refusal_of(answer)


def test_body_without_a_stated_length_over_the_limit_is_answered(http: httpx.Client) -> None:
    """A body in chunks has the same limit."""
    chunks = (b"x" * 65536 for _ in range(20))

    answer = http.post("/v1/reports", content=chunks, headers={"content-type": "application/json"})

    assert (413, "too_large", False) == refusal_of(answer)


@pytest.mark.parametrize(
    ("encoding", "compress"), [("zstd", zstandard.ZstdCompressor().compress), ("gzip", gzip.compress)]
)
def test_body_that_unpacks_to_too_much_is_too_large(
    encoding: str, compress: Spoil, post: Post, new_report: NewDocument
) -> None:
    """A small body with a large document inside is refused as what it would become."""
    document = post(new_report()).request.content

    answer = post(compress(document + b" " * (8 * MIB)), content_encoding=encoding)

    assert (413, "too_large", False) == refusal_of(answer)


def test_body_of_more_than_64_frames_is_too_large(post: Post, new_report: NewDocument) -> None:
    """Frames are bounded: each costs a reader more than its bytes tell."""
    document = post(new_report()).request.content
    compressor = zstandard.ZstdCompressor()
    frames = [compressor.compress(document), *(compressor.compress(b" ") for _ in range(64))]

    answer = post(b"".join(frames), content_encoding="zstd")

    assert (413, "too_large", False) == refusal_of(answer)


def test_body_with_a_large_window_is_too_large(post: Post, new_report: NewDocument) -> None:
    """A frame may not make its reader hold more than 8 MiB."""
    document = post(new_report()).request.content
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    answer = post(packer.compress(document) + packer.flush(), content_encoding="zstd")

    assert (413, "too_large", False) == refusal_of(answer)


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_body_of_another_type_is_unsupported(content_type: str | None, post: Post, new_report: NewDocument) -> None:
    """A document says that it is JSON."""
    answer = post(new_report(), content_type=content_type)

    assert (415, "unsupported_type", False) == refusal_of(answer)


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd, gzip"])
def test_body_in_another_encoding_is_unsupported(encoding: str, post: Post, new_report: NewDocument) -> None:
    """What the server cannot unpack is named, so that a sender may try another."""
    answer = post(new_report(), content_encoding=encoding)

    assert (415, "unsupported_encoding", False) == refusal_of(answer)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"kind": "events"},
        {"x": 1.0},
        {"id": "short"},
        {"id": "A" * 32},
        {"day": "2026-02-30"},
        {"programs": None},
        {"programs": [{"program": "mytool"}]},
    ],
    ids=json.dumps,
)
def test_report_that_breaks_a_rule_is_invalid(changes: Json, post: Post, new_report: NewDocument) -> None:
    """JSON that is no report is refused with what is wrong about it."""
    answer = post(new_report(**changes))

    assert (422, "invalid", False) == refusal_of(answer)


@pytest.mark.parametrize("count", [-1, 1 << 53, 1.5, "1", True])
def test_report_with_a_count_that_is_none_is_invalid(count: object, post: Post, new_report: NewDocument) -> None:
    """A count is a whole number that every reader keeps exactly."""
    report = new_report()
    report["programs"][0]["counters"]["cmd/export"] = count

    answer = post(report)

    assert (422, "invalid", False) == refusal_of(answer)


@pytest.mark.parametrize(
    "changes",
    [
        {"terminal": 0},
        {"events": [], "lost": 0, "terminal": None},
        {"first": -1},
        {"session": "0" * 31},
        {"events": [{"name": "export"}]},
    ],
    ids=json.dumps,
)
def test_batch_that_breaks_a_rule_is_invalid(changes: Json, post: Post, new_batch: NewDocument) -> None:
    """A batch whose numbers cannot be is refused with what is wrong about it."""
    answer = post(new_batch(**changes), "/v1/events")

    assert (422, "invalid", False) == refusal_of(answer)


@pytest.mark.parametrize(("age", "code"), [(22, "too_old"), (-2, "from_the_future")])
def test_report_of_a_day_out_of_reach_is_refused(age: int, code: str, post: Post, new_report: NewDocument) -> None:
    """A report's day lies between 21 days ago and tomorrow."""
    day = datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=age)

    answer = post(new_report(day=day.isoformat()))

    assert (422, code, False) == refusal_of(answer)


def test_request_that_breaks_framing_gets_a_plain_400_and_a_closed_connection(http: httpx.Client) -> None:
    """What is no HTTP is not answered in words, and nothing behind it is read."""
    at = urllib.parse.urlsplit(str(http.base_url))

    with socket.create_connection((at.hostname, at.port), timeout=10) as sender:
        sender.sendall(b"POST /v1/reports HTTP/1.1\r\nHost: server\r\nContent-Length: many\r\n\r\n")
        answer = b"".join(iter(lambda: sender.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")


def test_sender_that_is_too_slow_is_answered_408(slow_senders: Callable[[], Json]) -> None:
    """A head that does not come within 10 s, or a body within 30 s of it, is ended with a word to try again."""
    answers = slow_senders()

    assert {"head", "body"} == answers.keys()
    for answer in answers.values():
        head, _, body = answer["answer"].partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 408 "), answer
        assert ("too_slow", True) == (json.loads(body)["error"]["code"], json.loads(body)["error"]["retry"])
    assert 9 <= answers["head"]["seconds"] <= 13
    assert 29 <= answers["body"]["seconds"] <= 34
