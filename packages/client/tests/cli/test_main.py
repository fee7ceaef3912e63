from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost import Telemetry
from tallypost.cli.commands import COMMANDS
from tallypost.clock import day_of, spelled
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock

APPLICATION = "example.org/mytool"
DAY = 86_400
Command = Callable[..., Any]


@pytest.fixture
def now(clock: FakeClock) -> float:
    """The machine's time, which the commands go by; the application's clock is set relative to it."""
    return time.time()


@pytest.fixture
def counted_yesterday(
    application: Callable[..., Telemetry], clock: FakeClock, now: float, directory: StateDirectory
) -> str:
    """The application said yes three days ago and counted yesterday; the day's name."""
    clock.set(spelled(now - 3 * DAY))
    run = application()
    run.set_mode("on")
    clock.set(spelled(now - DAY))
    run.counter("cmd/export").inc(3)
    run.close()
    return day_of(now - DAY)


def test_command_missing_or_unknown_is_wrong_use(command: Command) -> None:
    """Exit 2, nothing on standard output, and help on standard error."""
    for words in ((), ("frobnicate",), ("--json",), ("status", "more"), ("check",), ("status", "--no-such")):
        said = command(*words)

        assert (2, b"") == (said.status, said.out), words
        assert "usage: tallypost" in said.err


@pytest.mark.parametrize("word", COMMANDS)
def test_command_help_has_an_example(command: Command, word: str) -> None:
    """Every command's help ends with an example of it, on standard output."""
    said = command(word, "--help")

    assert (0, "") == (said.status, said.err)
    assert f"example:\n  {COMMANDS[word][1]}" in said.text


@pytest.mark.parametrize(
    "name", ["../mytool", "..", "/etc", "example.org/../../x", "Example.org", "a//b", "", "a/b/", "x" * 101]
)
@pytest.mark.parametrize("word", ["status", "forget"])
def test_command_with_an_app_that_is_no_name_is_wrong_use(
    command: Command, tmp_path: Path, word: str, name: str
) -> None:
    """A name leads to a folder: one that leads elsewhere is refused before anything is read or removed."""
    (tmp_path / "mytool" / "private").mkdir(parents=True)

    said = command("--app", name, word)

    assert (2, b"") == (said.status, said.out)
    assert (tmp_path / "mytool" / "private").exists()


def test_command_without_app_finds_the_only_one(command: Command, counted_yesterday: str) -> None:
    """Where one application counted, it is meant."""
    said = command("status", "--json")

    assert (0, "example.org/mytool") == (said.status, json.loads(said.out)["application"])


def test_command_without_app_where_none_is_is_wrong_use(command: Command, base: Path) -> None:
    """It says where it looked and what to do, and makes nothing."""
    said = command("status")

    assert (2, b"") == (said.status, said.out)
    assert str(base) in said.err
    assert "--app" in said.err
    assert not base.exists()


def test_command_without_app_where_several_are_names_them(command: Command, counted_yesterday: str) -> None:
    """It does not choose: it names all of them, and exits 2."""
    command("--app", "example.org/another", "off")

    said = command("status")

    assert (2, b"") == (said.status, said.out)
    assert "example.org/another, example.org/mytool" in said.err
    assert 0 == command("--app", APPLICATION, "status").status


@pytest.mark.parametrize(
    "words",
    [
        ("--json", "--app", APPLICATION, "status"),
        ("status", "--json", "--app", APPLICATION),
        ("--app", APPLICATION, "status", "--json"),
        ("--json", "status", "--app", APPLICATION),
    ],
)
def test_command_takes_its_settings_before_and_behind_the_word(
    command: Command, counted_yesterday: str, words: tuple[str, ...]
) -> None:
    """Nobody has to remember on which side they stand."""
    said = command(*words)

    assert 0 == said.status
    assert APPLICATION == json.loads(said.out)["application"]


def test_command_with_dir_looks_there(command: Command, counted_yesterday: str, base: Path, tmp_path: Path) -> None:
    """``--dir`` stands in place of TALLYPOST_DIR, on either side."""
    elsewhere = str(tmp_path / "elsewhere")

    for words in (("--dir", str(base), "status", "--json"), ("status", "--dir", str(base), "--json")):
        assert 0 == command(*words, TALLYPOST_DIR=elsewhere).status
    assert 2 == command("status", TALLYPOST_DIR=elsewhere).status


def test_command_in_a_directory_that_cannot_be_used_fails(command: Command, tmp_path: Path) -> None:
    """Trouble of the disk is exit 1 and a sentence, no traceback."""
    (tmp_path / "file").touch()

    said = command("--dir", str(tmp_path / "file"), "--app", APPLICATION, "off")

    assert (1, b"") == (said.status, said.out)
    assert said.err.startswith("tallypost: ")
    assert "Traceback" not in said.err


# -------------------------------------------------------------------- each command


def test_status_as_json_has_the_promised_keys(
    command: Command, counted_yesterday: str, directory: StateDirectory
) -> None:
    """The facts that programs read, and nothing else on standard output."""
    said = command("status", "--json")

    facts = json.loads(said.out)
    promised = ["mode", "source", "since", "dir", "pending", "sent", "refused", "next_try", "losses"]
    assert (0, "", 1) == (said.status, said.err, said.out.count(b"\n"))
    assert promised == list(facts)[: len(promised)]
    assert ("on", "mode file", directory.path) == (facts["mode"], facts["source"], facts["dir"])


def test_status_for_people_says_mode_source_and_place(
    command: Command, counted_yesterday: str, directory: StateDirectory
) -> None:
    """What is decided, by whom, and where the files are."""
    said = command("status")

    assert said.text.startswith("example.org/mytool: on\n")
    assert "the saved answer" in said.text
    assert directory.path in said.text


def test_status_for_people_says_what_waits_was_sent_refused_and_lost(
    command: Command, counted_yesterday: str, directory: StateDirectory
) -> None:
    """Names, numbers and reasons, in sentences."""
    command("report")
    for folder, name, content in (
        (directory.sent, "2026-01-01.json", "{}"),
        (directory.refused, "2026-01-02.json", "{}"),
        (directory.refused, "2026-01-02.reason.json", '{"reason":"other-yes","message":"another yes"}'),
        (directory.counts, "x.count", "noise"),
    ):
        Path(folder, name).write_text(content)

    text = command("status").text

    assert f"waiting      1 document(s): {counted_yesterday}.json\n" in text
    assert "sent         1, the last 2026-01-01.json\n" in text
    assert "refused      1, the last 2026-01-02.json: other-yes (another yes)\n" in text
    assert "lost         1 damaged-count-files: count files that cannot be read\n" in text


def test_status_under_do_not_track_says_so(command: Command, counted_yesterday: str) -> None:
    """What a variable imposes is not hidden behind the saved answer."""
    facts = json.loads(command("status", "--json", DO_NOT_TRACK="1").out)

    assert ("off", "DO_NOT_TRACK") == (facts["mode"], facts["source"])


@pytest.mark.parametrize("mode", ["on", "local", "off"])
def test_mode_said_is_saved_as_the_users(command: Command, base: Path, mode: str, now: float) -> None:
    """Also before the application ever ran."""
    said = command("--app", APPLICATION, mode, "--json")

    assert 0 == said.status
    assert f"{mode} {day_of(now)} 1 user\n" == (base / APPLICATION / "mode").read_text()
    assert {"mode": mode, "saved": mode, "withdrawn": []} == json.loads(said.out)


def test_on_under_an_imposed_off_says_that_it_is_off(command: Command) -> None:
    """The answer is saved, and what decides here all the same is said."""
    said = command("--app", APPLICATION, "on", DO_NOT_TRACK="1")

    assert 0 == said.status
    assert "In this environment the mode is off: decided by the variable DO_NOT_TRACK." in said.text


def test_off_says_what_was_withdrawn_and_what_may_still_arrive(command: Command, counted_yesterday: str) -> None:
    """A no is exact about what it can no longer stop."""
    command("report")

    said = command("off")

    assert "1 document(s) that waited will not be sent" in said.text
    assert "may still arrive" in said.text
    assert 0 == json.loads(command("status", "--json").out)["pending"]


def test_show_as_json_has_the_promised_shape(command: Command, counted_yesterday: str) -> None:
    """Days, programs, counters and stacks."""
    said = command("show", "--json")

    [day] = json.loads(said.out)["days"]
    [program] = day["programs"]
    assert counted_yesterday == day["day"]
    assert ("mytool", "1.2.3", {"cmd/export": 3}, {}) == tuple(
        program[key] for key in ("program", "version", "counters", "stacks")
    )


def test_show_for_people_is_a_table_of_today_and_the_week(command: Command, counted_yesterday: str) -> None:
    """A line a name; what goes into a pipe is the same table."""
    said = command("show")

    assert (0, "") == (said.status, said.err)
    assert [["name", "bucket", "today", "this", "week"], ["cmd/export", "0", "3"]] == [
        line.split() for line in said.text.splitlines()
    ]


def test_show_with_days_has_a_column_each(command: Command, counted_yesterday: str) -> None:
    """Up to seven of them, and their sum."""
    said = command("show", "--days", "2")

    assert [["name", "bucket", counted_yesterday[5:], "today", "2", "days"], ["cmd/export", "3", "0", "3"]] == [
        line.split() for line in said.text.splitlines()
    ]


def test_show_with_a_part_of_names_has_only_those(command: Command, counted_yesterday: str) -> None:
    """In the table and in the facts, whose shape stays."""
    assert ["cmd/export", "0", "3"] == command("show", "port").text.splitlines()[-1].split()
    assert [counted_yesterday] == [day["day"] for day in json.loads(command("show", "port", "--json").out)["days"]]
    assert {"days": []} == json.loads(command("show", "import", "--json").out)
    assert {"days": []} == json.loads(command("show", "--days", "1", "--json").out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("import",), 'Nothing whose name contains "import" has been counted.'),
        (("--days", "1"), "Nothing has been counted today; --days 2 shows more."),
    ],
)
def test_show_of_nothing_says_why_on_standard_error(
    command: Command, counted_yesterday: str, words: tuple[str, ...], sentence: str
) -> None:
    """An empty table is exit 0, and the word about it is no part of the result."""
    said = command("show", *words)

    assert (0, b"", f"{sentence}\n") == (said.status, said.out, said.err)


@pytest.mark.parametrize(
    "words",
    [("--days", "0"), ("--days", "x"), ("--days", "9999"), ("--watch", "0"), ("--watch", "nan"), ("--watch", "cmd/")],
)
def test_show_used_wrongly_exits_2_and_says_what_is_allowed(command: Command, words: tuple[str, ...]) -> None:
    """Also a name that was taken for the seconds."""
    said = command("--app", APPLICATION, "show", *words)

    assert (2, b"") == (said.status, said.out)
    assert "allowed are" in said.err


def test_show_watched_through_a_pipe_writes_each_change_once(counted_yesterday: str, base: Path) -> None:
    """As lines of JSON, each with the promised shape; Ctrl-C is exit 0."""
    words = ["--dir", str(base), "show", "--json", "--watch", "0.1"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TALLYPOST": "on"}
    watching = subprocess.Popen(
        [sys.executable, "-u", "-m", "tallypost", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    )
    assert watching.stdout is not None
    assert watching.stderr is not None

    first = watching.stdout.readline()
    later = Telemetry(APPLICATION, "1.2.3", dir=base, environ={"TALLYPOST": "on"}, uploader="manual")
    later.counter("cmd/open").inc()
    second = watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    rest, err = watching.communicate(timeout=20)
    later.close()

    assert (0, b"") == (watching.returncode, err)
    assert [counted_yesterday] == [day["day"] for day in json.loads(first)["days"]]
    assert 2 == len(json.loads(second)["days"])
    assert b"" == rest


def test_show_whose_reader_ends_is_quiet_about_it(counted_yesterday: str, base: Path) -> None:
    """`tallypost show | head` has no traceback and no complaint."""
    words = [sys.executable, "-m", "tallypost", "--dir", str(base), "show", "--watch", "0.1"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TALLYPOST": "on"}
    reading, writing = os.pipe()
    os.close(reading)

    watching = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, env=environ, timeout=20, check=False)
    os.close(writing)

    assert (1, b"") == (watching.returncode, watching.stderr)


def test_report_prints_the_files_that_it_made(
    command: Command, counted_yesterday: str, directory: StateDirectory
) -> None:
    """The first time it makes the report, the second time there is nothing to make; both are exit 0."""
    first, second = command("report"), command("report")

    assert (0, f"{directory.local_report(counted_yesterday)}\n") == (first.status, first.text)
    assert (0, b"") == (second.status, second.out)
    assert {"made": []} == json.loads(command("report", "--json").out)


def test_preview_prints_the_exact_bytes_a_line_each(
    command: Command, counted_yesterday: str, directory: StateDirectory
) -> None:
    """What stands on standard output is what lies in ``pending/``, and nothing else, with --json too."""
    for words in (("preview",), ("preview", "--json")):
        said = command(*words)

        waiting = Path(directory.pending, f"{counted_yesterday}.json").read_bytes()
        assert (0, waiting + b"\n", "") == (said.status, said.out, said.err)


def test_preview_in_mode_local_says_on_standard_error_that_nothing_is_posted(
    command: Command, counted_yesterday: str, directory: StateDirectory
) -> None:
    """The word about it never mixes with the bytes."""
    command("local")

    said = command("preview")

    assert counted_yesterday == json.loads(said.out)["day"]
    assert "local" in said.err
    assert [] == list(Path(directory.pending).iterdir())


def test_upload_posts_and_exits_0_when_nothing_is_left(
    command: Command, counted_yesterday: str, receiver: Any, directory: StateDirectory
) -> None:
    """Previewed, posted and kept bytes are the same, through a real connection."""
    shown = command("preview").out

    said = command("upload", TALLYPOST_ENDPOINT=receiver.url)

    assert (0, "Posted 1 document(s); nothing is left to send.\n") == (said.status, said.text)
    assert [shown[:-1]] == receiver.documents
    assert shown[:-1] == Path(directory.sent, f"{counted_yesterday}.json").read_bytes()


def test_upload_exits_3_and_says_why_when_something_is_left(
    command: Command, counted_yesterday: str, receiver: Any
) -> None:
    """Trouble on the way is no failure of the command: something is left."""
    receiver.status = 503

    said = command("upload", "--json", TALLYPOST_ENDPOINT=receiver.url)

    facts = json.loads(said.out)
    assert (3, 0, False) == (said.status, facts["sent"], facts["nothing_left"])
    assert "HTTP 503" in facts["sentence"]
    assert "posting" in said.err


def test_upload_exits_3_without_an_endpoint(command: Command, counted_yesterday: str) -> None:
    """What may leave and has nowhere to go is left."""
    said = command("upload")

    assert 3 == said.status
    assert "no endpoint is known" in said.text


def test_upload_exits_0_where_nothing_may_leave(command: Command, counted_yesterday: str, receiver: Any) -> None:
    """In mode local there is nothing to send."""
    command("local")

    said = command("upload", TALLYPOST_ENDPOINT=receiver.url)

    assert (0, []) == (said.status, receiver.documents)
    assert "Nothing may leave" in said.text


def test_forget_removes_all_and_keeps_an_off(command: Command, counted_yesterday: str, base: Path) -> None:
    """Without a no nothing stays; with one, the no."""
    assert 0 == command("forget").status
    assert not (base / APPLICATION).exists()

    command("--app", APPLICATION, "off")
    assert 0 == command("forget").status
    assert ["mode"] == [path.name for path in (base / APPLICATION).iterdir()]


def test_module_run_as_a_program_is_the_command(tmp_path: Path) -> None:
    """``python -m tallypost`` is the same command, and its exit status reaches the shell."""
    done = subprocess.run(
        [sys.executable, "-m", "tallypost", "--dir", str(tmp_path), "status"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (2, "") == (done.returncode, done.stdout)
    assert "no application has counted" in done.stderr


def test_page_of_the_commands_has_each_of_them_with_its_example() -> None:
    """A section a command, in the order of ``--help``, each with the example that the help has."""
    page = (Path(__file__).resolve().parents[4] / "docs" / "client" / "commands.md").read_text()

    sections = re.findall(r"^### `tallypost ([a-z]+)", page, re.MULTILINE)

    assert list(COMMANDS) == sections
    assert [] == [example for _, example in COMMANDS.values() if f"$ {example}\n" not in page]
