"""The examples of `tallypost.contrib`, run as users run them, and read as users read: with ``tallypost show``."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tallypost_schema import declaration

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "contrib"
PROGRAMS = sorted(path.parent.name for path in EXAMPLES.glob("*/telemetry.toml"))
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTEST", "TALLYPOST", "DICE", "FLASK")) and name not in ("CI", "DO_NOT_TRACK")
}


def environment(tmp_path: Path, mode: str = "local", **more: str) -> dict[str, str]:
    """A user's environment, with telemetry in a folder of its own, and nothing written beside the examples."""
    ours = {"TALLYPOST": mode, "TALLYPOST_DIR": str(tmp_path / "state"), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**CLEAN, **ours, "PYTHONUTF8": "1", **more}


def run(tmp_path: Path, program: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a program of the examples; its exit code and its output."""
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    environ = environment(tmp_path, **variables)
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=50, check=False)
    return ended.returncode, ended.stdout


def counters(tmp_path: Path, application: str) -> dict[str, int]:
    """What ``tallypost show`` has of an application, of all days together; durations are added up."""
    command = [sys.executable, "-m", "tallypost", "--app", f"example.org/{application}", "show", "--json"]
    shown = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=True)
    found: dict[str, int] = {}
    for day in json.loads(shown.stdout)["days"]:
        for program in day["programs"]:
            for name, n in program["counters"].items():
                key = name.partition(":")[0] if "/seconds:" in name else name
                found[key] = found.get(key, 0) + n
    return found


class Site:
    """A site of the examples, being served."""

    def __init__(self, tmp_path: Path, program: str) -> None:
        self._tmp_path = tmp_path
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self._port = taken.getsockname()[1]
        command = [sys.executable, str(EXAMPLES / program), "--port", str(self._port)]
        quiet = subprocess.DEVNULL
        environ = environment(tmp_path)
        self._process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=quiet, stderr=quiet)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body of a page."""
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except ConnectionRefusedError:  # Not there yet; if it never comes the test's time limit says so.
                assert self._process.poll() is None
            finally:
                connection.close()

    def counted(self, application: str, requests: int) -> dict[str, int]:
        """What is counted once so many requests are over: an answer arrives a moment before it is counted."""
        while True:
            found = counters(self._tmp_path, application) if (self._tmp_path / "state").exists() else {}
            if found.get("http/status", 0) >= requests:
                return found

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Serve a site until the test is over."""
    sites: list[Site] = []

    def start(program: str) -> Site:
        sites.append(Site(tmp_path, program))
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


@pytest.mark.parametrize("name", PROGRAMS)
def test_contrib_example_has_a_declaration_without_problems(name: str) -> None:
    """What may leave is declared, as in a real application."""
    declared = declaration.parse((EXAMPLES / name / "telemetry.toml").read_text())

    assert declared.counters


def test_argparse_example_counts_commands_and_options(tmp_path: Path) -> None:
    """Commands go by their first name, options are counted behind them, and nothing of what was typed."""
    outputs = [
        run(tmp_path, "argparse/notes.py", "-v", "a", "--tag", "done", "milk"),
        run(tmp_path, "argparse/notes.py", "done", "milk"),
        run(tmp_path, "argparse/notes.py", "throw"),
    ]

    assert [(0, "- milk (done)\n"), (0, "x milk\n"), (2, "")] == outputs
    assert {
        "cli/command": 2,
        "cli/command:add": 1,
        "cli/command:done": 1,
        "cli/option": 2,
        "cli/option:verbose": 1,
        "cli/option:add.tag": 1,
    } == counters(tmp_path, "notes")


def test_click_example_counts_commands_options_and_exits(tmp_path: Path) -> None:
    """An option from the environment is not counted, and each exit code is."""
    codes = [
        run(tmp_path, "click/dice.py", "roll", "-s", "20", "3", DICE_SEED="1")[0],
        run(tmp_path, "click/dice.py", "--seed=1", "coin", "--expect", "tails")[0],
        run(tmp_path, "click/dice.py", "roll", "--no-such-option")[0],
    ]

    assert [0, 3, 2] == codes
    assert {
        "cli/command": 2,
        "cli/command:roll": 1,
        "cli/command:coin": 1,
        "cli/option": 3,
        "cli/option:roll.sides": 1,
        "cli/option:seed": 1,
        "cli/option:coin.expect": 1,
        "cli/exit": 3,
        "cli/exit:0": 1,
        "cli/exit:2": 1,
        "cli/exit:3": 1,
    } == counters(tmp_path, "dice")


def test_typer_example_counts_commands_options_and_exits(tmp_path: Path) -> None:
    """As for click."""
    outputs = [
        run(tmp_path, "typer/lengths.py", "convert", "--unit", "foot", "3"),
        run(tmp_path, "typer/lengths.py", "convert", "--unit", "parsec", "3"),
        run(tmp_path, "typer/lengths.py", "units"),
    ]

    assert [(0, "0.9144\n"), (4, ""), (0, "metre\nfoot\nmile\n")] == outputs
    assert {
        "cli/command": 3,
        "cli/command:convert": 2,
        "cli/command:units": 1,
        "cli/option": 2,
        "cli/option:convert.unit": 2,
        "cli/exit": 3,
        "cli/exit:0": 2,
        "cli/exit:4": 1,
    } == counters(tmp_path, "lengths")


def test_logging_example_counts_records_by_level_and_logger(tmp_path: Path) -> None:
    """Two warnings and a word at the end."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).touch()

    code, _ = run(tmp_path, "logging/tidy_up.py", str(folder))

    assert 0 == code
    assert {
        "log/level": 3,
        "log/level:warning": 2,
        "log/level:info": 1,
        "log/logger/tidy-up": 3,
        "log/logger/tidy-up:warning": 2,
        "log/logger/tidy-up:info": 1,
    } == counters(tmp_path, "tidy-up")


def test_asgi_example_counts_requests(tmp_path: Path, serve: Callable[[str], Site]) -> None:
    """By the template of the route; where no route is, as ``none``."""
    site = serve("asgi/greeter.py")

    answers = [site.ask("/hello/secret"), site.ask("/secret")]

    assert [(200, "Hello, secret!\n"), (404, "Not Found")] == answers
    assert {
        "http/route": 2,
        "http/route:hello.<name>": 1,
        "http/route:none": 1,
        "http/method": 2,
        "http/method:GET": 2,
        "http/status": 2,
        "http/status:2xx": 1,
        "http/status:4xx": 1,
        "http/seconds": 2,
    } == site.counted("greeter", 2)


def test_wsgi_example_counts_requests(tmp_path: Path, serve: Callable[[str], Site]) -> None:
    """A body that is made while it is sent is counted when it is closed."""
    site = serve("wsgi/now.py")

    statuses = [site.ask("/")[0], site.ask("/", method="BREW")[0]]

    assert [200, 405] == statuses
    assert {
        "http/method": 2,
        "http/method:GET": 1,
        "http/method:other": 1,
        "http/status": 2,
        "http/status:2xx": 1,
        "http/status:4xx": 1,
        "http/seconds": 2,
    } == site.counted("now", 2)


def test_flask_example_counts_requests(tmp_path: Path, serve: Callable[[str], Site]) -> None:
    """By the rule of the route."""
    site = serve("flask/sums.py")

    answers = [site.ask("/sum/2/3"), site.ask("/sum/2/secret")]

    assert (200, "5\n") == answers[0]
    assert 404 == answers[1][0]
    assert {
        "http/route": 2,
        "http/route:sum.<a>.<b>": 1,
        "http/route:none": 1,
        "http/method": 2,
        "http/method:GET": 2,
        "http/status": 2,
        "http/status:2xx": 1,
        "http/status:4xx": 1,
        "http/seconds": 2,
    } == site.counted("sums", 2)


def test_django_example_counts_requests(tmp_path: Path, serve: Callable[[str], Site]) -> None:
    """By the route of the resolver; an exception of a view is counted beside its 500."""
    site = serve("django/months.py")

    answers = [site.ask("/month/2/"), site.ask("/month/13/"), site.ask("/secret/")]

    assert (200, "February\n") == answers[0]
    assert [200, 500, 404] == [status for status, _ in answers]
    assert {
        "http/route": 3,
        "http/route:month.<number>": 2,
        "http/route:none": 1,
        "http/method": 3,
        "http/method:GET": 3,
        "http/status": 3,
        "http/status:2xx": 1,
        "http/status:4xx": 1,
        "http/status:5xx": 1,
        "http/exception": 1,
        "http/seconds": 3,
    } == site.counted("months", 3)


@pytest.mark.parametrize("mode", ["local", "on", ""])
def test_pytest_example_counts_outcomes_where_telemetry_was_asked_for(mode: str, tmp_path: Path) -> None:
    """Under a test runner telemetry is off unless ``TALLYPOST`` says otherwise; the tests run either way."""
    # What else is installed here would only take its time.
    environ = environment(tmp_path, mode, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    command = [sys.executable, "-m", "pytest", "-q"]

    ended = subprocess.run(command, cwd=EXAMPLES / "pytest", env=environ, capture_output=True, text=True, check=False)

    assert 0 == ended.returncode, ended.stdout
    assert "3 passed, 1 skipped, 1 xfailed" in ended.stdout
    assert "tallypost" not in ended.stdout
    assert bool(mode) == (tmp_path / "state").exists()
    if mode:
        assert {
            "pytest/outcome": 5,
            "pytest/outcome:passed": 3,
            "pytest/outcome:skipped": 1,
            "pytest/outcome:xfailed": 1,
            "pytest/seconds": 4,
        } == counters(tmp_path, "suite")
