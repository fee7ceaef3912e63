from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost_server.cli.main import COMMANDS, main

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command: its exit status, standard output and standard error."""

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        try:
            status = main(arguments, environment)
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(say: Said, command: str) -> None:
    """Whoever asks sees how it is used."""
    status, out, err = say(*([command] if command else []), "--help")

    assert (0, "") == (status, err)
    assert "example: tallypost-server" in out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("show",),
        ("status", "--nonsense"),
        ("config",),
        ("serve", "--seal-bytes", "x"),
        ("serve", "--seal-byte", "1"),
        ("status", "--seal-bytes", "1"),
    ],
)
def test_wrong_use_is_2_and_says_nothing_on_standard_output(say: Said, arguments: tuple[str, ...]) -> None:
    """A misspelt word never acts as another."""
    status, out, err = say(*arguments)

    assert (2, "") == (status, out)
    assert err


def test_unknown_variable_refuses_every_command(say: Said, data: Path) -> None:
    """A misspelt variable is no default in disguise."""
    status, out, err = say("--data", str(data), "status", TALLYPOST_SERVER_SEAL_BYTE="1")

    assert (2, "") == (status, out)
    assert "TALLYPOST_SERVER_SEAL_BYTE is no setting" in err


def test_global_options_stand_before_or_after_the_command(say: Said, data: Path) -> None:
    """Both places mean the same, and the later one wins."""
    before = say("--data", str(data), "--json", "config", "--check")
    after = say("config", "--check", "--json", "--data", str(data))
    both = say("--data", "x", "config", "--check", "--json", "--data", str(data))

    assert 0 == before[0]
    assert before == after == both


def test_config_check_prints_each_setting_with_its_source(say: Said, tmp_path: Path) -> None:
    """Where a setting came from is what one wants to know."""
    file = tmp_path / "server.toml"
    file.write_text("seal_bytes = 5\n")

    status, out, _ = say(
        "config", "--check", "--config", str(file), "--json", "--no-archive", TALLYPOST_SERVER_LISTEN="unix:/a"
    )
    text = say("config", "--check", "--config", str(file))[1]

    shown = json.loads(out)
    assert 0 == status
    assert {"value": 5, "source": str(file)} == shown["seal_bytes"]
    assert {"value": "unix:/a", "source": "TALLYPOST_SERVER_LISTEN"} == shown["listen"]
    assert {"value": True, "source": "--no-archive"} == shown["no_archive"]
    assert {"value": 60.0, "source": "default"} == shown["seal_seconds"]
    assert f"seal_bytes = 5  # {file}\n" in text


def test_status_of_an_empty_folder_is_noughts(say: Said, data: Path) -> None:
    """Nothing there is a fact too."""
    status, out, _ = say("status", "--json", "--data", str(data))

    streams = ("open", "complete", "sparse", "parked", "supplements", "contradictions", "duplicates")
    expected = {
        "segments": {"open": 0, "sealed": 0, "bytes": 0},
        "streams": dict.fromkeys(streams, 0),
        "tasks": {"waiting": 0, "running": 0, "failed": 0},
        "lag": {"oldest_unarchived_s": 0.0},
        "parked": [],
        "clock": {"ahead_s": 0.0},
    }
    assert (0, expected) == (status, json.loads(out))


@pytest.mark.parametrize("command", [("status",), ("show", "ab" * 16)])
def test_command_without_a_data_folder_fails(say: Said, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A misspelt folder is not made, and is no empty one."""
    status, out, err = say(*command, "--data", str(tmp_path / "missing"))

    assert (1, "") == (status, out)
    assert "is not there" in err
    assert not (tmp_path / "missing").exists()


def test_show_of_an_unknown_stream_fails_and_prints_nothing(say: Said, data: Path) -> None:
    """Whoever reads the output must not take nothing for something."""
    status, out, err = say("show", "ab" * 16, "--data", str(data))

    assert (1, "") == (status, out)
    assert "no segment has a document of stream" in err


def test_serve_with_a_missing_applications_folder_fails(say: Said, data: Path, tmp_path: Path) -> None:
    """The command says what is missing and ends with 1."""
    arguments = ("serve", "--data", str(data), "--applications", str(tmp_path / "missing"), "--listen", "127.0.0.1:0")

    status, out, err = say(*arguments)

    assert (1, "") == (status, out)
    assert "the applications folder" in err


def test_version_is_told(say: Said) -> None:
    """Which version is installed."""
    assert (0, "tallypost-server 0.1.0\n", "") == say("--version")


def test_commands_beside_a_server_do_not_load_it() -> None:
    """Looking at a folder does not wait for a web framework."""
    program = "import sys, tallypost_server.cli.main; print([*{'uvicorn', 'starlette', 'uvloop'} & sys.modules.keys()])"

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "[]\n" == said.stdout
