"""A real application, some days of its use, and its report at the server."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.system

Json = dict[str, Any]

APPLICATION = "example.org/black"
BLACK = ("black-with-telemetry", "--code", "x  =  1")
TALLYPOST = ("tallypost", "--app", APPLICATION)
READ_SENT = """
import json, os, pathlib
sent = pathlib.Path(os.environ["TALLYPOST_DIR"], "example.org/black/uploads/sent")
print(json.dumps({path.name: path.read_text("utf-8") for path in sent.iterdir()}))
"""


@pytest.fixture
def example(containers: Any) -> Callable[..., str]:
    """Run a command where the example is installed, each time in a new container; what it printed."""

    def example(*command: str) -> str:
        return str(containers.compose("run", "--rm", "-T", "example", *command).stdout)

    return example


def test_example_used_after_a_yes_posts_a_report_that_the_server_shows(
    example: Callable[..., str], show: Callable[[str], list[Json]]
) -> None:
    """What was counted on a day after the yes arrives at the server byte for byte, what came before it stays away."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    of_the_yes, of_the_use = ((today - datetime.timedelta(days=days)).isoformat() for days in (3, 2))

    def on_the_day(day: str, *command: str) -> str:
        return example("python", "-m", "tallypost.testing", "--at", f"{day}T12:00:00Z", "--", *command)

    on_the_day(of_the_yes, *BLACK)
    on_the_day(of_the_yes, *TALLYPOST, "on")
    formatted = on_the_day(of_the_use, *BLACK)
    example(*TALLYPOST, "upload")
    sent = json.loads(example("python", "-c", READ_SENT))

    assert "x = 1\n" == formatted
    assert {f"{of_the_use}.json", f"{of_the_use}.receipt.json"} == sent.keys()
    posted = sent[f"{of_the_use}.json"]
    receipt = json.loads(sent[f"{of_the_use}.receipt.json"])
    assert {"stored": hashlib.sha256(posted.encode()).hexdigest()} == receipt
    report = json.loads(posted)
    assert {"run": 1, "exit:0": 1, "option:code": 1}.items() <= report["programs"][0]["counters"].items()
    assert [{"index": 0, "doc": report}] == show(report["id"])


def test_example_by_default_runs_and_counts_on_a_root_that_cannot_be_written(example: Callable[..., str]) -> None:
    """The profile's plain run needs nothing but its volume, and what it counted is there for the next container."""
    example()
    days = json.loads(example(*TALLYPOST, "--json", "show"))["days"]

    counters = max(days, key=lambda day: str(day["day"]))["programs"][0]["counters"]
    assert 1 <= counters["option:check"]
