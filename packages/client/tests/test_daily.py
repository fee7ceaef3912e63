from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from tallypost import Telemetry, WrongUse, limits
from tallypost.daily import Daily, LastRun, not_before_in
from tallypost.disk import OsDisk
from tallypost.errors import NoAnswer, NoStateDirectory
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeRandom, FakeTransport, FaultyDisk
from tallypost.uploads.transport import Answer
from tallypost_schema import documents, upload_config
from tallypost_schema.receipts import encode_error
from tallypost_schema.upload_config import UploadConfig

APPLICATION = "example.org/mytool"
ENDPOINT = "https://telemetry.example.org"
Make = Callable[..., Daily]
Start = Callable[..., Telemetry]


@pytest.fixture
def transport() -> FakeTransport:
    """A server in memory."""
    return FakeTransport()


@pytest.fixture
def daily(
    directory: StateDirectory,
    declaration: Path,
    clock: FakeClock,
    disk: FaultyDisk,
    random: FakeRandom,
    transport: FakeTransport,
) -> Make:
    """The daily work, as a command or an uploader of its own would begin it."""

    def make(**changes: Any) -> Daily:
        given: dict[str, Any] = {
            "last_run": LastRun(APPLICATION, "mytool", "1.2.3", ENDPOINT, "none"),
            "declaration": declaration.read_bytes(),
            "default": "local",
            "environ": {"TALLYPOST": "on"},
            "clock": clock,
            "disk": disk,
            "random": random,
            "transport": transport,
            **changes,
        }
        return Daily(directory, **given)

    return make


@pytest.fixture
def day(application: Start, clock: FakeClock) -> Callable[..., None]:
    """Have the application run on a day: it counts, and ends."""

    def run(date: str, exports: int = 3) -> None:
        clock.set(f"{date}T12:00:00Z")
        run = application()
        run.counter("cmd/export").inc(exports, bucket="pdf")
        run.counter("secret/thing").inc()
        run.close()

    return run


@pytest.fixture
def said_yes(daily: Make, day: Callable[..., None], clock: FakeClock) -> Daily:
    """A yes on the 20th, counts on the 21st and 22nd, and now it is the 23rd."""
    clock.set("2026-11-20T12:00:00Z")
    daily().set_mode("on", who="user")
    day("2026-11-21", 3)
    day("2026-11-22", 5)
    clock.set("2026-11-23T08:00:00Z")
    return daily()


def names_in(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def config(**changes: Any) -> UploadConfig:
    """A config that asks for everything declared."""
    plain = UploadConfig("3", {"cmd/export": 1.0}, {"export/seconds": 1.0}, {}, {})
    return msgspec.structs.replace(plain, **changes)


def test_daily_work_without_a_post_loads_no_network() -> None:
    """A status, or the mode that an application asks for, does not wait for an HTTP library."""
    code = "import sys, tallypost.daily; print({'httpx', 'asyncio', 'ssl'} & sys.modules.keys())"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run([sys.executable, "-S", "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert "set()" == done.stdout.strip()


# -------------------------------------------------------------------- report


def test_report_makes_the_days_that_are_over(said_yes: Daily, directory: StateDirectory) -> None:
    """Each day that is over and was counted has a local report, and what may leave waits."""
    made = said_yes.report()

    assert ["2026-11-21", "2026-11-22"] == made
    assert ["2026-11-21.json", "2026-11-22.json"] == names_in(directory.pending)
    assert [] == said_yes.report()


@pytest.mark.parametrize("environ", [{"TALLYPOST": "off"}, {"DO_NOT_TRACK": "1", "TALLYPOST": "on"}, {"CI": "1"}])
def test_report_in_mode_off_does_nothing(
    said_yes: Daily, daily: Make, directory: StateDirectory, environ: dict[str, str]
) -> None:
    """Off is no file, not even a report."""
    assert [] == daily(environ=environ).report()
    assert [] == names_in(directory.reports)


def test_report_where_nothing_was_ever_counted_makes_nothing(daily: Make, base: Path) -> None:
    """A command for an application that never ran leaves no folder."""
    assert [] == daily().report()
    assert not base.exists()


def test_report_during_which_a_person_says_no_leaves_nothing_waiting(
    said_yes: Daily, daily: Make, directory: StateDirectory, disk: FaultyDisk
) -> None:
    """The reporter began under the yes; what it records after the no is withdrawn with the rest."""
    disk.at("before_pending", lambda: daily(disk=FaultyDisk()).set_mode("off", who="user"))

    said_yes.report()

    assert [] == names_in(directory.pending)
    assert "2026-11-21.reason.json" in names_in(directory.refused)


def test_no_to_a_second_copy_of_what_was_sent_drops_it(said_yes: Daily, directory: StateDirectory) -> None:
    """What has left stays in ``sent/``, and is nowhere else."""
    said_yes.upload()
    copy = Path(directory.sent, "2026-11-21.json").read_bytes()
    Path(directory.pending, "2026-11-21.json").write_bytes(copy)

    said_yes.set_mode("off", who="user")

    assert ([], []) == (names_in(directory.pending), names_in(directory.refused))
    assert "2026-11-21.json" in names_in(directory.sent)


def test_report_sweeps_what_processes_left_that_ended_in_the_middle(
    said_yes: Daily, directory: StateDirectory, clock: FakeClock
) -> None:
    """A begin without a document, and declarations under which nothing lies here: a day later they go."""
    said_yes.report()
    begin = Path(directory.begins, "2026-11-01.json")
    old = [Path(directory.declarations, name) for name in ("00000000-1.toml", "00000000-1.events")]
    for path in (begin, *old):
        path.write_text("x")
        os.utime(path, (clock.now(), clock.now()))
    folders = (directory.begins, directory.declarations)
    kept = [path for folder in folders for path in Path(folder).iterdir() if path not in (begin, *old)]
    said_yes.report()
    assert begin.exists()

    clock.sleep(86_401)
    said_yes.report()

    assert not any(path.exists() for path in (begin, *old))
    assert all(path.exists() for path in kept)


# -------------------------------------------------------------------- preview


def test_preview_in_mode_on_shows_the_bytes_that_are_posted_and_kept(
    said_yes: Daily, directory: StateDirectory, transport: FakeTransport
) -> None:
    """Previewed, pending, posted and sent bytes are the same."""
    shown = said_yes.preview()
    waiting = [Path(directory.pending, name).read_bytes() for name in names_in(directory.pending)]

    said_yes.upload()

    posted = [zstandard.ZstdDecompressor().decompress(body) for _, _, body in transport.posted]
    sent = [Path(directory.sent, f"2026-11-{day}.json").read_bytes() for day in (21, 22)]
    assert 2 == len(shown.documents)
    assert shown.documents == waiting == posted == sent
    assert shown.word is None


def test_preview_shows_what_is_declared_alone(said_yes: Daily) -> None:
    """A name that nobody declared is in no document."""
    reports = [documents.decode_report(document) for document in said_yes.preview().documents]

    assert [{"cmd/export": 3, "cmd/export:pdf": 3}, {"cmd/export": 5, "cmd/export:pdf": 5}] == [
        report.programs[0].counters for report in reports
    ]
    assert [None, "2026-11-21"] == [report.previous for report in reports]


def test_preview_in_mode_local_shows_what_a_yes_would_have_posted(
    daily: Make, day: Callable[..., None], clock: FakeClock, directory: StateDirectory
) -> None:
    """Without a yes the documents are shown as they would be, with a word, and none waits."""
    day("2026-11-21", 3)
    day("2026-11-22", 5)
    clock.set("2026-11-23T08:00:00Z")

    shown = daily().preview()

    reports = [documents.decode_report(document) for document in shown.documents]
    assert [("2026-11-21", None), ("2026-11-22", "2026-11-21")] == [(one.day, one.previous) for one in reports]
    assert [3, 5] == [report.programs[0].counters["cmd/export"] for report in reports]
    assert shown.word is not None
    assert "local" in shown.word
    assert [] == names_in(directory.pending)
    assert shown.documents == daily().preview().documents


def test_preview_in_mode_local_shows_no_day_beyond_the_horizon(
    daily: Make, day: Callable[..., None], clock: FakeClock
) -> None:
    """What is too old to be posted would not be."""
    day("2026-11-01")
    day("2026-11-02")
    clock.set("2026-11-23T08:00:00Z")

    shown = [documents.decode_report(document).day for document in daily().preview().documents]

    assert ["2026-11-02"] == shown


def test_preview_in_mode_off_shows_nothing_and_says_so(said_yes: Daily, daily: Make) -> None:
    """Off posts nothing."""
    said_yes.set_mode("off", who="user")

    shown = daily().preview()

    assert [] == shown.documents
    assert shown.word is not None
    assert "off" in shown.word


def test_preview_leaves_out_what_is_held_back(said_yes: Daily, directory: StateDirectory, clock: FakeClock) -> None:
    """What lies in ``pending/`` and would not be posted (no yes, another yes, too old) is not shown."""
    said_yes.report()
    Path(directory.pending, "2026-11-19.json").write_bytes(b"{}")
    Path(directory.begins, "2026-11-21.json").write_text("on 2026-11-19 1 user")

    shown = [documents.decode_report(document).day for document in said_yes.preview().documents]

    assert ["2026-11-22"] == shown
    clock.set("2026-12-24T08:00:00Z")
    assert [] == said_yes.preview().documents


# -------------------------------------------------------------------- upload


def test_upload_posts_what_may_leave_and_sets_the_next_try(
    said_yes: Daily, directory: StateDirectory, transport: FakeTransport
) -> None:
    """All three phases: reported, posted, sent, and nothing to do for a day."""
    heard: list[str] = []

    result = said_yes.upload(progress=heard.append)

    assert (True, 2, "Posted 2 document(s); nothing is left to send.") == (
        result.nothing_left,
        result.sent,
        result.sentence,
    )
    assert {f"{ENDPOINT}/v1/reports"} == {url for url, _, _ in transport.posted}
    assert ["reported 2026-11-21", "reported 2026-11-22"] == [word for word in heard if word.startswith("reported")]
    assert "2026-11-24T08:00:00Z" == said_yes.status()["next_try"]
    assert not said_yes.is_due()


def test_upload_again_posts_nothing_again(said_yes: Daily, transport: FakeTransport) -> None:
    """A day is posted once."""
    said_yes.upload()

    result = said_yes.upload()

    assert (True, 0, 2) == (result.nothing_left, result.sent, len(transport.posted))


def test_upload_in_trouble_says_why_and_what_is_left(
    said_yes: Daily, transport: FakeTransport, directory: StateDirectory
) -> None:
    """Without an answer the documents wait, and a person reads what the trouble was."""
    transport.answers = [NoAnswer("the cable is out")] * 9

    result = said_yes.upload()

    assert (False, 0) == (result.nothing_left, result.sent)
    assert "Posted 0 document(s); 2 still wait: the next try is later (the cable is out)." == result.sentence
    assert ["2026-11-21.json", "2026-11-22.json"] == names_in(directory.pending)


def test_upload_by_itself_waits_for_the_next_try_and_by_hand_does_not(
    said_yes: Daily, daily: Make, transport: FakeTransport, clock: FakeClock
) -> None:
    """The backoff is kept from run to run; a person who asks now is heard."""
    transport.answers = [NoAnswer("down")] * 3
    said_yes.upload(now=False)
    assert 2 == len(transport.posted)

    daily().upload(now=False)
    assert 2 == len(transport.posted)
    daily().upload()
    assert 4 == len(transport.posted)


def test_upload_of_more_than_a_minute_takes_says_what_is_left(
    daily: Make, day: Callable[..., None], clock: FakeClock, transport: FakeTransport
) -> None:
    """Fifteen in a minute holds for a person too, and from one run to the next."""
    clock.set("2026-11-02T12:00:00Z")
    daily().set_mode("on", who="user")
    for date in range(3, 20):
        day(f"2026-11-{date:02}")
    clock.set("2026-11-20T08:00:00Z")

    first, second = daily().upload(), daily().upload()
    clock.sleep(61)
    third = daily().upload()

    assert [(False, 15), (False, 0), (True, 2)] == [(one.nothing_left, one.sent) for one in (first, second, third)]


def test_upload_while_another_is_at_work_does_nothing(
    said_yes: Daily, disk: FaultyDisk, directory: StateDirectory, transport: FakeTransport
) -> None:
    """One uploader a directory; that something is left is said."""
    lock = disk.try_lock(directory.uploader_lock)
    assert lock is not None

    result = said_yes.upload()

    assert (False, 0) == (result.nothing_left, result.sent)
    assert [] == transport.posted
    lock.release()
    assert said_yes.upload().nothing_left


def test_upload_right_after_a_yes_has_nothing_to_do(daily: Make, transport: FakeTransport) -> None:
    """A yes may be said before anything was counted."""
    daily().set_mode("on", who="user")

    result = daily().upload()

    assert (True, 0) == (result.nothing_left, result.sent)


def test_upload_posts_nothing_of_the_day_of_the_yes(
    daily: Make, day: Callable[..., None], clock: FakeClock, transport: FakeTransport
) -> None:
    """Only what began on a day after the yes may leave."""
    day("2026-11-20")
    daily().set_mode("on", who="user")
    day("2026-11-20")
    clock.set("2026-11-21T08:00:00Z")

    result = daily().upload()

    assert (True, 0, []) == (result.nothing_left, result.sent, transport.posted)


@pytest.mark.parametrize("mode", ["local", "off"])
def test_upload_without_a_yes_asks_nobody_anything(
    daily: Make, day: Callable[..., None], clock: FakeClock, transport: FakeTransport, mode: str
) -> None:
    """In mode local or off there is no request at all, and nothing is left to send."""
    day("2026-11-20")
    daily().set_mode(mode, who="user")  # type: ignore[arg-type]  # A mode.
    clock.set("2026-11-21T08:00:00Z")

    result = daily().upload()

    assert (True, 0) == (result.nothing_left, result.sent)
    assert ([], []) == (transport.posted, transport.asked)


def test_upload_in_mode_off_writes_nothing(daily: Make, day: Callable[..., None], clock: FakeClock, base: Path) -> None:
    """Off leaves every file as it is."""
    day("2026-11-20")
    daily().set_mode("off", who="user")
    clock.set("2026-11-21T08:00:00Z")
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}

    daily().upload()

    assert before == {path: path.stat().st_mtime_ns for path in base.rglob("*")}


def test_upload_in_mode_local_reports_for_the_user(
    daily: Make, day: Callable[..., None], clock: FakeClock, directory: StateDirectory
) -> None:
    """Without a yes the days are still put together, for the user alone, once a day."""
    day("2026-11-20")
    clock.set("2026-11-21T13:00:00Z")

    daily().upload(now=False)

    assert ["local.2026-11-20.json"] == names_in(directory.reports)
    assert not daily().is_due()


def test_upload_in_mode_local_keeps_the_newest_session_logs(
    daily: Make, directory: StateDirectory, disk: FaultyDisk
) -> None:
    """A tool that is run many times a day, by somebody who was never asked, leaves no file for each run for ever."""
    for folder in directory.folders():
        disk.make_folder(folder)
    for n in range(limits.session_logs_kept + 2):
        disk.create(directory.session_log(f"{n:032x}"), b"noise\n")

    daily().upload()

    assert limits.session_logs_kept == len(disk.names(directory.events))


def test_upload_posts_what_waits_where_a_session_is_another_users(
    said_yes: Daily, directory: StateDirectory, disk: FaultyDisk, transport: FakeTransport
) -> None:
    """Trouble with events is told, and holds no report back."""

    class OfAnother(FaultyDisk):
        def try_lock(self, path: str) -> Any:
            if path.endswith(".life"):
                raise PermissionError(13, "Permission denied", path)
            return super().try_lock(path)

    disk.create(directory.session_log("0" * 32), b"noise\n")
    disk.__class__ = OfAnother
    said: list[str] = []

    said_yes.upload(progress=said.append)

    assert 2 == len(transport.posted)
    assert any("some events wait for the next run" in sentence for sentence in said)


def test_upload_without_an_endpoint_keeps_the_documents(
    said_yes: Daily, daily: Make, transport: FakeTransport, directory: StateDirectory
) -> None:
    """An application that names no server posts nowhere."""
    result = daily(last_run=LastRun(APPLICATION, "mytool", "1.2.3", "", "none")).upload()

    assert (False, 0) == (result.nothing_left, result.sent)
    assert "no endpoint is known" in result.sentence
    assert ([], 2) == (transport.asked, len(names_in(directory.pending)))


def test_upload_with_the_variable_posts_there_instead(said_yes: Daily, daily: Make, transport: FakeTransport) -> None:
    """TALLYPOST_ENDPOINT stands in place of the application's own."""
    environ = {"TALLYPOST": "on", "TALLYPOST_ENDPOINT": "http://localhost:8080/"}

    daily(environ=environ).upload()

    assert ["http://localhost:8080/v1/config/example.org/mytool"] == [url for url, _ in transport.asked]
    assert {"http://localhost:8080/v1/reports"} == {url for url, _, _ in transport.posted}


@pytest.mark.parametrize("endpoint", ["ftp://host/", "https://", "host.example", "https://a\x00b"])
def test_endpoint_that_is_no_address_is_none(daily: Make, endpoint: str) -> None:
    """What cannot be posted to is known before anything is tried."""
    assert daily(environ={"TALLYPOST_ENDPOINT": endpoint}).endpoint() is None


def test_upload_of_what_was_begun_under_another_yes_refuses_it(
    said_yes: Daily, daily: Make, clock: FakeClock, transport: FakeTransport, directory: StateDirectory
) -> None:
    """A document that waited under an earlier yes is never posted under a later one."""
    said_yes.report()
    Path(directory.mode).write_text("on 2026-11-22 1 user\n")

    result = daily().upload()

    assert (True, 0, []) == (result.nothing_left, result.sent, transport.posted)
    reason = json.loads(Path(directory.refused, "2026-11-21.reason.json").read_bytes())
    assert "other-yes" == reason["reason"]


def test_upload_of_what_is_older_than_the_horizon_refuses_it(
    said_yes: Daily, daily: Make, clock: FakeClock, transport: FakeTransport, directory: StateDirectory
) -> None:
    """21 days and no more: what waited longer is not posted."""
    said_yes.report()
    clock.set("2026-12-13T12:00:00Z")

    result = daily().upload()

    assert (True, 1) == (result.nothing_left, result.sent)
    assert ["2026-11-21.json", "2026-11-21.reason.json"] == names_in(directory.refused)
    assert "too-old" == json.loads(Path(directory.refused, "2026-11-21.reason.json").read_bytes())["reason"]


def test_upload_hears_a_no_between_two_documents(said_yes: Daily, daily: Make, directory: StateDirectory) -> None:
    """The mode file is read before each post: after a no in the middle of a run nothing more leaves."""

    class ThenNo(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            Path(directory.mode).write_text("off 2026-11-23 1 user\n")
            return super().post(url, body, encoding)

    transport = ThenNo()

    daily(transport=transport).upload()

    assert 1 == len(transport.posted)
    assert ["2026-11-21.json", "2026-11-21.receipt.json"] == names_in(directory.sent)
    assert ["2026-11-22.json", "2026-11-22.reason.json"] == names_in(directory.refused)


def test_upload_during_which_a_person_says_no_keeps_what_left_in_sent(
    said_yes: Daily, daily: Make, directory: StateDirectory
) -> None:
    """The post under way arrives and is shown as sent; what waited is withdrawn."""

    class ThenNo(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            daily().set_mode("off", who="user")
            return super().post(url, body, encoding)

    result = daily(transport=ThenNo()).upload()

    assert (True, 1) == (result.nothing_left, result.sent)
    assert ["2026-11-21.json", "2026-11-21.receipt.json"] == names_in(directory.sent)
    assert ["2026-11-22.json", "2026-11-22.reason.json"] == names_in(directory.refused)


def test_upload_with_damaged_private_files_goes_on(said_yes: Daily, directory: StateDirectory) -> None:
    """What the uploader wrote for itself may be lost or damaged: it costs a config and a backoff, no document."""
    said_yes.report()
    for path in (directory.upload_state, directory.upload_config, directory.not_before):
        Path(path).write_bytes(b"\xff{")

    assert said_yes.is_due()
    assert said_yes.status()["next_try"] is None
    assert said_yes.upload().nothing_left


def test_upload_ends_each_run_within_its_minute(said_yes: Daily, daily: Make, clock: FakeClock) -> None:
    """With posts that take all their time, and a 415 each, the last one ends before the minute does."""

    class Slow(FakeTransport):
        def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
            clock.sleep(10)
            super().post(url, body, encoding)
            return Answer(415 if encoding == "zstd" else 422, encode_error("invalid", "no", retry=False), {})

        def get(self, url: str, etag: str | None) -> Answer:
            clock.sleep(10)
            raise NoAnswer("slow")

    begin = clock.now()

    daily(transport=Slow()).upload()

    assert clock.now() - begin <= 60


@pytest.mark.parametrize("text", [None, "", "soon", "nan", "inf", "-inf", "1e300", "-5", "²"])
def test_is_due_by_a_damaged_word_is_now(said_yes: Daily, directory: StateDirectory, text: str | None) -> None:
    """What cannot be read keeps nobody from the day's work, and breaks no status."""
    Path(directory.not_before).unlink()
    if text is not None:
        Path(directory.not_before).write_text(text)

    assert said_yes.is_due()
    assert 0.0 == not_before_in(text)
    assert said_yes.status()["next_try"] is None


@pytest.mark.parametrize("second", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_is_due_right_after_a_success_is_not_now(said_yes: Daily, clock: FakeClock, second: float) -> None:
    """The next try is written in whole seconds: what is rounded up is no clock set back."""
    clock.sleep(second)
    said_yes.upload()

    assert not said_yes.is_due()


# -------------------------------------------------------------------- upload config


def test_upload_narrows_by_the_config_that_was_fetched(said_yes: Daily, transport: FakeTransport) -> None:
    """What the server does not ask for stays, and the report says by which config."""
    transport.config = Answer(200, upload_config.encode(config(counters={})), {"etag": '"3"'})

    said_yes.upload()

    assert [] == transport.posted
    assert [(f"{ENDPOINT}/v1/config/example.org/mytool", None)] == transport.asked


def test_upload_asks_for_the_config_by_its_etag(
    said_yes: Daily, daily: Make, day: Callable[..., None], clock: FakeClock, transport: FakeTransport
) -> None:
    """A 304 means that the config of before holds."""
    transport.config = Answer(200, upload_config.encode(config()), {"etag": '"3"'})
    said_yes.upload()
    transport.config = Answer(304, b"", {})
    day("2026-11-23")
    clock.set("2026-11-24T08:00:00Z")

    daily().upload()

    assert [None, '"3"'] == [etag for _, etag in transport.asked]
    documents_posted = [documents.decode_report(zstandard.decompress(body)) for _, _, body in transport.posted]
    assert ["3", "3", "3"] == [report.config for report in documents_posted]


@pytest.mark.parametrize(
    "trouble",
    [
        NoAnswer("down"),
        Answer(403, encode_error("unknown_application", "no", retry=False), {}),
        Answer(500, b"", {}),
        Answer(302, b"", {"location": "https://elsewhere/"}),
        Answer(200, b"<html>hotel</html>", {}),
        Answer(200, b'{"version":"4","counters":{"cmd/export":7}}', {}),
    ],
)
def test_upload_without_a_config_to_be_had_takes_the_last_one(
    said_yes: Daily,
    daily: Make,
    day: Callable[..., None],
    clock: FakeClock,
    transport: FakeTransport,
    trouble: Answer | NoAnswer,
) -> None:
    """What the server asked for last still narrows."""
    transport.config = Answer(200, upload_config.encode(config(counters={})), {})
    said_yes.upload()
    transport.config = trouble
    day("2026-11-23")
    clock.set("2026-11-24T08:00:00Z")

    daily().upload()

    assert [] == transport.posted


def test_upload_without_any_config_ever_takes_the_declaration(said_yes: Daily, transport: FakeTransport) -> None:
    """A server that has no config is posted what the declaration names."""
    said_yes.upload()

    reports = [documents.decode_report(zstandard.decompress(body)) for _, _, body in transport.posted]
    assert [None, None] == [report.config for report in reports]


def test_upload_while_paused_posts_nothing_and_keeps_the_documents(
    said_yes: Daily, daily: Make, transport: FakeTransport, directory: StateDirectory
) -> None:
    """A pause is kept by every client; when it ends, what waited is posted."""
    transport.config = Answer(200, upload_config.encode(config(paused=True)), {"etag": '"p"'})

    paused = said_yes.upload()

    assert (False, 0, []) == (paused.nothing_left, paused.sent, transport.posted)
    assert "pause" in paused.sentence
    assert 2 == len(names_in(directory.pending))
    transport.config = Answer(200, upload_config.encode(config()), {})
    assert 2 == daily().upload().sent


# -------------------------------------------------------------------- consent


@pytest.mark.parametrize("mode", ["local", "off"])
def test_set_mode_to_a_no_withdraws_what_waits(
    said_yes: Daily, directory: StateDirectory, transport: FakeTransport, daily: Make, mode: str
) -> None:
    """Local and off are both a no: what waits is not sent, now or ever."""
    said_yes.report()

    withdrawn = said_yes.set_mode(mode, who="user")  # type: ignore[arg-type]  # A mode.

    assert ["2026-11-21.json", "2026-11-22.json"] == withdrawn
    assert [] == names_in(directory.pending)
    assert f"{mode} 2026-11-23 1 user\n" == Path(directory.mode).read_text()
    daily().set_mode("on", who="user")
    daily().upload()
    assert [] == transport.posted


def test_set_mode_on_after_the_clock_was_set_back_lets_nothing_leave_that_was_counted_before(
    said_yes: Daily, daily: Make, clock: FakeClock, directory: StateDirectory, transport: FakeTransport
) -> None:
    """A yes, a no to what was counted since, a yes again by a clock that is days behind: as if on the last of them."""
    clock.set("2026-11-20T13:00:00Z")
    daily().set_mode("local", who="user")
    daily().set_mode("on", who="user")
    line = Path(directory.mode).read_text()
    clock.set("2026-11-24T08:00:00Z")

    daily().upload()

    assert "on 2026-11-22 1 user\n" == line
    assert [] == transport.posted
    assert ["local.2026-11-21.json", "local.2026-11-22.json"] == names_in(directory.reports)


def test_set_mode_on_beside_a_damaged_log_is_a_mode_that_can_be_read(
    daily: Make, clock: FakeClock, directory: StateDirectory, disk: FaultyDisk
) -> None:
    """A mode file that nobody can read means off: no damage elsewhere may turn a yes into that."""
    session = "a" * 32
    header = {"v": 1, "first": 0, "session": session, "begin": "2026-11-99T12:00:00Z", "mode": "", "declaration": ""}
    header |= dict.fromkeys(("app", "program", "version", "python", "os", "arch"), "")
    for folder in directory.folders():
        disk.make_folder(folder)
    disk.create(directory.session_log(session), json.dumps(header).encode() + b"\n")
    clock.set("2026-11-20T12:00:00Z")

    daily().set_mode("on", who="user")

    assert "on 2026-11-20 1 user\n" == Path(directory.mode).read_text()


def test_upload_in_mode_local_where_a_session_is_another_users_is_done_for_the_day(
    daily: Make, directory: StateDirectory, disk: FaultyDisk
) -> None:
    """Trouble with one log is told, and has nobody start an uploader again and again."""

    class OfAnother(FaultyDisk):
        def try_lock(self, path: str) -> Any:
            if path.endswith(".life"):
                raise PermissionError(13, "Permission denied", path)
            return super().try_lock(path)

    for folder in directory.folders():
        disk.make_folder(folder)
    disk.create(directory.session_log("0" * 32), b"noise\n")
    disk.__class__ = OfAnother
    said: list[str] = []

    daily().upload(progress=said.append)

    assert not daily().is_due()
    assert any("some events wait" in sentence for sentence in said)


def test_set_mode_on_beside_counts_of_a_clock_that_was_quite_wrong_is_of_today(
    daily: Make, day: Callable[..., None], clock: FakeClock, directory: StateDirectory
) -> None:
    """Years ahead for a moment: nobody's yes is put off for years."""
    day("2031-11-21")
    clock.set("2026-11-20T12:00:00Z")

    daily().set_mode("on", who="user")

    assert "on 2026-11-20 1 user\n" == Path(directory.mode).read_text()


def test_set_mode_on_said_again_changes_nothing(said_yes: Daily, directory: StateDirectory) -> None:
    """A second yes takes nothing back of the first."""
    said_yes.report()

    withdrawn = said_yes.set_mode("on", who="application")

    assert [] == withdrawn
    assert "on 2026-11-20 1 user\n" == Path(directory.mode).read_text()
    assert 2 == said_yes.upload().sent


@pytest.mark.parametrize(("saved", "line"), [(1, "on 2026-11-23 2 user\n"), (2, None), (3, None)])
def test_set_mode_on_is_a_new_yes_only_when_more_is_asked(
    said_yes: Daily, daily: Make, declaration: Path, directory: StateDirectory, saved: int, line: str | None
) -> None:
    """A yes to more than is asked for stands; a yes to less is said anew, of today."""
    Path(directory.mode).write_text(before := f"on 2026-11-20 {saved} user\n")
    asked = declaration.read_bytes().replace(b"consent_version = 1", b"consent_version = 2")

    daily(declaration=asked).set_mode("on", who="user")

    assert (line or before) == Path(directory.mode).read_text()


def test_set_mode_over_a_damaged_file_writes_a_whole_line(
    said_yes: Daily, daily: Make, directory: StateDirectory
) -> None:
    """A damaged answer is off until somebody answers anew."""
    Path(directory.mode).write_text("on")
    assert "off" == said_yes.decide().mode

    said_yes.set_mode("on", who="user")

    assert "on 2026-11-23 1 user\n" == Path(directory.mode).read_text()


def test_set_mode_to_what_is_no_mode_is_wrong_use(said_yes: Daily, directory: StateDirectory) -> None:
    """Anything else raises where it is said, and changes nothing."""
    with pytest.raises(WrongUse, match="'maybe'"):
        said_yes.set_mode("maybe", who="user")  # type: ignore[arg-type]  # What the test is about.

    assert "on 2026-11-20 1 user\n" == Path(directory.mode).read_text()


def test_set_mode_before_anything_was_counted_is_kept(daily: Make, directory: StateDirectory) -> None:
    """A no may come first, and leaves nothing but itself."""
    daily().set_mode("off", who="administrator")

    assert ["mode"] == names_in(directory.path)
    assert ("off", "mode file") == (daily().decide().mode, daily().decide().source)


def test_set_mode_on_a_full_disk_raises_and_keeps_the_answer(
    said_yes: Daily, disk: FaultyDisk, directory: StateDirectory
) -> None:
    """An answer that could not be saved is told, not assumed."""
    disk.fail(OSError(28, "No space left on device"))

    with pytest.raises(OSError, match="No space"):
        said_yes.set_mode("off", who="user")

    assert "on 2026-11-20 1 user\n" == Path(directory.mode).read_text()


def test_decide_of_an_application_that_ships_off_is_off(said_yes: Daily, daily: Make) -> None:
    """The constructor's off wins over a saved yes."""
    assert ("off", "constructor") == (daily(default="off").decide().mode, daily(default="off").decide().source)


class OthersDisk(OsDisk):
    """A disk on which every folder is another user's."""

    def is_ours(self, path: str) -> bool:
        return False


@pytest.mark.parametrize("act", ["report", "preview", "upload", "forget", "set_mode"])
def test_daily_work_in_another_users_directory_is_refused(said_yes: Daily, daily: Make, base: Path, act: str) -> None:
    """A directory of another user is not used: nothing there is read as an answer, written, or removed."""
    theirs = daily(disk=OthersDisk())
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}

    with pytest.raises(NoStateDirectory, match="another user"):
        theirs.set_mode("on", who="user") if act == "set_mode" else getattr(theirs, act)()

    assert before == {path: path.stat().st_mtime_ns for path in base.rglob("*")}


# -------------------------------------------------------------------- forget


def test_forget_removes_everything_of_the_application(said_yes: Daily, base: Path) -> None:
    """Nothing is left of it, the yes and the folders of its name included."""
    said_yes.upload()

    said_yes.forget()

    assert [] == list(base.iterdir())


@pytest.mark.parametrize("line", ["off 2026-11-22 1 administrator\n", "on", ""])
def test_forget_keeps_an_off(said_yes: Daily, daily: Make, directory: StateDirectory, line: str) -> None:
    """A no outlives all else, also one that only a damaged file says."""
    said_yes.report()
    Path(directory.mode).write_text(line)

    said_yes.forget()

    assert ["mode"] == names_in(directory.path)
    assert "off" == daily().decide().mode


def test_forget_that_is_interrupted_has_kept_the_off(said_yes: Daily, daily: Make, directory: StateDirectory) -> None:
    """At no moment of it is a no out of sight."""
    said_yes.set_mode("off", who="user")

    class Interrupted(FaultyDisk):
        def remove_tree(self, path: str) -> None:
            super().remove_tree(path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        daily(disk=Interrupted()).forget()

    assert "off" == daily().decide().mode
    daily().forget()
    assert ["mode"] == names_in(directory.path)


def test_forget_leaves_an_application_below_it_alone(said_yes: Daily, daily: Make, base: Path) -> None:
    """``example.org`` may be an application too; forgetting it is not forgetting ``example.org/mytool``."""
    above = Daily(
        StateDirectory(str(base), "example.org"),
        last_run=LastRun("example.org", "", "", "", "none"),
        declaration=None,
        default="local",
        environ={},
        clock=FakeClock(),
        disk=FaultyDisk(),
    )
    before = sorted(base.rglob("*"))

    above.forget()

    assert before == sorted(base.rglob("*"))


def test_forget_where_nothing_is_does_nothing(daily: Make, base: Path) -> None:
    """What never was is forgotten."""
    daily().forget()

    assert not base.exists()


# -------------------------------------------------------------------- status and show


def test_status_has_the_promised_keys_first(said_yes: Daily, directory: StateDirectory) -> None:
    """Programs that read it find what is written down."""
    said_yes.report()

    status = said_yes.status()

    promised = ["mode", "source", "since", "dir", "pending", "sent", "refused", "next_try", "losses"]
    assert promised == list(status)[: len(promised)]
    assert ("on", "mode file", "2026-11-20", directory.path, 2, 0, 0) == tuple(status[key] for key in promised[:7])
    assert {} == status["losses"]
    assert status == json.loads(json.dumps(status))


def test_status_counts_documents_and_not_the_words_beside_them(said_yes: Daily, transport: FakeTransport) -> None:
    """Receipts and reasons are no documents."""
    transport.answers = [Answer(422, encode_error("invalid", "no", retry=False), {})]
    said_yes.upload()

    status = said_yes.status()

    assert (0, 1, 1) == (status["pending"], status["sent"], status["refused"])
    assert "2026-11-22.json" == status["last_sent"]


def test_status_names_losses_by_their_reasons(
    application: Start, daily: Make, clock: FakeClock, directory: StateDirectory
) -> None:
    """What was lost is counted under its reason, before and after the day was reported, and so are damaged files."""
    run = application()
    run.counter("cmd/export").inc(-1)
    run.counter("cmd/export").inc(bucket="not a bucket")
    run.close()
    Path(directory.counts, "x.count").write_bytes(b"no count file")
    expected = {"dropped-values": 1, "dropped-buckets": 1, "damaged-count-files": 1}

    today = daily().status()["losses"]
    clock.set("2026-11-21T12:00:00Z")
    daily().report()

    assert expected == today
    assert expected == daily().status()["losses"]


def test_status_tells_what_waits_and_when_it_is_tried_again_and_why(said_yes: Daily, transport: FakeTransport) -> None:
    """Each document with its failures, the next try with its reason."""
    transport.answers = [Answer(503, encode_error("busy", "later", retry=True), {"retry-after": "600"})]
    said_yes.upload()

    status = said_yes.status()

    assert ["2026-11-21.json"] == [one["document"] for one in status["waiting"] if one["failures"] == 1]
    assert "2026-11-23T08:10:00Z" in [one["next_try"] for one in status["waiting"]]
    assert status["next_try_why"]


@pytest.mark.parametrize(
    ("endpoint", "paused", "why"),
    [(None, False, "no endpoint is known"), ("https://t.example.org", True, "the server asks clients to pause")],
)
def test_status_tells_why_nothing_is_posted(
    daily: Make, said_yes: Daily, transport: FakeTransport, endpoint: str | None, paused: bool, why: str
) -> None:
    """Documents wait, and a person can know what for."""
    config = b'{"version":"1","counters":{},"histograms":{},"stacks":{},"events":{},"paused":true}'
    transport.config = Answer(200, config, {}) if paused else transport.config
    uploader = daily(last_run=LastRun(APPLICATION, "mytool", "1.2.3", endpoint or "", "none"))

    uploader.upload()

    assert why == uploader.status()["next_try_why"]


def test_status_tells_the_last_refusal_with_its_reason(said_yes: Daily, transport: FakeTransport) -> None:
    """In the words that lie beside it."""
    transport.answers = [Answer(422, encode_error("invalid", "no such thing", retry=False), {})]
    said_yes.upload()

    assert {"document": "2026-11-21.json", "reason": "invalid", "message": "no such thing"} == (
        said_yes.status()["last_refused"]
    )


def test_status_tells_the_document_that_was_sent_last_whatever_its_name(
    said_yes: Daily, directory: StateDirectory
) -> None:
    """The name of a batch tells no time; when its receipt came does."""
    said_yes.upload()
    newer = f"{'0' * 32}.0.json"
    Path(directory.sent, newer).write_text("{}")
    receipt = Path(directory.sent, newer.replace(".json", ".receipt.json"))
    receipt.write_text("{}")
    os.utime(receipt, (2**32, 2**32))

    assert newer == said_yes.status()["last_sent"]


def test_status_tells_of_evicted_documents(said_yes: Daily, directory: StateDirectory) -> None:
    """What made room for others was lost, and is named."""
    said_yes.report()
    Path(directory.refused, "2026-01-02.json").write_text("{}")
    Path(directory.refused, "2026-01-02.reason.json").write_text('{"reason":"evicted","message":"-"}')

    assert {"evicted-reports": 1} == said_yes.status()["losses"]


def test_status_where_nothing_was_ever_counted_is_a_status(daily: Make, base: Path) -> None:
    """A question leaves no trace."""
    status = daily().status()

    assert ("local", None, 0, 0, 0) == (
        status["mode"],
        status["since"],
        *(status[k] for k in ("pending", "sent", "refused")),
    )
    assert not base.exists()


def test_show_has_each_day_once_today_included(said_yes: Daily, day: Callable[..., None]) -> None:
    """What is reported and what still lies in count files is shown by day, each count once."""
    day("2026-11-23", 7)
    counted = said_yes.show()
    said_yes.report()

    assert counted == said_yes.show()
    assert ["2026-11-21", "2026-11-22", "2026-11-23"] == [one["day"] for one in counted["days"]]
    [program] = counted["days"][2]["programs"]
    assert ("mytool", "1.2.3", {}) == (program["program"], program["version"], program["stacks"])
    assert {"cmd/export": 7, "cmd/export:pdf": 7, "secret/thing": 1} == program["counters"]


def test_show_where_nothing_was_counted_has_no_days(daily: Make) -> None:
    """An empty list, not an error."""
    assert {"days": []} == daily().show()
