from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry
from tallypost.errors import NoApplication
from tallypost.installed import applications, daily_of, only_application
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk

Start = Callable[..., Telemetry]


def make(base: Path, name: str, *, folders: tuple[str, ...] = ("private",)) -> None:
    for folder in folders:
        (base / name / folder).mkdir(parents=True)


def test_applications_are_all_that_counted_or_were_answered(base: Path) -> None:
    """A state directory is known by its private folder or its mode; the names are sorted."""
    for name in ("example.org/mytool", "example.org/another", "tool", "a/b/c/d"):
        make(base, name)
    make(base, "example.org/said-no", folders=())
    (base / "example.org" / "said-no").mkdir()
    (base / "example.org" / "said-no" / "mode").write_text("off 2026-11-20 1 user\n")

    found = applications(str(base))

    assert ["a/b/c/d", "example.org/another", "example.org/mytool", "example.org/said-no", "tool"] == found


def test_applications_leaves_out_what_is_none(base: Path) -> None:
    """Other folders, files and names outside the grammar are no applications."""
    make(base, "Upper.Case/tool")
    make(base, "plain", folders=("something",))
    make(base, ".hidden")
    (base / "private").write_text("a file")

    assert [] == applications(str(base))


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_applications_in_folders_that_lead_in_circles_ends(base: Path) -> None:
    """A link to a folder above is followed a few times, not for ever."""
    make(base, "example.org/mytool")
    (base / "example.org" / "circle").symlink_to(base)

    assert "example.org/mytool" in applications(str(base))


def test_applications_under_no_folder_are_none(base: Path) -> None:
    """A machine on which nothing counted has no folder."""
    assert [] == applications(str(base))


def test_only_application_is_the_one(base: Path) -> None:
    """One alone needs no name."""
    make(base, "example.org/mytool")

    assert "example.org/mytool" == only_application(str(base))


def test_only_application_of_none_or_several_says_what_to_do(base: Path) -> None:
    """It names where it looked, or what there is to choose from."""
    with pytest.raises(NoApplication, match="--dir"):
        only_application(str(base))
    make(base, "b")
    make(base, "a")

    with pytest.raises(NoApplication, match="a, b; choose one with --app"):
        only_application(str(base))


def test_daily_of_an_application_has_what_its_last_run_said(
    application: Start, base: Path, clock: FakeClock, disk: FaultyDisk
) -> None:
    """Endpoint and declaration are those of the last run, without importing the application."""
    run = application(endpoint="https://telemetry.example.org")
    run.counter("cmd/export").inc()
    run.close()
    application(endpoint="https://later.example.org").counter("cmd/export").inc()

    daily = daily_of(str(base), "example.org/mytool", environ={}, clock=clock, disk=disk)

    assert "https://later.example.org" == daily.endpoint()
    assert ("mytool", "1.2.3") == (daily.last_run.program, daily.last_run.version)
    assert "none" != daily.status()["declaration"]


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"no equals sign", b"declaration=../../x\nendpoint=nowhere\n"]
)
def test_daily_of_an_application_with_a_damaged_last_run_is_one_that_posts_nowhere(
    base: Path, directory: StateDirectory, clock: FakeClock, disk: FaultyDisk, content: bytes | None
) -> None:
    """Without a readable word of it there is no endpoint and no declaration, and every question has an answer."""
    disk.make_folder(directory.private)
    if content is not None:
        Path(directory.last_run).write_bytes(content)

    daily = daily_of(str(base), "example.org/mytool", environ={}, clock=clock, disk=disk)

    assert daily.endpoint() is None
    assert "none" == daily.status()["declaration"]
