from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from tallypost_server.errors import ApplicationUnreadable, FolderMissing, Refused
from tallypost_server.ingest.applications import Applications
from tallypost_server.testing import FaultyDisk

APPLICATION = "example.org/mytool"
TODAY = datetime.date(2026, 11, 24)


@pytest.fixture
def applications(data: Path, disk: FaultyDisk) -> Applications:
    found = Applications(data / "applications", disk=disk)
    found.scan()
    return found


@pytest.fixture
def file(data: Path) -> Path:
    return data / "applications" / "mytool.toml"


def rewrite(file: Path, text: str) -> None:
    """Other content always comes with another time, as on a real machine some time later."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_find_of_a_registered_application_knows_its_names_and_the_librarys(applications: Applications) -> None:
    """Counters come with their buckets, and what the library counts of itself is always declared."""
    declared = applications.find(APPLICATION)

    assert {"cmd/export", "cmd/export:pdf", "tallypost/dropped-events"} <= declared.counters
    assert 1 == applications.count


def test_find_of_an_unknown_application_is_refused(applications: Applications) -> None:
    """Who is not registered gets 403."""
    with pytest.raises(Refused, match="unknown_application"):
        applications.find("example.org/other")


def test_scan_takes_a_changed_declaration(applications: Applications, file: Path) -> None:
    """A new name is known after the next look."""
    rewrite(file, file.read_text().replace("cmd/export", "cmd/import"))

    applications.scan()

    assert "cmd/import" in applications.find(APPLICATION).counters
    assert "cmd/export" not in applications.find(APPLICATION).counters


def test_scan_takes_a_new_file(applications: Applications, file: Path) -> None:
    """Another application is registered by a file of any name that ends in .toml."""
    text = file.read_text().replace(APPLICATION, "example.org/other")
    rewrite(file.with_name("any.toml"), text)
    rewrite(file.with_name("not.txt"), text.replace("example.org/other", "example.org/third"))

    applications.scan()

    assert 2 == applications.count
    assert applications.find("example.org/other")


@pytest.mark.parametrize("text", ["", "not toml [", 'application = "example.org/mytool"\ncontact = 3\n', "\udc80"])
def test_scan_of_a_damaged_declaration_keeps_the_one_before(
    applications: Applications, file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A half-written file registers nobody anew and forgets nobody, and is said once."""
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    applications.scan()
    applications.scan()

    assert "cmd/export" in applications.find(APPLICATION).counters
    assert 1 == applications.damaged
    assert 1 == caplog.text.count("is damaged, the one before stays in force")


def test_find_of_an_application_whose_only_declaration_is_damaged_is_no_refusal(
    applications: Applications, file: Path
) -> None:
    """A client deletes what is refused, so an application that cannot be read is the server's trouble."""
    rewrite(file.with_name("other.toml"), 'application = "example.org/other"\ncontact = 3\n')

    applications.scan()

    with pytest.raises(ApplicationUnreadable) as caught:
        applications.find("example.org/other")
    assert (503, True) == (caught.value.status, caught.value.retry)


def test_scan_forgets_a_file_only_when_it_stays_away(applications: Applications, file: Path) -> None:
    """A file that is away at one look may be on its way to be replaced."""
    file.unlink()

    applications.scan()
    assert 1 == applications.count
    applications.scan()

    assert 0 == applications.count


def test_scan_without_the_folder_raises_and_forgets_nothing(applications: Applications, file: Path) -> None:
    """An unmounted folder must not look like one without applications."""
    file.parent.rename(file.parent.with_name("away"))

    with pytest.raises(FolderMissing):
        applications.scan()

    assert applications.find(APPLICATION)


def test_scan_of_two_files_for_one_application_keeps_the_first_by_name(
    applications: Applications, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which file counts does not depend on chance, and somebody is told."""
    rewrite(file.with_name("zzz.toml"), file.read_text().replace("cmd/export", "cmd/import"))

    applications.scan()

    assert "cmd/export" in applications.find(APPLICATION).counters
    assert "zzz.toml declares example.org/mytool, which a file before it declares" in caplog.text


def test_upload_config_leaves_out_what_has_expired_and_asks_for_the_librarys_own(applications: Applications) -> None:
    """What is asked for is what is declared and has not expired, with the library's own counters."""
    asked = applications.find(APPLICATION).upload_config(TODAY)

    assert "cmd/old" not in asked.counters
    assert {"cmd/export", "tallypost/dropped-events"} <= asked.counters.keys()
    assert "cmd/old" in applications.find(APPLICATION).upload_config(TODAY - datetime.timedelta(days=1)).counters
