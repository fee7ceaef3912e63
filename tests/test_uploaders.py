"""Uploaders of one machine, however many, against a real server: each document once, fifteen a minute, a no at once."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import zstandard

Day = Callable[[int], str]

POSTS_MAX, WINDOW_SECONDS = 15, 60


class Post(NamedTuple):
    """A post as it arrived."""

    at: float
    document: bytes


class Between(http.server.ThreadingHTTPServer):
    """Stands between users and the server: sees each post arrive, hands it on, and may answer late."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.server_port_behind = port
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.posts: list[Post] = []
        self.answer_after = 0.0
        # Posts after so many are answered once they are let go.
        self.answered_max = sys.maxsize
        self.let_go = threading.Event()

    def wait_for_posts(self, count: int, seconds: float = 20) -> None:
        """Wait until so many posts have arrived."""
        until = time.monotonic() + seconds
        while len(self.posts) < count:
            assert time.monotonic() < until, f"{len(self.posts)} posts within {seconds} s"
            time.sleep(0.01)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An uploader that was killed hangs up: nothing to tell."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands one request on, and its answer back."""

    server: Between

    def do_GET(self) -> None:
        """The upload config."""
        self._hand_on(b"")

    def do_POST(self) -> None:
        """A document."""
        body = self.rfile.read(int(self.headers["content-length"]))
        assert "zstd" == self.headers["content-encoding"]
        document = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        self.server.posts.append(Post(time.monotonic(), document))
        self._hand_on(body)

    def _hand_on(self, body: bytes) -> None:
        behind = http.client.HTTPConnection("127.0.0.1", self.server.server_port_behind, timeout=20)
        try:
            behind.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = behind.getresponse()
            content = answer.read()
        finally:
            behind.close()
        if self.command == "POST":
            time.sleep(self.server.answer_after)
            if len(self.server.posts) > self.server.answered_max:
                self.server.let_go.wait(20)
        self.send_response(answer.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given: object) -> None:
        """Nothing."""


@pytest.fixture
def between(server: Any) -> Iterator[Between]:
    """What users post to."""
    between = Between(server.port)
    thread = threading.Thread(target=between.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield between
    between.shutdown()
    between.server_close()
    thread.join()


@pytest.fixture
def documents_of(user: Any, between: Between, day: Day) -> Callable[[int], list[str]]:
    """Have so many days' documents wait to be posted; their days, oldest first."""

    def count(days: int) -> list[str]:
        counted = [day(ago) for ago in range(days, 0, -1)]
        user.run("python", "-c", user.script("telemetry.set_mode('on')"), at=f"{day(days + 1)}T12:00:00Z")
        # One program that lives through all of these days, by a clock of its own.
        body = f"for n, day in enumerate({counted}, 1):\n    clock.set(day + 'T12:00:00Z')\n"
        body += "    telemetry.counter('cmd/export').inc(n, bucket='pdf')"
        program = user.script(body, between.url).replace("uploader='manual'", "uploader='manual', clock=clock")
        user.run("python", "-c", f"from tallypost.testing import FakeClock\nclock = FakeClock()\n{program}")
        user.run("tallypost", "report")
        assert [f"{one}.json" for one in counted] == lying(user, "pending")
        return counted

    return count


def lying(user: Any, folder: str) -> list[str]:
    """The names in one of the three folders of documents."""
    return sorted(path.name for path in (user.home / "uploads" / folder).iterdir())


def at_once(user: Any, count: int, *, at: str | None = None) -> list[int]:
    """Start so many ``tallypost upload`` at once; their exit statuses."""
    line = [sys.executable, "-m", "tallypost", "upload"]
    if at is not None:
        line = [sys.executable, "-m", "tallypost.testing", "--at", at, "--", "tallypost", "upload"]
    started = [subprocess.Popen(line, env=user.environ, stderr=subprocess.PIPE) for _ in range(count)]
    said = [process.communicate(timeout=100)[1] for process in started]
    statuses = [process.returncode for process in started]
    assert set(statuses) <= {0, 3}, said
    return statuses


def most_in_a_window(posts: Sequence[Post]) -> int:
    """The largest number of posts that arrived within any window."""
    instants = sorted(post.at for post in posts)
    return max(sum(begin <= other < begin + WINDOW_SECONDS for other in instants) for begin in instants)


def assert_sent_once_each(user: Any, server: Any, days: list[str]) -> None:
    """Each day's document lies in ``sent/`` with its own receipt, and as one line in the server's segments."""
    server.end()
    lines = server.lines()
    sent = {one: (user.home / "uploads" / "sent" / f"{one}.json").read_bytes() for one in days}
    receipts = [json.loads((user.home / "uploads" / "sent" / f"{one}.receipt.json").read_bytes()) for one in days]
    hashes = [hashlib.sha256(document).hexdigest() for document in sent.values()]
    assert sorted([f"{one}.json" for one in days] + [f"{one}.receipt.json" for one in days]) == lying(user, "sent")
    assert [] == lying(user, "pending") == lying(user, "refused")
    assert hashes == [receipt["stored"] for receipt in receipts]
    assert sorted(hashes) == sorted(line["sha256"] for line in lines)
    assert len(days) == len({line["stream"] for line in lines}) == len(lines)
    assert {json.loads(document)["id"] for document in sent.values()} == {line["stream"] for line in lines}


def test_five_uploaders_at_once_store_each_of_fourteen_days_once(
    server: Any, user: Any, between: Between, documents_of: Callable[[int], list[str]]
) -> None:
    """Whoever is quicker posts, the others say that one is at work; in the end each document is stored, and once."""
    days = documents_of(14)
    between.answer_after = 0.05
    rounds = [at_once(user, 5)]

    while lying(user, "pending"):
        rounds.append(at_once(user, 5))

    assert [0, 3, 3, 3, 3] == sorted(rounds[0])
    assert [0] == at_once(user, 1)
    assert 14 == len(between.posts)
    assert_sent_once_each(user, server, days)


def test_more_documents_than_a_minute_takes_wait_whoever_is_started_again_or_killed(
    server: Any, user: Any, between: Between, documents_of: Callable[[int], list[str]]
) -> None:
    """Fifteen posts leave in a minute, over all processes; the rest ends with 3, and waits."""
    days = documents_of(20)
    between.answered_max = 3
    line = [sys.executable, "-m", "tallypost", "upload"]
    killed = subprocess.Popen(line, env=user.environ, stderr=subprocess.DEVNULL)
    between.wait_for_posts(4)
    killed.kill()
    killed.wait()
    between.answered_max = sys.maxsize
    between.let_go.set()
    statuses = at_once(user, 5) + at_once(user, 1)
    within_a_minute = len(between.posts)
    statuses += at_once(user, 5)

    assert {3} == set(statuses)
    assert POSTS_MAX == within_a_minute == len(between.posts)
    assert 20 - 14 == len(lying(user, "pending"))  # The one that was killed in its post is posted again.
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + WINDOW_SECONDS + 20))
    assert 0 in at_once(user, 5, at=later)
    server.end()
    assert 20 == len({line["stream"] for line in server.lines()})
    assert [] == lying(user, "pending")
    assert sorted([f"{one}.json" for one in days] + [f"{one}.receipt.json" for one in days]) == lying(user, "sent")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_posts_in_any_minute_are_fifteen_at_most_while_uploaders_come_and_go(
    server: Any, user: Any, between: Between, documents_of: Callable[[int], list[str]]
) -> None:
    """By the clock of whoever receives them, with five uploaders started every few seconds, until nothing is left."""
    days = documents_of(20)
    statuses: list[int] = []
    until = time.monotonic() + 120

    while lying(user, "pending"):
        assert time.monotonic() < until
        statuses += at_once(user, 5)
        time.sleep(3)

    assert {0, 3} == set(statuses)
    assert POSTS_MAX == most_in_a_window(between.posts)
    assert_sent_once_each(user, server, days)


@pytest.mark.parametrize("said", ["off", "local", "by hand"])
def test_no_during_an_upload_lets_the_request_under_way_arrive_and_no_other(
    server: Any, user: Any, between: Between, documents_of: Callable[[int], list[str]], said: str
) -> None:
    """A no in mid-run: what was under way is in ``sent/``, the others are withdrawn, and a later yes sends none."""
    days = documents_of(4)
    between.answer_after = 2.0
    uploading = subprocess.Popen(
        [sys.executable, "-m", "tallypost", "upload"],
        env=user.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    between.wait_for_posts(1)

    if said == "by hand":
        (user.home / "mode").write_text("off\n")
    else:
        told = user.run("tallypost", said).stdout
        assert b"(10 s at most) may still arrive" in told
        assert [] == lying(user, "pending")
    uploading.communicate(timeout=20)

    assert 0 == uploading.returncode  # Nothing is left that may leave.
    between.answer_after = 0.0
    user.run("tallypost", "on")
    user.run("tallypost", "upload")
    assert 1 == len(between.posts)
    assert [] == lying(user, "pending")
    assert [f"{days[0]}.json", f"{days[0]}.receipt.json"] == lying(user, "sent")
    assert sorted([f"{one}.json" for one in days[1:]] + [f"{one}.reason.json" for one in days[1:]]) == lying(
        user, "refused"
    )
    reasons = [json.loads(path.read_bytes()) for path in (user.home / "uploads" / "refused").glob("*.reason.json")]
    assert {"withdrawn"} == {reason["reason"] for reason in reasons}
    server.end()
    assert [hashlib.sha256(between.posts[0].document).hexdigest()] == [line["sha256"] for line in server.lines()]


def test_bytes_shown_are_the_bytes_waiting_posted_hashed_and_kept(
    server: Any, user: Any, between: Between, documents_of: Callable[[int], list[str]]
) -> None:
    """What `preview` shows, waits, is posted, is hashed by the server (receipt, segment) and kept is the same bytes."""
    days = documents_of(3)

    preview = user.run("tallypost", "preview").stdout
    pending = [(user.home / "uploads" / "pending" / f"{one}.json").read_bytes() for one in days]
    user.run("tallypost", "upload")

    sent = [(user.home / "uploads" / "sent" / f"{one}.json").read_bytes() for one in days]
    hashes = [hashlib.sha256(document).hexdigest() for document in pending]
    assert b"".join(document + b"\n" for document in pending) == preview
    assert pending == [post.document for post in between.posts] == sent
    assert hashes == [
        json.loads((user.home / "uploads" / "sent" / f"{one}.receipt.json").read_bytes())["stored"] for one in days
    ]
    server.end()
    assert hashes == [line["sha256"] for line in server.lines()]


# One of two machines that share a home folder, on which neither hears of the other's locks.
HOST = """
import os, sys, time
from tallypost.disk import OsDisk
from tallypost.installed import daily_of

class SharedDisk(OsDisk):
    def is_trusted(self, folder):
        return False

    def try_lock(self, path):
        return super().try_lock(f"{path}.{sys.argv[1]}")

def upload(go):
    daily = daily_of(os.environ["TALLYPOST_DIR"], "example.org/mytool", environ=os.environ, disk=SharedDisk())
    while not os.path.exists(go):
        time.sleep(0.001)
    return daily.upload().nothing_left
"""


def test_two_machines_on_a_shared_folder_make_one_report_a_day_and_store_it_once(
    server: Any, user: Any, between: Between, day: Day
) -> None:
    """Both count, fold and post at once, without trusted locks: each day is one report, one id, one document sent."""
    days = [day(ago) for ago in range(8, 2, -1)]
    user.run("python", "-c", user.script("telemetry.set_mode('on')"), at=f"{day(9)}T12:00:00Z")
    counting = HOST + user.script("", between.url).replace("uploader='manual'", "uploader='manual', disk=SharedDisk()")
    for one in days:
        for name, count in (("first", 2), ("second", 3)):
            body = f"telemetry.counter('cmd/export').inc({count})"
            user.run("python", "-c", counting + body, name, at=f"{one}T12:00:00Z")
    # A file a process and day, which is taken to be finished when it was not written to for two days.
    files = list((user.home / "counts").iterdir())
    assert 2 * len(days) == len(files)
    for file in files:
        os.utime(file, (time.time() - 2.1 * 86400,) * 2)
    between.answer_after = 0.05

    for number in range(3):
        go = user.folder / f"go-{number}"
        code = f"{HOST}print(upload({str(go)!r}))"
        hosts = [
            subprocess.Popen(
                [sys.executable, "-c", code, name], env=user.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for name in ("first", "second")
        ]
        time.sleep(0.5)  # Both are there.
        go.touch()
        told = [host.communicate(timeout=50) for host in hosts]
        assert [0, 0] == [host.returncode for host in hosts], told

    assert {"True\n"} == {out.decode() for out, _ in told}
    assert days == list(user.reports())
    assert 5 * len(days) == user.total("cmd/export")
    assert [] == list((user.home / "counts").iterdir())
    assert [] == lying(user, "pending") == lying(user, "refused")
    assert sorted([f"{one}.json" for one in days] + [f"{one}.receipt.json" for one in days]) == lying(user, "sent")
    server.end()
    stored: dict[str, set[str]] = {}
    for line in server.lines():
        stored.setdefault(line["stream"], set()).add(line["sha256"])
    assert sorted(len(hashes) for hashes in stored.values()) == [1] * len(days)
    sent = [(user.home / "uploads" / "sent" / f"{one}.json").read_bytes() for one in days]
    assert {json.loads(document)["id"]: {hashlib.sha256(document).hexdigest()} for document in sent} == stored
