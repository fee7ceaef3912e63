from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tallypost import Telemetry, WrongUse
from tallypost.events.overview import events_of
from tallypost.reports.look import look
from tallypost.reports.overview import losses_of
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FaultyDisk

Start = Callable[..., Telemetry]
EVENTS = """
[events.export]
why = "Which formats follow each other"
owner = "export team"
expires = "never"
fields = { format = ["pdf", "html"], pages = "count" }

[events."export/done"]
why = "Whether it came to its end"
owner = "export team"
expires = "never"
"""


@dataclasses.dataclass
class Export:
    """An event whose name is its class's."""

    format: str
    pages: int | None = None


@dataclasses.dataclass
class Done:
    """An event with a name of its own."""

    event_name: ClassVar[str] = "export/done"


@pytest.fixture
def directory(base: Path) -> StateDirectory:
    """The application's state directory, on the real disk."""
    return StateDirectory(str(base), "example.org/mytool")


@pytest.fixture
def disk() -> FaultyDisk:  # type: ignore[override]  # These tests are of the real one.
    """The real disk."""
    return FaultyDisk()


@pytest.fixture
def application(application: Start, declaration: Path) -> Start:
    """An application that declares events."""
    declaration.write_text(declaration.read_text() + EVENTS)
    return application


def logged(directory: StateDirectory, disk: FaultyDisk) -> list[tuple[int, str | None, dict[str, Any]]]:
    """What people are shown: index, name and fields."""
    return [(event.index, event.name, event.fields) for event in events_of(directory, disk=disk)]


def test_event_is_logged_by_name_and_fields(application: Start, directory: StateDirectory, disk: FaultyDisk) -> None:
    """The promised form."""
    telemetry = application()

    telemetry.event("export", format="pdf", pages=3)
    telemetry.event("export/done")
    telemetry.close()

    assert [(0, "export", {"format": "pdf", "pages": 3}), (1, "export/done", {})] == logged(directory, disk)


def test_event_is_logged_as_a_dataclass(application: Start, directory: StateDirectory, disk: FaultyDisk) -> None:
    """Its class names it, and its fields are the event's."""
    telemetry = application()

    telemetry.event(Export("html"))
    telemetry.event(Export("pdf", 3))
    telemetry.event(Done())
    telemetry.close()

    assert [
        (0, "export", {"format": "html"}),
        (1, "export", {"format": "pdf", "pages": 3}),
        (2, "export/done", {}),
    ] == logged(directory, disk)


@pytest.mark.parametrize("field", ["self", "event", "name", "fields"])
def test_event_may_have_a_field_of_any_name(
    application: Start, declaration: Path, directory: StateDirectory, disk: FaultyDisk, field: str
) -> None:
    """The words of the function's own parameters are none of the caller's business."""
    telemetry = application()
    declaration.write_text(declaration.read_text().replace("pages =", f"{field} ="))

    telemetry.event("export", **{field: 1})
    telemetry.close()

    assert [(0, "export", {field: 1})] == logged(directory, disk)


@pytest.mark.parametrize(
    ("event", "fields"),
    [("exprot", {}), ("export", {"format": "docx"}), ("export", {"page": 3}), (7, {}), (Export("docx"), {})],
)
def test_event_that_does_not_fit_raises_in_a_test_run(
    application: Start, directory: StateDirectory, event: object, fields: dict[str, Any], disk: FaultyDisk
) -> None:
    """A developer hears of it where it is logged; also in mode off, which a test run is by itself."""
    for environ in ({"TALLYPOST": "on", "PYTEST_CURRENT_TEST": "x"}, {"PYTEST_CURRENT_TEST": "x"}):
        telemetry = application(environ=environ)

        with pytest.raises(WrongUse):
            telemetry.event(event, **fields)

    assert [] == logged(directory, disk)


def test_event_of_an_application_without_declaration_raises_in_a_test_run(application: Start) -> None:
    """There is nothing that it could be."""
    with pytest.raises(WrongUse, match="it declares none"):
        application(declaration=None, environ={"PYTEST_CURRENT_TEST": "x"}).event("export")


def test_event_in_mode_off_leaves_nothing(application: Start, directory: StateDirectory, disk: FaultyDisk) -> None:
    """No file, not even a folder."""
    telemetry = application(environ={"TALLYPOST": "off"})

    telemetry.event("export", format="pdf")
    telemetry.close()

    assert not disk.exists(directory.path)


def test_event_posted_is_what_was_logged_and_the_next_session_may_leave(
    application: Start, directory: StateDirectory, disk: FaultyDisk, clock: FakeClock
) -> None:
    """The whole way on this side: a session of before the yes stays, one of after it waits to be posted."""
    first = application()
    first.event("export", format="pdf")
    first.close()
    application().set_mode("on")
    clock.set("2026-11-21T12:00:00Z")
    second = application()
    second.event("export", format="html", pages=2)
    second.close()

    documents = [json.loads(document) for document in application().preview()]

    assert [[{"name": "export", "at": "2026-11-21T12:00:00.000Z", "fields": {"format": "html", "pages": 2}}]] == [
        document["events"] for document in documents
    ]
    assert [0] == [document["terminal"] for document in documents]
    assert [f"{documents[0]['session']}.0.json"] == os.listdir(directory.pending)
    shown = {(event.where, event.name, tuple(event.fields.values())) for event in events_of(directory, disk=disk)}
    assert {("log", "export", ("pdf",)), ("pending", "export", ("html", 2))} == shown


def test_status_tells_why_events_wait(application: Start, disk: FaultyDisk) -> None:
    """A disk that is full is no secret."""
    telemetry = application()
    telemetry.event("export", format="pdf")
    telemetry.close()
    disk.fail(OSError(28, "No space left on device"))

    telemetry.event("export", format="pdf")
    telemetry.close()

    assert "No space left on device" in telemetry.status()["events"]


def test_event_that_its_writer_has_just_taken_is_not_lost_uncounted_when_the_process_ends(tmp_path: Path) -> None:
    """Whoever ends the process waits for what the thread has in its hand, or has it written, or counts it as lost."""
    code = (
        "import sys, time; from tallypost import Telemetry\n"
        "telemetry = Telemetry('example.org/mytool', '1', declaration='telemetry.toml', dir='.', uploader='manual',\n"
        "                      environ={'TALLYPOST': 'local'})\n"
        "for _ in range(2):\n"
        "    telemetry.event('export', format='pdf'); time.sleep(0.02)\n"
        "telemetry.event('export', format='html')\n"
    )
    (tmp_path / "telemetry.toml").write_text("application = 'example.org/mytool'\n" + EVENTS)

    for _ in range(20):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)

    disk = FaultyDisk()
    directory = StateDirectory(str(tmp_path), "example.org/mytool")
    logged = len(events_of(directory, disk=disk))
    counted = losses_of(look(directory, disk=disk)).get("dropped-events", 0)
    assert logged <= 60 <= logged + counted
