from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_server.cli.main import main
from tallypost_server.segments.reader import SegmentReader

Spawn = Callable[..., Any]


def load_test(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tallypost_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50)


def test_load_test_prints_what_was_stored(spawn: Spawn, data: Path, segments: SegmentReader) -> None:
    """As many lines lie in segments as it tells, and each document got its own receipt."""
    server = spawn()

    done = load_test(
        *("--data", str(data), "load-test", f"http://{server.address}"),
        *("--count", "60", "--connections", "4", "--json", "--seed", "5"),
    )

    facts = json.loads(done.stdout)
    assert (0, "") == (done.returncode, done.stderr)
    assert (60, 60, {"right": 60, "wrong": 0}) == (facts["posted"], facts["stored"], facts["receipts"])
    assert ({"200": 60}, {}, {}) == (facts["answers"], facts["codes"], facts["errors"])
    assert {"report", "events"} == facts["kinds"].keys()
    assert 60 == sum(kind["stored"] for kind in facts["kinds"].values())
    assert ["p50", "p90", "p99", "max"] == list(facts["latency_ms"])
    assert sorted(facts["latency_ms"].values()) == list(facts["latency_ms"].values())
    assert 60 == sum(1 for _ in segments.lines())


def test_load_test_of_a_server_that_does_not_know_the_application_fails(spawn: Spawn, tmp_path: Path) -> None:
    """The table says which answers came, and the status that something is amiss."""
    declaration = tmp_path / "other.toml"
    declaration.write_text(
        'application = "example.org/other"\n[counters.x]\nwhy = "x"\nowner = "x"\nexpires = "never"\n'
    )
    server = spawn(listen=f"unix:{tmp_path}/socket")

    done = load_test("load-test", server.address, "--declaration", str(declaration), "--count", "9")

    assert (1, "") == (done.returncode, done.stderr)
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert "9 × 403" == rows["answers"]
    assert "9 × unknown_application" == rows["codes"]
    assert rows["stored"].startswith("0 of 9")
    assert "0 right, 0 wrong" == rows["receipts"]


def test_load_test_goes_on_with_the_connections_that_it_gets(spawn: Spawn, data: Path) -> None:
    """Where a process may not have as many as were asked for, that is told, and the others post."""
    server = spawn()
    command = f"ulimit -n 40; exec {sys.executable} -m tallypost_server --data {data} load-test http://{server.address}"

    done = subprocess.run(
        ["sh", "-c", f"{command} --connections 60 --count 300 --json"], capture_output=True, text=True, timeout=50
    )

    facts = json.loads(done.stdout)
    assert 300 == facts["stored"] == facts["posted"]
    assert all("Too many open files" in error for error in facts["errors"])
    assert facts["errors"]


def test_load_test_that_is_interrupted_prints_what_came_of_it_until_then(
    spawn: Spawn, data: Path, segments: SegmentReader
) -> None:
    """What is under way is answered first; nothing that was stored is left out of the count."""
    server = spawn()
    command = [sys.executable, "-m", "tallypost_server", "--data", str(data), "load-test", f"http://{server.address}"]
    process = subprocess.Popen([*command, "--seconds", "50", "--rate", "200", "--json"], stdout=subprocess.PIPE)
    while not any(True for _ in segments.lines()):
        time.sleep(0.01)

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)

    facts = json.loads(said)
    assert 0 == process.returncode
    assert facts["seconds"] < 50
    assert sum(1 for _ in segments.lines()) == facts["stored"] == facts["posted"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nonsense"], 2, "HOST[:PORT]"),
        (["http://a", "--rate", "0"], 2, "a number above 0"),
        (["http://a", "--seconds", "nan"], 2, "a number above 0"),
        (["http://a", "--seconds", "soon"], 2, "a number above 0"),
        (["http://a", "--connections", "0"], 2, "a whole number"),
        (["http://a", "--declaration", "missing.toml"], 1, "missing.toml is no declaration"),
        (["http://a"], 1, "name one with --declaration"),
    ],
)
def test_load_test_that_cannot_be_posted_says_why(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    """Nothing is posted, and nothing stands on standard output."""
    try:
        found = main(["--data", str(tmp_path), "load-test", *arguments], {})
    except SystemExit as ended:
        found = int(ended.code or 0)

    captured = capsys.readouterr()
    assert (status, "") == (found, captured.out)
    assert said in captured.err


def test_load_test_where_nobody_listens_fails(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    """A wrong address is told at once; a damaged declaration beside a whole one is told and left out."""
    (data / "applications" / "other.toml").write_text("nonsense")

    assert 1 == main(["--data", str(data), "load-test", f"unix:{data}/nobody"], {})

    said = capsys.readouterr().err
    assert "no connection to" in said
    assert "other.toml is left out" in said
