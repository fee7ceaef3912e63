from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tallypost import Telemetry
from tallypost.cli.events import line_of, show_events
from tallypost.clock import day_of, spelled
from tallypost.events.overview import ShownEvent
from tallypost.testing import FakeClock

DAY = 86_400
Command = Callable[..., Any]
DECLARED = """
[events.export]
why = "Which formats follow each other"
owner = "export team"
expires = "never"
fields = { format = ["pdf", "a b"], pages = "count", took = "seconds", quiet = "flag" }

[events."export/done"]
why = "Whether it came to its end"
owner = "export team"
expires = "never"
"""
LOGGING = """
import sys
from tallypost import Telemetry

telemetry = Telemetry("example.org/mytool", "1", declaration=sys.argv[1], dir=sys.argv[2], uploader="manual")
for line in sys.stdin:
    telemetry.event("export", pages=int(line))
"""


@pytest.fixture
def application(application: Callable[..., Telemetry], declaration: Path) -> Callable[..., Telemetry]:
    """An application that declares events."""
    declaration.write_text(declaration.read_text() + DECLARED)
    return application


@pytest.fixture
def now() -> float:
    """The machine's time, which the commands go by; the application's clock is set relative to it."""
    return time.time()


@pytest.fixture
def logged(application: Callable[..., Telemetry], clock: FakeClock, now: float) -> str:
    """An event yesterday, and two today, in a session each; the instant of the latter."""
    clock.set(spelled(now - DAY))
    first = application()
    first.event("export", format="pdf", pages=3)
    first.close()
    clock.set(spelled(now))
    second = application()
    second.event("export", format="a b", took=0.5, quiet=True)
    second.event("export/done")
    second.close()
    return spelled(now)[:-1]


def shown(where: str = "log", **changed: object) -> ShownEvent:
    """An event as it is shown."""
    facts = {"session": "ab" * 16, "index": 7, "name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {}}
    return ShownEvent(**{**facts, "where": where, **changed})  # type: ignore[arg-type]  # A test's own facts.


def test_show_events_prints_each_on_a_line_oldest_first(command: Command, logged: str) -> None:
    """When, in which session at which index, what, and its fields; words with a space are quoted."""
    said = command("show", "--events")

    lines = [line.split("  ") for line in said.text.splitlines()]
    assert (0, "") == (said.status, said.err)
    assert ["export", "export", "export/done"] == [line[2] for line in lines]
    assert ["format=pdf pages=3", 'format="a b" took=0.5 quiet=true'] == [line[3] for line in lines[:2]]
    assert [f"{logged}.000Z"] * 2 == [line[0] for line in lines[1:]]
    assert ["0", "0", "1"] == [line[1].partition("/")[2] for line in lines]


def test_show_events_with_json_is_an_object_a_line(command: Command, logged: str) -> None:
    """For programs: everything that is known of an event, and where it lies."""
    said = command("show", "--events", "--json")

    facts = [json.loads(line) for line in said.text.splitlines()]
    session = facts[-1]["session"]
    assert {
        "session": session,
        "index": 1,
        "name": "export/done",
        "at": f"{logged}.000Z",
        "fields": {},
        "where": "log",
    } == facts[-1]
    assert [0, 0, 1] == [one["index"] for one in facts]
    assert {"format": "a b", "took": 0.5, "quiet": True} == facts[1]["fields"]


def test_show_events_of_a_name_and_of_days_shows_those_alone(command: Command, logged: str) -> None:
    """As for counts: what contains the text, within so many UTC days."""
    assert 1 == len(command("show", "--events", "done").text.splitlines())
    assert 2 == len(command("show", "--events", "--days", "1").text.splitlines())
    assert 3 == len(command("show", "--events", "--days", "2").text.splitlines())
    assert 1 == len(command("show", "--events", "--days", "1", "done").text.splitlines())


def test_show_events_where_there_is_none_says_so_beside_the_output(command: Command, logged: str) -> None:
    """Exit 0, and nothing on standard output."""
    said = command("show", "--events", "import")

    assert (0, b"", "No such event has been logged.\n") == (said.status, said.out, said.err)


def test_show_without_events_shows_counts_alone(command: Command, logged: str) -> None:
    """An event is no count."""
    assert "export" not in command("show").text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--follow",), "--follow is for --events"),
        (("--events", "--watch"), "--watch is for counts"),
        (("--events", "--days", "0"), "allowed are whole numbers"),
        (("--events", "export", "import"), "unrecognized arguments"),
    ],
)
def test_show_events_used_wrongly_is_exit_2(command: Command, logged: str, words: tuple[str, ...], told: str) -> None:
    """What belongs to counts, and what belongs to events."""
    said = command("show", *words)

    assert (2, b"") == (said.status, said.out)
    assert told in said.err


def test_line_of_an_event_tells_where_it_lies_if_not_in_its_log() -> None:
    """The user sees what left."""
    assert "2026-11-24T10:00:00.123Z  abababab/7  export  pages=3" == line_of(shown(fields={"pages": 3}))
    assert "2026-11-24T10:00:00.123Z  abababab/7  export  [sent]" == line_of(shown("sent"))


def test_line_of_an_event_that_was_withheld_says_so() -> None:
    """Its place is there, and nothing else is known."""
    assert "-                         abababab/7  (withheld)  [pending]" == line_of(
        shown("pending", name=None, at=None)
    )


def test_line_of_an_event_quotes_what_would_move_a_cursor() -> None:
    """A log is a file, and whoever wrote to it may have written anything."""
    line = line_of(shown(fields={"format": "\x1b[2J", "empty": ""}))

    assert line.endswith('export  format="\\u001b[2J" empty=""')


def test_show_events_that_follows_prints_each_once_and_ends_with_ctrl_c() -> None:
    """What comes meanwhile is printed as it comes; an event that moves on to its batch is not printed again."""
    first, second = shown(index=0), shown(index=1)
    looks = [[first], [shown("pending", index=0)], [shown("sent", index=0), second], [second]]
    out = io.StringIO()

    class Clock(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if not looks:
                raise KeyboardInterrupt

    n = show_events(lambda: looks.pop(0), as_json=False, chosen=lambda event: True, follow=True, clock=Clock(), out=out)

    assert 2 == n
    assert [line_of(first), line_of(second)] == out.getvalue().splitlines()


def test_show_events_that_follows_shows_what_comes_after_midnight(
    application: Callable[..., Telemetry], command: Command, clock: FakeClock, now: float
) -> None:
    """`--days` looks back; what is of a later day than today was asked for."""
    clock.set(f"{day_of(now + DAY)}T00:00:01Z")
    run = application()
    run.event("export/done")
    run.close()

    assert 1 == len(command("show", "--events", "--days", "1").text.splitlines())


class Following:
    """A real `tallypost show --events --follow`, and a real process that logs meanwhile."""

    def __init__(self, base: Path, declaration: Path) -> None:
        hidden = ("PYTEST_CURRENT_TEST", "PYTEST_VERSION", "CI", "DO_NOT_TRACK", "TALLYPOST_DIR")
        environ = {variable: value for variable, value in os.environ.items() if variable not in hidden}
        environ |= {"PYTHONPATH": os.pathsep.join(sys.path), "TALLYPOST": "local"}
        self.logging = subprocess.Popen(
            [sys.executable, "-c", LOGGING, str(declaration), str(base)], env=environ, stdin=subprocess.PIPE, text=True
        )
        words = ["--dir", str(base), "--app", "example.org/mytool", "--json", "show", "--events", "--follow"]
        self.following = subprocess.Popen(
            [sys.executable, "-m", "tallypost", *words],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def log(self, pages: int) -> None:
        stdin = _pipe(self.logging.stdin)
        stdin.write(f"{pages}\n")
        stdin.flush()

    def next(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(_pipe(self.following.stdout).readline())
        return line

    def close(self) -> None:
        for process in (self.logging, self.following):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@pytest.fixture
def following(application: object, base: Path, declaration: Path) -> Iterator[Following]:
    """Somebody looks while an application logs."""
    following = Following(base, declaration)
    following.log(1)
    yield following
    following.close()


def test_follow_shows_what_a_process_logs_and_ends_with_ctrl_c_and_exit_0(following: Following) -> None:
    """Each event within a moment, while its process goes on."""
    seen = [following.next()]
    following.log(2)
    seen.append(following.next())
    following.log(3)
    seen.append(following.next())
    following.following.send_signal(signal.SIGINT)

    assert 0 == following.following.wait(20)
    assert [(0, 1), (1, 2), (2, 3)] == [(one["index"], one["fields"]["pages"]) for one in seen]
    assert "" == _pipe(following.following.stderr).read()


def test_follow_whose_reader_ends_ends_with_the_next_event(following: Following) -> None:
    """As with `head`: no traceback, nothing that goes on for nobody."""
    following.next()
    _pipe(following.following.stdout).close()
    following.log(2)

    assert 1 == following.following.wait(20)
    assert "" == _pipe(following.following.stderr).read()
