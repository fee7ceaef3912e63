"""The examples, run as users run them: real programs, real folders; only the network is not there."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import black
import click
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tallypost import Telemetry
from tallypost.contrib.words import NONE, route_of
from tallypost_schema import declaration

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BLACK, WEB_APP = EXAMPLES / "black", EXAMPLES / "web-app"
sys.path.append(str(WEB_APP))  # Both sites of the tests below are made of this example's parts.

UGLY, NEAT, BROKEN = "x = 'secret-in-code'\n", 'y = "fine"\n', "def half(:\n"
SECRETS = ("secret-in-code", "secret-folder", "secret-file", "secret-value", "secret-unit")


def environment(tmp_path: Path, mode: str = "local", **more: str) -> dict[str, str]:
    """What a user's environment is, with telemetry in a folder of its own; a test run as such would switch it off."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TALLYPOST", "GITHUB_", "BLACK_"))
    }
    ours = {"TALLYPOST": mode, "TALLYPOST_DIR": str(tmp_path / "state"), "PYTHONPATH": f"{BLACK}{os.pathsep}{WEB_APP}"}
    return {**kept, **ours, "PYTHONUTF8": "1", "BLACK_CACHE_DIR": str(tmp_path / "cache"), **more}


def start(arguments: Sequence[str], tmp_path: Path, **variables: str) -> subprocess.Popen[str]:
    """The example, started beside the project."""
    command = [sys.executable, "-m", "black_with_telemetry", *arguments]
    pipe = subprocess.PIPE
    environ = environment(tmp_path, **variables)
    return subprocess.Popen(command, cwd=tmp_path, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finished(process: subprocess.Popen[str], given: str = "") -> tuple[int, list[str], list[str]]:
    """Exit code, output and errors; black formats files in any order, and dates its differences."""
    streams = process.communicate(given, timeout=50)
    output, errors = (sorted(line for line in text.splitlines() if line[:3] not in ("---", "+++")) for text in streams)
    return process.returncode, output, errors


def counters(tmp_path: Path, application: str) -> dict[str, int]:
    """What `tallypost show` has of an application, of all days together; durations left out."""
    command = [sys.executable, "-m", "tallypost", "--app", application, "show", "--json"]
    shown = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=True)
    found: dict[str, int] = {}
    for day in json.loads(shown.stdout)["days"]:
        for program in day["programs"]:
            for name, n in program["counters"].items():
                if "/seconds:" not in name:
                    found[name] = found.get(name, 0) + n
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which black has something to change, to leave, and to fail on."""
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.black]\n")
    for name, content in (("secret-file-1", UGLY), ("secret-file-2", UGLY), ("neat", NEAT), ("broken", BROKEN)):
        (folder / f"{name}.py").write_text(content)
    return folder


# ---------------------------------------------------------------- black


CALLS: list[tuple[list[str], str]] = [
    (["--check", "{project}"], ""),
    (["{project}"], ""),
    (["--quiet", "--diff", "{project}/secret-file-1.py"], ""),
    (["--verbose", "--line-length", "40", "{project}/neat.py", "{project}/secret-file-2.py"], ""),
    (["--code", UGLY], ""),
    (["-"], UGLY),
    ([], ""),
    (["--no-such-option"], ""),
    (["{project}/nothing-there.py"], ""),
    (["--version"], ""),
    (["--help"], ""),
]


@pytest.mark.parametrize(
    ("where", "arguments", "given"),
    [
        *(("writable", *call) for call in CALLS),
        # What comes after parsing is the same for all of them, so two will do where nothing is written.
        *(("nowhere", *call) for call in CALLS[:2]),
        *(("off", *call) for call in CALLS[:2]),
    ],
    ids=lambda value: " ".join(value).replace("{project}/", "") if isinstance(value, list) else value[:8],
)
def test_black_with_telemetry_does_what_black_does(
    where: str, arguments: list[str], given: str, tmp_path: Path, project: Path
) -> None:
    """Output, errors, exit code and files are black's own: with telemetry, where it cannot write, and without it."""
    (tmp_path / "a-file").write_text("not a folder")
    variables = {"writable": {}, "nowhere": {"TALLYPOST_DIR": str(tmp_path / "a-file")}, "off": {"mode": "off"}}[where]
    words = [word.replace("{project}", str(project)) for word in arguments]
    before = files_of(project)

    counted = finished(start(words, tmp_path, **variables), given)
    after_counted = files_of(project)
    for name, content in before.items():
        (project / name).write_bytes(content)
    pipe = subprocess.PIPE
    plain = subprocess.Popen(
        [Path(sys.executable).with_name("black"), *words],
        cwd=tmp_path,
        env=environment(tmp_path, BLACK_CACHE_DIR=str(tmp_path / "another-cache")),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )

    assert finished(plain, given) == counted
    assert files_of(project) == after_counted


def test_black_in_several_processes_at_once_counts_each_run(tmp_path: Path, project: Path) -> None:
    """Every run, option, exit code and file is counted once, though processes count side by side."""
    first = [
        start(["--check", str(project)], tmp_path),
        start(["--check", "--line-length", "100", str(project / "neat.py")], tmp_path),
        start(["--quiet", "--check", str(project / "secret-file-1.py"), str(project / "secret-file-2.py")], tmp_path),
        start(["--fast", "--no-such-option"], tmp_path),
    ]
    codes = [finished(process)[0] for process in first]

    assert [123, 0, 1, 2] == codes
    assert {
        "run": 4,
        "option": 5,
        "option:check": 3,
        "option:line-length": 1,
        "option:quiet": 1,
        "exit": 4,
        "exit:0": 1,
        "exit:1": 1,
        "exit:2": 1,
        "exit:123": 1,
        "files/changed": 2,
        "files/changed:2-5": 2,
        "files/unchanged": 2,
        "files/unchanged:1": 2,
        "files/failed": 1,
        "files/failed:1": 1,
    } == counters(tmp_path, "example.org/black")


def test_black_with_values_and_file_names_keeps_none_of_them(tmp_path: Path, project: Path) -> None:
    """No value, no name of a file or folder and no code is in any file of the state directory, nor in a file's name."""
    arguments = ["--extend-exclude", "secret-value", "--stdin-filename=secret-value.py", "-l", "71", str(project)]

    finished(start(arguments, tmp_path))

    found = files_of(tmp_path / "state")
    assert 3 == counters(tmp_path, "example.org/black")["option"]
    assert [] == [
        (secret, name)
        for secret in (*SECRETS, str(project))
        for name, content in found.items()
        if secret in name or secret.encode() in content
    ]


def test_black_in_mode_off_makes_nothing(tmp_path: Path, project: Path) -> None:
    """Neither the state directory nor anything in the folder for temporary files is made."""
    (tmp_path / "temporary").mkdir()

    finished(start(["--check", str(project)], tmp_path, mode="off", TMPDIR=str(tmp_path / "temporary")))

    assert not (tmp_path / "state").exists()
    assert [] == list((tmp_path / "temporary").iterdir())


def test_black_with_a_workflows_output_file_leaves_that_alone(tmp_path: Path, project: Path) -> None:
    """Black's numbers arrive where a workflow wants them; they are not counted, and the rest is."""
    numbers = tmp_path / "numbers"

    finished(start(["--check", str(project)], tmp_path, GITHUB_OUTPUT=str(numbers)))

    assert "change_count=2" in numbers.read_text()
    found = counters(tmp_path, "example.org/black")
    assert {"run": 1, "option": 1, "option:check": 1, "exit": 1, "exit:123": 1} == found


def test_black_declaration_names_each_option_of_black() -> None:
    """The buckets that may leave are the options of the black that is installed."""
    declared = declaration.parse((BLACK / "black_with_telemetry" / "telemetry.toml").read_text("utf-8"))
    # `--version` and `--help` end black while it parses, so they are never counted.
    options = {
        str(parameter.name).replace("_", "-")
        for parameter in black.main.params
        if isinstance(parameter, click.Option) and parameter.name != "version"
    }

    assert options == set(declared.counters["option"].buckets)


# ---------------------------------------------------------------- web-app


@pytest.fixture
def telemetry(tmp_path: Path) -> Telemetry:
    """The site's own telemetry, in a folder of the test."""
    made: Telemetry = importlib.import_module("unit_converter.site").telemetry_of(
        dir=tmp_path / "state", environ={"TALLYPOST": "local"}
    )
    return made


def site_of(telemetry: Telemetry) -> Starlette:
    """The site, counting there."""
    made: Starlette = importlib.import_module("unit_converter.site").site(telemetry)
    return made


def visit(app: ASGIApp, *paths: str) -> list[httpx.Response]:
    """Answers of a site without a server; redirects are not followed, and what the site raises is raised."""

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://site") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def test_site_visited_counts_templates_and_classes_of_status(telemetry: Telemetry, tmp_path: Path) -> None:
    """Routes are counted by template, what no route took without its path, and answers by their class."""
    paths = ["/", "/convert?unit=km&value=42.2", "/convert/km/42.2", "/convert/secret-unit/1", "/secret-file"]

    codes = [answer.status_code for answer in visit(site_of(telemetry), *paths)]

    assert [200, 303, 200, 404, 404] == codes
    assert {
        "http/route": 5,
        "http/route:index": 1,
        "http/route:convert": 1,
        "http/route:convert.<unit>.<value>": 2,
        "http/route:none": 1,
        "http/method": 5,
        "http/method:GET": 5,
        "http/status": 5,
        "http/status:2xx": 2,
        "http/status:3xx": 1,
        "http/status:4xx": 2,
    } == counters(tmp_path, "example.org/unit-converter")
    kept = files_of(tmp_path / "state")
    assert [] == [name for name, content in kept.items() for secret in SECRETS if secret.encode() in content]


def test_site_that_raises_counts_what_the_visitor_gets(telemetry: Telemetry, tmp_path: Path) -> None:
    """A request that ends in an exception is counted as 5xx, and the exception goes on."""

    async def break_down(request: Request) -> Response:
        raise ZeroDivisionError

    app = site_of(telemetry)
    app.routes.append(Route("/break-down/{anything}", break_down))

    with pytest.raises(ZeroDivisionError):
        visit(app, "/break-down/secret-file")

    found = counters(tmp_path, "example.org/unit-converter")
    assert {
        "http/route": 1,
        "http/route:break-down.<anything>": 1,
        "http/method": 1,
        "http/method:GET": 1,
        "http/status": 1,
        "http/status:5xx": 1,
        "http/exception": 1,
    } == found


def test_site_page_about_telemetry_says_what_is_counted_and_how_to_end_it(telemetry: Telemetry) -> None:
    """The page has the mode, each declared name, and the command that switches it off."""
    text = visit(site_of(telemetry), "/telemetry")[0].text

    assert "<strong>local</strong>" in text
    names = ("http/route", "http/method", "http/status", "http/exception", "http/seconds")
    assert all(f"<th>{name}<td>" in text for name in names)
    assert "tallypost --app example.org/unit-converter off" in text


def test_site_in_mode_off_serves_and_makes_nothing(tmp_path: Path) -> None:
    """Pages are served as ever; the page about telemetry says that nothing is counted."""
    site = importlib.import_module("unit_converter.site")
    telemetry = site.telemetry_of(dir=tmp_path / "state", environ={"TALLYPOST": "off"})

    answers = visit(site_of(telemetry), "/convert/km/1", "/telemetry")

    assert [200, 200] == [answer.status_code for answer in answers]
    assert "Nothing is counted." in answers[1].text
    assert not (tmp_path / "state").exists()


def test_site_routes_are_all_declared(telemetry: Telemetry) -> None:
    """Each route of the site has a bucket that may leave."""
    declared = declaration.parse((WEB_APP / "unit_converter" / "telemetry.toml").read_text("utf-8"))

    buckets = {route_of(route.path_format) for route in site_of(telemetry).routes if isinstance(route, Route)}

    assert {*buckets, NONE} == set(declared.counters["http/route"].buckets)


def test_site_run_as_a_program_counts_until_it_is_ended(tmp_path: Path) -> None:
    """`python -m unit_converter` serves; another process sees the counts while it still runs, and after Ctrl-C."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "unit_converter", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.DEVNULL) as process:
        try:
            statuses = [status_of(port, "/", process), status_of(port, "/convert/km/3", process)]
            meanwhile = counters(tmp_path, "example.org/unit-converter")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)

    assert [200, 200] == statuses
    expected = {
        "http/route": 2,
        "http/route:index": 1,
        "http/route:convert.<unit>.<value>": 1,
        "http/method": 2,
        "http/method:GET": 2,
        "http/status": 2,
        "http/status:2xx": 2,
    }
    assert expected == meanwhile == counters(tmp_path, "example.org/unit-converter")


def status_of(port: int, path: str, process: subprocess.Popen[bytes]) -> int:
    """The status of an answer, once somebody listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", path)
                return connection.getresponse().status
        time.sleep(0.05)
    raise AssertionError("the site does not answer")
