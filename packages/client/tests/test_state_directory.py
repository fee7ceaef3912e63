from __future__ import annotations

import os
from pathlib import Path

import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import get_win_folder_from_env_vars

from tallypost.disk import OsDisk
from tallypost.state_directory import StateDirectory, base_directory


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder, and nothing else that says where files go: platformdirs reads the process's own environment."""
    for variable in ("TALLYPOST_DIR", "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_base_directory_on_linux_is_where_platformdirs_has_state(home: Path) -> None:
    """Without settings it is the user's folder for state."""
    assert Unix("tallypost", appauthor=False).user_state_dir == base_directory(os.environ, "linux")


@pytest.mark.parametrize("state", ["/somewhere/state", "", "/with space/ü"])
def test_base_directory_on_linux_heeds_xdg_state_home(home: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """The XDG variable moves it, as platformdirs has it."""
    monkeypatch.setenv("XDG_STATE_HOME", state)

    assert Unix("tallypost", appauthor=False).user_state_dir == base_directory(os.environ, "linux")


def test_base_directory_on_linux_ignores_a_relative_xdg_state_home(home: Path) -> None:
    """The XDG specification has relative paths ignored: state must not depend on where a process was started."""
    environ = {"HOME": str(home), "XDG_STATE_HOME": "state"}

    assert str(home / ".local" / "state" / "tallypost") == base_directory(environ, "linux")


def test_base_directory_on_macos_is_where_platformdirs_has_state(home: Path) -> None:
    """It is the user's Application Support."""
    assert MacOS("tallypost", appauthor=False).user_state_dir == base_directory(os.environ, "darwin")


def test_base_directory_on_windows_is_where_platformdirs_has_state(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the user's local application data, which does not roam."""
    monkeypatch.setenv("LOCALAPPDATA", str(home / "Local"))

    # Its class asks Windows itself; this is the part of it that works everywhere.
    local = get_win_folder_from_env_vars("CSIDL_LOCAL_APPDATA")
    assert os.path.join(local, "tallypost") == base_directory(os.environ, "win32")


def test_base_directory_on_windows_without_the_variable_is_below_home(home: Path) -> None:
    """A service without LOCALAPPDATA has its state in the usual place."""
    assert str(home / "AppData" / "Local" / "tallypost") == base_directory({"HOME": str(home)}, "win32")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_base_directory_given_by_tallypost_dir_is_that(home: Path, platform: str) -> None:
    """The variable wins on every platform."""
    environ = {"HOME": str(home), "TALLYPOST_DIR": "/given", "XDG_STATE_HOME": "/x", "LOCALAPPDATA": "/y"}

    assert "/given" == base_directory(environ, platform)


def test_base_directory_without_home_is_that_of_the_account(home: Path) -> None:
    """A process without HOME has its state below the account's own home."""
    assert os.path.isabs(base_directory({}, "linux"))


def test_state_directory_of_a_relative_base_does_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are absolute from the start: a program that changes its folder goes on counting where it began."""
    monkeypatch.chdir(tmp_path)

    directory = StateDirectory("state", "example.org/mytool")

    assert str(tmp_path / "state" / "example.org" / "mytool") == directory.path


def test_state_directory_has_the_promised_names(tmp_path: Path) -> None:
    """What users and other programs look for has the names that are written down."""
    directory = StateDirectory(str(tmp_path), "example.org/mytool")

    there = tmp_path / "example.org" / "mytool"
    assert str(there / "mode") == directory.mode
    assert str(there / "counts") == directory.counts
    assert str(there / "reports" / "local.2026-11-23.json") == directory.local_report("2026-11-23")
    assert [str(there / "uploads" / name) for name in ("pending", "sent", "refused")] == [
        directory.pending,
        directory.sent,
        directory.refused,
    ]


def test_state_directory_folders_can_be_made_in_their_order(tmp_path: Path) -> None:
    """Each folder stands behind its parent, and none is listed twice."""
    directory = StateDirectory(str(tmp_path), "example.org/mytool")
    disk = OsDisk()

    made = [disk.make_folder(folder) for folder in directory.folders()]

    assert [True] * len(made) == made
    assert {0o700} == {os.stat(folder).st_mode & 0o777 for folder in directory.folders()}
