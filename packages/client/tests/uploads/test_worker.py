from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tallypost.errors import NoAnswer
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeTransport, FaultyDisk
from tallypost.uploads.manager import State, UploadManager
from tallypost.uploads.pending import Pending
from tallypost.uploads.transport import Answer
from tallypost.uploads.worker import Gate, Session, UploadWorker
from tallypost_schema.receipts import encode_error, encode_receipt, hash_of

YES = "on 2026-11-18 1 user"
NAME = "2026-11-19.json"
Make = Callable[..., bytes]
Lying = Callable[[], dict[str, list[str]]]


class Work:
    """A worker with all that it works with."""

    def __init__(self, pending: Pending, clock: FakeClock) -> None:
        self.pending, self.clock, self.transport = pending, clock, FakeTransport()
        self.state = State()
        self.heard: list[str] = []
        self.gate: Gate = lambda name: None
        self.manager = UploadManager(self.state, now=clock.now, draw=lambda: 0.5, save=lambda state: None)
        pending.observe(self.manager.document_recorded)
        self.worker = UploadWorker(
            self.manager,
            pending,
            endpoint="https://host.example/base/",
            transport=self.transport,
            gate=lambda name: self.gate(name),
            clock=clock,
            progress=self.heard.append,
        )

    def run(self, seconds: float = 60.0) -> Session:
        return self.worker.work(self.clock.now() + seconds)


@pytest.fixture
def work(pending: Pending, clock: FakeClock) -> Work:
    """A worker, idle, with an empty database."""
    return Work(pending, clock)


def ours(status: int, *, retry: bool = False) -> Answer:
    """An error as our server tells it."""
    return Answer(status, encode_error("some_code", "what to do", retry=retry), {})


SENT = {"pending": [], "sent": [NAME, "2026-11-19.receipt.json"], "refused": [], "begins": []}
REFUSED = {"pending": [], "sent": [], "refused": [NAME, "2026-11-19.reason.json"], "begins": []}
STAYS = {"pending": [NAME], "sent": [], "refused": [], "begins": [NAME]}
FINAL = (400, 403, 404, 410, 413, 422)
TROUBLE = (401, 402, 405, 406, 407, 408, 409, 418, 421, 423, 425, 426, 428, 429, 431, 451, 499)
PAGE = b"<html>Welcome to our hotel</html>"


def test_work_with_a_receipt_sends_the_document(work: Work, document: Make, lying: Lying) -> None:
    """A document of which the server has the hash is sent, and nothing of it stays in the state but the post."""
    work.pending.record(NAME, document(), YES)

    session = work.run()

    assert SENT == lying()
    assert (1, 0, "nothing is left to send", False) == (session.sent, session.refused, session.why, session.left)
    assert State(posts=[work.clock.now()], why="nothing was left to send") == work.state


def test_work_posts_the_bytes_that_wait_and_keeps_those_that_left(
    work: Work, document: Make, directory: StateDirectory
) -> None:
    """Pending bytes, posted bytes, sent bytes and the receipt's hash are of one document."""
    work.pending.record(NAME, document(), YES)

    work.run()

    [(url, encoding, body)] = work.transport.posted
    assert ("https://host.example/base/v1/reports", "zstd") == (url, encoding)
    assert document() == zstandard.ZstdDecompressor().decompress(body)
    assert document() == (Path(directory.sent) / NAME).read_bytes()
    receipt = json.loads((Path(directory.sent) / "2026-11-19.receipt.json").read_bytes())
    assert {"stored": hash_of(document())} == receipt


def test_work_posts_a_batch_to_events(work: Work) -> None:
    """The kind of a document decides where it goes."""
    batch = (
        b'{"v":1,"kind":"events","app":"example.org/mytool","session":"%s","first":0,"lost":1,"terminal":null,'
        b'"program":{"program":"mytool","version":"1","python":"3.12","os":"linux","arch":"x86_64"},"events":[]}'
    ) % (b"ab" * 16)
    work.pending.record(f"{'ab' * 16}.0.json", batch, YES)

    work.run()

    assert ["https://host.example/base/v1/events"] == [url for url, _, _ in work.transport.posted]


@pytest.mark.parametrize("status", FINAL)
def test_work_refused_in_our_words_moves_the_document_with_the_reason(
    work: Work, document: Make, lying: Lying, directory: StateDirectory, status: int
) -> None:
    """A refusal for good, told in our form, is final; its code and sentence lie beside the document."""
    work.transport.answers = [ours(status)]
    work.pending.record(NAME, document(), YES)

    session = work.run()

    assert REFUSED == lying()
    reason = json.loads((Path(directory.refused) / "2026-11-19.reason.json").read_bytes())
    assert {"reason": "some_code", "message": "what to do"} == reason
    assert (0, 1, False) == (session.sent, session.refused, session.left)
    assert ({}, {}) == (work.state.failures, work.state.next_try)


RECOVERABLE: list[tuple[str, Answer | NoAnswer]] = [
    ("200-empty", Answer(200, b"", {})),
    ("200-page", Answer(200, PAGE, {})),
    ("200-receipt-of-another", Answer(200, encode_receipt(hash_of(b"another")), {})),
    ("200-error", Answer(200, encode_error("invalid", "no", retry=False), {})),
    ("200-nested", Answer(200, b"[" * 50_000, {})),
    *((f"{status}-nothing", Answer(status, b"", {})) for status in (100, 101, 201, 202, 204, 206, 226)),
    *((f"{status}-nothing", Answer(status, PAGE, {})) for status in (300, 301, 302, 303, 304, 307, 308)),
    *((f"{status}-nothing", Answer(status, b"", {})) for status in FINAL),
    *((f"{status}-page", Answer(status, PAGE, {})) for status in FINAL),
    *((f"{status}-retry", ours(status, retry=True)) for status in FINAL),
    *((f"{status}-ours", ours(status)) for status in TROUBLE),
    *((f"{status}-ours", ours(status)) for status in (500, 501, 502, 503, 504, 507, 511, 599)),
    ("503-nothing", Answer(503, b"", {})),
    ("999-ours", ours(999)),
    ("no-answer", NoAnswer("the cable is out")),
]


@pytest.mark.parametrize("answer", [answer for _, answer in RECOVERABLE], ids=[name for name, _ in RECOVERABLE])
def test_work_in_trouble_on_the_way_keeps_the_document(
    work: Work, document: Make, lying: Lying, answer: Answer | NoAnswer
) -> None:
    """Whatever is neither a receipt nor a refusal in our words leaves the document waiting for its next try."""
    work.transport.answers = [answer]
    work.pending.record(NAME, document(), YES)

    session = work.run()

    assert STAYS == lying()
    assert 1 == len(work.transport.posted)
    assert ({NAME: 1}, {NAME: work.clock.now() + 30}) == (work.state.failures, work.state.next_try)
    assert (0, 0, "the next try is later", True) == (session.sent, session.refused, session.why, session.left)
    assert session.last_trouble


@pytest.mark.parametrize("status", [201, 202, 204, 301, 400, 404, 500, 503])
def test_work_with_a_receipt_under_another_status_keeps_the_document(
    work: Work, document: Make, lying: Lying, status: int
) -> None:
    """A receipt counts with a 200 alone."""
    work.transport.answers = [Answer(status, encode_receipt(hash_of(document())), {})]
    work.pending.record(NAME, document(), YES)

    work.run()

    assert STAYS == lying()


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        (ours(415), None, SENT),
        (Answer(415, b"", {}), None, SENT),
        (ours(415), ours(415), REFUSED),
        (Answer(415, b"", {}), ours(415), REFUSED),
        (ours(415), Answer(415, b"", {}), STAYS),
        (ours(415), ours(422), REFUSED),
        (ours(415), Answer(503, b"", {}), STAYS),
        (ours(415), NoAnswer("the cable is out"), STAYS),
    ],
)
def test_work_with_a_415_posts_again_as_gzip_at_once(
    work: Work,
    document: Make,
    lying: Lying,
    first: Answer,
    second: Answer | NoAnswer | None,
    where: dict[str, list[str]],
) -> None:
    """A server that does not take zstd is given gzip, and what it says to that is what counts."""
    work.transport.answers = [first] if second is None else [first, second]
    work.pending.record(NAME, document(), YES)

    work.run()

    assert where == lying()
    assert ["zstd", "gzip"] == [encoding for _, encoding, _ in work.transport.posted]
    assert document() == gzip.decompress(work.transport.posted[1][2])
    assert 2 == len(work.state.posts)


def test_work_with_a_415_as_the_last_post_of_a_minute_waits_with_the_next(work: Work, document: Make) -> None:
    """A post in another form counts like any other: fifteen requests a minute are all there are."""
    for n in range(15):
        work.pending.record(f"2026-11-{n + 1:02}.json", document(f"2026-11-{n + 1:02}"), YES)
    work.transport.answers = [ours(415)]

    session = work.run(seconds=30)

    assert (14, True, 15) == (session.sent, session.left, len(work.transport.posted))


def test_work_after_a_415_posts_later_documents_as_gzip_at_once(work: Work, document: Make) -> None:
    """What a server does not take it is told once in a session of work; the next session asks anew."""
    days = ("2026-11-17", "2026-11-18", "2026-11-19")
    work.transport.answers = [ours(415)]
    for day in days[:2]:
        work.pending.record(f"{day}.json", document(day), YES)

    first = work.run()
    work.pending.record(f"{days[2]}.json", document(days[2]), YES)
    second = work.run()

    assert (2, 1) == (first.sent, second.sent)
    assert ["zstd", "gzip", "gzip", "zstd"] == [encoding for _, encoding, _ in work.transport.posted]


def test_work_with_a_415_to_gzip_too_does_not_turn_back(work: Work, document: Make, lying: Lying) -> None:
    """A server that takes neither refuses each document once."""
    work.transport.answers = [ours(415)] * 3
    for day in ("2026-11-18", "2026-11-19"):
        work.pending.record(f"{day}.json", document(day), YES)

    session = work.run()

    assert (0, 2) == (session.sent, session.refused)
    assert ["zstd", "gzip", "gzip"] == [encoding for _, encoding, _ in work.transport.posted]


def test_work_with_a_415_and_a_no_meanwhile_posts_nothing_more(work: Work, document: Make, lying: Lying) -> None:
    """Posting once more is a post: the gate is asked before it too."""

    class NoMeanwhile(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            answer = super().post(url, body, encoding)
            work.gate = lambda name: "withdrawn"
            work.pending.withdraw("withdrawn", "a no")
            return answer

    transport = NoMeanwhile()
    transport.answers = [ours(415)]
    worker = UploadWorker(
        work.manager,
        work.pending,
        endpoint="https://h",
        transport=transport,
        gate=lambda n: work.gate(n),
        clock=work.clock,
    )
    work.pending.record(NAME, document(), YES)

    worker.work(work.clock.now() + 60)

    assert ["zstd"] == [encoding for _, encoding, _ in transport.posted]
    assert REFUSED == lying()


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("1", 1.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("9" * 400, 86_400.0),
        ("", 30.0),
        ("-5", 30.0),
        ("1.5", 30.0),
        ("1e9", 30.0),
        ("soon", 30.0),
        ("²", 30.0),
        ("Fri, 20 Nov 2026 12:02:00 GMT", 120.0),
        ("Sat, 28 Nov 2026 12:00:00 GMT", 86_400.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 30.0),
        ("Fri, 20 Nov 2026 25:00:00 GMT", 30.0),
    ],
)
def test_work_with_retry_after_heeds_what_can_be_read(work: Work, document: Make, text: str, delay: float) -> None:
    """The server's wish is taken up to a day; the past, and what cannot be read, leaves the backoff as it is."""
    work.transport.answers = [Answer(503, b"", {"retry-after": text})]
    work.pending.record(NAME, document(), YES)

    work.run()

    assert {NAME: work.clock.now() + delay} == work.state.next_try


def test_work_after_three_failures_in_a_row_ends_and_leaves_the_rest(work: Work, document: Make, lying: Lying) -> None:
    """A server that is down is asked three times, whatever waits."""
    work.transport.answers = [NoAnswer("down")] * 9
    for day in range(10, 20):
        work.pending.record(f"2026-11-{day}.json", document(f"2026-11-{day}"), YES)

    session = work.run()

    assert 3 == len(work.transport.posted)
    assert 10 == len(lying()["pending"])
    assert ("3 posts in a row had no success", True) == (session.why, session.left)


def test_work_on_more_than_a_minute_takes_waits_and_goes_on(work: Work, document: Make, lying: Lying) -> None:
    """After 15 posts it waits, if there is time, by the clock that it was given."""
    for day in range(1, 21):
        work.pending.record(f"2026-11-{day:02}.json", document(f"2026-11-{day:02}"), YES)

    session = work.run(seconds=61)

    assert 20 == session.sent
    assert [60.0] == work.clock.slept


def test_work_without_time_for_the_wait_ends_and_leaves_the_rest(work: Work, document: Make, lying: Lying) -> None:
    """The time for a run is kept: what does not fit waits for the next one."""
    for day in range(1, 21):
        work.pending.record(f"2026-11-{day:02}.json", document(f"2026-11-{day:02}"), YES)

    session = work.run(seconds=40)

    assert (15, True) == (session.sent, session.left)
    assert [] == work.clock.slept
    assert 5 == len(lying()["pending"])


def test_work_with_slow_posts_ends_when_the_time_is_up(work: Work, document: Make, lying: Lying) -> None:
    """No post begins behind the end of the run."""

    class Slow(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            work.clock.sleep(10)
            return super().post(url, body, encoding)

    transport = Slow()
    worker = UploadWorker(
        work.manager, work.pending, endpoint="https://h", transport=transport, gate=work.gate, clock=work.clock
    )
    for day in range(10, 20):
        work.pending.record(f"2026-11-{day}.json", document(f"2026-11-{day}"), YES)

    session = worker.work(work.clock.now() + 40)

    assert 4 == len(transport.posted)
    assert ("the time for one run is up", True) == (session.why, session.left)


def test_work_while_at_work_does_nothing(work: Work, document: Make) -> None:
    """One task at a time: a second call, from inside the first one's post, returns at once."""
    inner: list[Session] = []

    class Reentrant(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            inner.append(worker.work(work.clock.now() + 60))
            return super().post(url, body, encoding)

    transport = Reentrant()
    worker = UploadWorker(
        work.manager, work.pending, endpoint="https://h", transport=transport, gate=work.gate, clock=work.clock
    )
    work.pending.record(NAME, document(), YES)

    session = worker.work(work.clock.now() + 60)

    assert [(0, "an upload is under way already")] == [(one.sent, one.why) for one in inner]
    assert (1, 1) == (session.sent, len(transport.posted))


def test_work_takes_what_is_recorded_during_a_post(work: Work, document: Make) -> None:
    """What another thread records meanwhile is posted in the same session, and the one under way only once."""

    class Recording(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            if not self.posted:
                work.pending.record("2026-11-18.json", document("2026-11-18"), YES)
                work.pending.scan()
            return super().post(url, body, encoding)

    transport = Recording()
    worker = UploadWorker(
        work.manager, work.pending, endpoint="https://h", transport=transport, gate=work.gate, clock=work.clock
    )
    work.pending.record(NAME, document(), YES)

    session = worker.work(work.clock.now() + 60)

    posted = [zstandard.ZstdDecompressor().decompress(body) for _, _, body in transport.posted]
    assert [document(), document("2026-11-18")] == posted
    assert (2, "nothing is left to send") == (session.sent, session.why)


def test_work_that_was_interrupted_can_work_again(work: Work, document: Make, lying: Lying) -> None:
    """An error that is nobody's outcome leaves the document where it is and the worker idle."""
    work.pending.record(NAME, document(), YES)

    def broken(name: str) -> str | None:
        raise OSError("the mode file's disk is gone")

    work.gate = broken
    with pytest.raises(OSError, match="gone"):
        work.run()
    assert STAYS == lying()
    work.gate = lambda name: None

    assert 1 == work.run().sent


@pytest.mark.parametrize("reason", ["withdrawn", "other-yes", "too-old"])
def test_work_on_what_the_gate_holds_back_refuses_it_unposted(
    work: Work, document: Make, lying: Lying, directory: StateDirectory, reason: str
) -> None:
    """What may not leave goes to ``refused/`` with the reason, and the network hears nothing."""
    work.gate = lambda name: reason
    work.pending.record(NAME, document(), YES)

    session = work.run()

    assert REFUSED == lying()
    assert reason == json.loads((Path(directory.refused) / "2026-11-19.reason.json").read_bytes())["reason"]
    assert [] == work.transport.posted
    assert (State(why="nothing was left to send"), 1) == (work.state, session.refused)


def test_work_asks_the_gate_before_each_document(work: Work, document: Make, lying: Lying) -> None:
    """A no between two documents is heard: the second is not posted."""
    days = ("2026-11-17", "2026-11-18", "2026-11-19")
    for day in days:
        work.pending.record(f"{day}.json", document(day), YES)
    work.gate = lambda name: "withdrawn" if work.transport.posted else None

    session = work.run()

    assert (1, 2, 1) == (session.sent, session.refused, len(work.transport.posted))
    assert ["2026-11-18.json", "2026-11-18.reason.json", NAME, "2026-11-19.reason.json"] == lying()["refused"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"{}", b'{"v":1,"kind":"report"}', b'{"v":1,"kind":"events"}', b'{"v":2}', b"[" * 99],
)
def test_work_on_what_is_no_document_refuses_it_unposted(
    work: Work, lying: Lying, directory: StateDirectory, content: bytes
) -> None:
    """A damaged file is never posted: it goes to ``refused/`` as unreadable."""
    work.pending.record(NAME, content, YES)

    work.run()

    assert REFUSED == lying()
    assert "unreadable" == json.loads((Path(directory.refused) / "2026-11-19.reason.json").read_bytes())["reason"]
    assert [] == work.transport.posted


def test_work_on_a_report_that_breaks_a_rule_says_which(work: Work, document: Make, directory: StateDirectory) -> None:
    """The reason is about what the document is meant to be."""
    work.pending.record(NAME, document().replace(b'"cmd/export"', b'"Cmd Export"'), YES)

    work.run()

    assert "Cmd Export" in (Path(directory.refused) / "2026-11-19.reason.json").read_text()


def test_work_on_a_document_that_was_sent_before_drops_it(
    work: Work, document: Make, lying: Lying, directory: StateDirectory
) -> None:
    """What is in ``sent/`` is not posted a second time, wherever its copy came from."""
    work.pending.record(NAME, document(), YES)
    work.run()
    (Path(directory.pending) / NAME).write_bytes(document())

    work.pending.scan()
    session = work.run()

    assert SENT == lying()
    assert (0, 1) == (session.sent, len(work.transport.posted))


def test_work_on_a_document_that_is_gone_goes_on(
    work: Work, document: Make, lying: Lying, directory: StateDirectory
) -> None:
    """A file that somebody removed is no error, and is not counted as a post."""
    for day in ("2026-11-18", "2026-11-19"):
        work.pending.record(f"{day}.json", document(day), YES)
    (Path(directory.pending) / "2026-11-18.json").unlink()

    session = work.run()

    assert (1, 0, "nothing is left to send") == (session.sent, session.refused, session.why)
    assert 1 == len(work.state.posts)


def test_work_whose_receipt_cannot_be_written_keeps_the_document(
    work: Work, document: Make, lying: Lying, disk: FaultyDisk
) -> None:
    """Without room for the receipt the document stays, to be posted again: the server keeps one."""

    class ThenFull(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            disk.fail(OSError(28, "No space left on device"))
            return super().post(url, body, encoding)

    worker = UploadWorker(
        work.manager, work.pending, endpoint="https://h", transport=ThenFull(), gate=work.gate, clock=work.clock
    )
    work.pending.record(NAME, document(), YES)

    with pytest.raises(OSError, match="No space"):
        worker.work(work.clock.now() + 60)

    assert STAYS == lying()


def test_work_tells_a_person_what_it_does(work: Work, document: Make) -> None:
    """Each post, what came of it, and each wait is a sentence."""
    work.transport.answers = [ours(503, retry=True), ours(422), ours(415)]
    days = [f"2026-11-{day:02}" for day in range(1, 18)]
    for day in days:
        work.pending.record(f"{day}.json", document(day), YES)

    work.run(seconds=61)

    size = len(document())
    assert [
        f"posting 2026-11-01.json ({size} bytes)",
        "2026-11-01.json stays: HTTP 503 some_code: what to do",
        f"posting 2026-11-02.json ({size} bytes)",
        "2026-11-02.json is refused: HTTP 422 some_code: what to do",
        f"posting 2026-11-03.json ({size} bytes)",
        "zstd is not taken there; gzip is tried from here on",
        f"posting 2026-11-03.json ({size} bytes)",
        "2026-11-03.json is stored",
    ] == work.heard[:8]
    assert "waiting 60 s: 15 posts in 60 s at most" in work.heard


def test_work_repeats_a_strangers_words_without_their_codes(
    work: Work, document: Make, directory: StateDirectory
) -> None:
    """What a server says cannot move a cursor, ring a bell or fill a screen."""
    work.transport.answers = [Answer(422, encode_error("\x1b[2Jx", "a\nb\x07" + "c" * 9999, retry=False), {})]
    work.pending.record(NAME, document(), YES)

    work.run()

    reason = json.loads((Path(directory.refused) / "2026-11-19.reason.json").read_bytes())
    assert (" [2Jx", f"a b {'c' * 496}") == (reason["reason"], reason["message"])
    assert all(sentence.isprintable() and len(sentence) < 600 for sentence in work.heard)


def test_work_says_in_the_state_why_the_next_try_is_when_it_is(work: Work, document: Make) -> None:
    """A person who asks is told what happened, in the words of that time."""
    work.transport.answers = [Answer(503, encode_error("busy", "later", retry=True), {"retry-after": "60"})]
    work.pending.record(NAME, document(), YES)

    work.run()

    assert "the server asked for it: HTTP 503 busy: later" == work.state.why
