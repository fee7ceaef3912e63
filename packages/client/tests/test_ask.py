from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from tallypost import Telemetry
from tallypost.ask import ask, is_terminal
from tallypost.state_directory import StateDirectory
from tallypost.testing import FaultyDisk
from tallypost_schema import declaration as declarations

from .conftest import APPLICATION, DECLARATION

Start = Callable[..., Telemetry]

PROGRAM = f"""
from tallypost import Telemetry
telemetry = Telemetry("{APPLICATION}", "1", declaration="telemetry.toml", dir="state", uploader="manual",
                      endpoint="https://telemetry.example.org", environ={{}})
print("mode", telemetry.ask())
"""


def asked(typed: str, *, question: str | None = None, declaration: str = DECLARATION) -> tuple[str | None, str]:
    """The answer to what was typed, and what the screen showed."""
    screen = io.StringIO()
    declared = declarations.parse(declaration)
    answer = ask(declared, question=question, endpoint=None, keyboard=io.StringIO(typed), screen=screen)
    return answer, screen.getvalue()


@pytest.fixture
def at_a_terminal(tmp_path: Path, declaration: Path) -> Callable[[bytes], str]:
    """Run a program that asks, at a terminal where something is typed; what the terminal showed."""

    def run(typed: bytes) -> str:
        environ = {name: value for name, value in os.environ.items() if name not in ("CI", "TALLYPOST")}
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # The other end is closed: Linux says so by an error.
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        process.wait(30)
        return shown.decode()

    return run


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y\n", "on"),
        (" YES \n", "on"),
        ("n\n", "local"),
        ("no\n", "local"),
        ("\n", "local"),
        ("what?\nyes\n", "on"),
        ("", None),
        ("a\nb\nc\nyes\n", None),
    ],
)
def test_ask_takes_yes_and_no_and_never_silence_for_a_yes(typed: str, answer: str | None) -> None:
    """Enter is a no; the end of the input, and whatever is no answer, are none."""
    assert answer == asked(typed)[0]


def test_ask_says_how_much_may_leave_and_how_to_see_and_change_it() -> None:
    """Whoever answers knows what the question is about."""
    shown = asked("n\n", declaration=f'about = "https://example.org/telemetry"\n{DECLARATION}')[1]

    assert "numbers for 4 declared names" in shown
    assert "https://example.org/telemetry" in shown
    assert f"tallypost --app {APPLICATION} preview" in shown
    assert f"tallypost --app {APPLICATION} on | off" in shown


def test_ask_in_the_applications_words_begins_with_them() -> None:
    """The makers know how to speak to their users."""
    assert asked("\n", question="Help us to choose what to keep?")[1].startswith("Help us to choose what to keep?\n")


def test_is_terminal_of_files_of_none_and_of_what_is_closed_is_false() -> None:
    """A program without a console has no streams at all."""
    closed = io.StringIO()
    closed.close()

    assert [False, False, False] == [is_terminal(io.StringIO()), is_terminal(None), is_terminal(closed)]


def test_ask_at_a_terminal_saves_the_users_answer(at_a_terminal: Callable[[bytes], str], tmp_path: Path) -> None:
    """A real terminal: the answer is the user's, and the program goes on in the new mode."""
    shown = at_a_terminal(b"yes\n")

    assert "https://telemetry.example.org" in shown
    assert "mode on" in shown
    saved = (tmp_path / "state" / APPLICATION / "mode").read_text().split()
    assert ("on", "1", "user") == (saved[0], saved[2], saved[3])


def test_ask_at_a_terminal_again_asks_nothing(at_a_terminal: Callable[[bytes], str]) -> None:
    """A no is asked once."""
    at_a_terminal(b"no\n")

    assert "May it be posted?" not in at_a_terminal(b"")


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "local"),
        ({"environ": {"DO_NOT_TRACK": "1"}}, "off"),
        ({"default": "off"}, "off"),
    ],
)
def test_ask_where_nobody_sits_gives_the_mode_and_saves_nothing(
    application: Start,
    settings: dict[str, object],
    mode: str,
    directory: StateDirectory,
    disk: FaultyDisk,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In a test run there is no terminal: nothing is printed, waited for or saved."""
    assert mode == application(**settings).ask()
    assert not disk.exists(directory.mode)
    assert ("", "") == capfd.readouterr()


@pytest.mark.parametrize(
    ("said", "version", "asks"),
    [(None, 1, True), ("on", 1, False), ("on", 2, True), ("local", 2, False), ("off", 2, False)],
)
def test_asks_for_an_answer_only_where_one_is_missing(
    application: Start, declaration: Path, said: Literal["on", "local", "off"] | None, version: int, asks: bool
) -> None:
    """A no holds for every version; a yes for the one that it was said to."""
    if said is not None:
        application().set_mode(said)
    declaration.write_text(DECLARATION.replace("consent_version = 1", f"consent_version = {version}"))

    assert asks == (application()._daily().asks_for() is not None)


@pytest.mark.parametrize(
    "settings", [{"environ": {"TALLYPOST": "local"}}, {"environ": {"DO_NOT_TRACK": "1"}}, {"declaration": None}]
)
def test_asks_for_nothing_where_something_else_decides_or_nothing_could_leave(
    application: Start, settings: dict[str, object]
) -> None:
    """A question whose answer would change nothing is not asked."""
    assert application(**settings)._daily().asks_for() is None
