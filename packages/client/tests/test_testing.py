from __future__ import annotations

import gzip
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from tallypost.clock import day_of
from tallypost.errors import NoAnswer
from tallypost.testing import FakeClock, FakeRandom, FakeTransport, FaultyDisk, instant
from tallypost.uploads.transport import Answer
from tallypost_schema.receipts import is_receipt_of


def test_fake_clock_stands_until_it_is_set_or_slept_on() -> None:
    """Time goes on only where a test says so."""
    clock = FakeClock("2026-11-20T12:00:00Z")
    begin = clock.now()

    clock.sleep(90)

    assert (begin + 90, [90]) == (clock.now(), clock.slept)
    clock.set("2026-11-20T12:00:00Z")
    assert begin == clock.now()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:01", 60),
    ],
)
def test_instant_is_utc_unless_told_otherwise(text: str, at: float) -> None:
    """The machine's time zone says nothing."""
    assert at == instant(text)


def test_instant_of_what_is_no_time_raises() -> None:
    """A wrong time is wrong use, found where it is given."""
    with pytest.raises(ValueError, match="soon"):
        instant("soon")


def test_fake_random_repeats_its_fraction_and_no_bytes() -> None:
    """Two ids are never the same; the drawn number always is."""
    random = FakeRandom(0.25)

    assert [0.25, 0.25] == [random.fraction(), random.fraction()]
    assert 2 == len({random.bytes(16), random.bytes(16)})
    assert 16 == len(random.bytes(16))


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


def test_faulty_disk_raises_for_changes_and_for_no_question(tmp_path: Path) -> None:
    """A full disk can still be read."""
    disk = FaultyDisk()
    path = str(tmp_path / "file")
    disk.replace(path, b"before")

    disk.fail(OSError(28, "No space left on device"))

    for change in (
        lambda: disk.replace(path, b"after"),
        lambda: disk.create(f"{path}-2", b""),
        lambda: disk.make_folder(f"{path}-3"),
        lambda: disk.create_block(f"{path}-4", b"", 4096),
    ):
        with pytest.raises(OSError, match="No space"):
            change()
    assert (b"before", ["file"]) == (disk.read(path), disk.names(str(tmp_path)))
    disk.fail(None)
    disk.replace(path, b"after")
    assert b"after" == disk.read(path)


def test_faulty_disk_acts_at_the_fault_points_that_are_named(tmp_path: Path) -> None:
    """A point that is passed is counted; an action there happens before what follows."""
    disk = FaultyDisk()
    there: list[bool] = []
    path = str(tmp_path / "file")
    disk.at("before_link", lambda: there.append(disk.exists(path)))
    disk.at("after_link", lambda: there.append(disk.exists(path)))

    disk.create(path, b"x")

    assert [False, True] == there
    assert (1, 1) == (disk.points["before_link"], disk.points["after_link"])


def run_at(at: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run words under another clock."""
    return subprocess.run(
        [sys.executable, "-m", "tallypost.testing", "--at", at, "--", *words],
        capture_output=True,
        text=True,
        check=False,
    )


NOW = "import sys; from tallypost.clock import SystemClock; print(SystemClock().now()); sys.exit(len(sys.argv))"


def test_testing_as_a_program_runs_another_one_at_that_instant() -> None:
    """The clock goes on from there; the other program's arguments and exit status are its own."""
    begin = time.monotonic()

    done = run_at("2026-11-20T12:00:00Z", "python", "-c", NOW, "a", "--at", "b")

    assert 4 == done.returncode
    assert "" == done.stderr
    assert 0 <= float(done.stdout) - instant("2026-11-20T12:00:00Z") <= time.monotonic() - begin


def test_testing_as_a_program_within_itself_goes_by_the_inner_time() -> None:
    """A shift within a shift is from the machine's own time."""
    done = run_at(
        "2020-01-01T00:00:00Z",
        "python",
        "-m",
        "tallypost.testing",
        "--at",
        "2021-01-01T00:00:00Z",
        "--",
        "python",
        "-c",
        NOW,
    )

    assert "2021-01-01" == day_of(float(done.stdout))


def test_testing_as_a_program_gives_a_second_pair_of_dashes_on() -> None:
    """Only the first ``--`` is its own."""
    show = "import sys; print(sys.argv[1:])"

    done = run_at("2020-01-01T00:00:00Z", "python", "-c", show, "--", "-x", "--at", "--")

    assert "['--', '-x', '--at', '--']\n" == done.stdout


def test_testing_as_a_program_runs_the_command(tmp_path: Path) -> None:
    """``tallypost`` is this installation's own, at that time."""
    done = run_at(
        "2026-11-20T12:00:00Z", "tallypost", "--dir", str(tmp_path), "--app", "example.org/mytool", "off", "--json"
    )

    assert 0 == done.returncode
    assert "off 2026-11-20 1 user\n" == (tmp_path / "example.org" / "mytool" / "mode").read_text()


@pytest.mark.parametrize("words", [(), ("--at", "soon", "--", "python"), ("--at", "2026-11-20"), ("--", "python")])
def test_testing_as_a_program_used_wrongly_exits_2(words: tuple[str, ...]) -> None:
    """Without a time or a command nothing is run."""
    done = subprocess.run(
        [sys.executable, "-m", "tallypost.testing", *words], capture_output=True, text=True, check=False
    )

    assert (2, "") == (done.returncode, done.stdout)
    assert "usage" in done.stderr
