from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry
from tallypost.daily import Daily, LastRun
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeTransport, FaultyDisk
from tallypost.uploads.transport import Answer
from tallypost_schema.receipts import encode_error


@pytest.mark.parametrize("takes_it", [True, False])
def test_upload_of_a_day_to_come_leaves_it_to_the_servers_clock(
    application: Callable[..., Telemetry],
    directory: StateDirectory,
    declaration: Path,
    disk: FaultyDisk,
    clock: FakeClock,
    takes_it: bool,
) -> None:
    """Which of two clocks is wrong this machine cannot know: the document is posted, and lies where the answer says."""
    transport = FakeTransport()
    daily = Daily(
        directory,
        last_run=LastRun("example.org/mytool", "mytool", "1.2.3", "https://telemetry.example.org", "none"),
        declaration=declaration.read_bytes(),
        default="local",
        environ={"TALLYPOST": "on"},
        clock=clock,
        disk=disk,
        transport=transport,
    )
    daily.set_mode("on", who="user")
    clock.set("2026-11-22T12:00:00Z")
    run = application()
    run.counter("cmd/export").inc()
    run.close()
    clock.set("2026-11-23T12:00:00Z")
    daily.report()
    clock.set("2026-11-01T12:00:00Z")
    if not takes_it:
        transport.answers = [Answer(422, encode_error("from_the_future", "a wrong clock", retry=False), {})]

    daily.upload()

    lies = directory.sent if takes_it else directory.refused
    assert 1 == len(transport.posted)
    assert os.path.exists(os.path.join(lies, "2026-11-22.json"))
