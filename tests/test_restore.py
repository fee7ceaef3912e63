"""The guide's backup and restore, as it says them: the commands are taken from docs/server/operating.md."""

from __future__ import annotations

import getpass
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "server" / "operating.md"


def commands(heading: str) -> list[str]:
    """The lines of the first commands below a heading."""
    section = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].splitlines()


class Machine:
    """Does what the guide says, on folders of a test's own."""

    def __init__(self, server: Any, backup: Path) -> None:
        self._server = server
        self._folders = {
            "/var/lib/tallypost": str(server.data),
            "/etc/tallypost/applications": str(server.data / "applications"),
            "/backup/tallypost": str(backup),
            "tallypost: ": f"{getpass.getuser()}: ",
            "tallypost-server --data": f"{sys.executable} -m tallypost_server --data",
        }

    def do(self, heading: str) -> str:
        """Run the commands below a heading; what they print."""
        said = ""
        for line in commands(heading):
            if line == "systemctl start tallypost-server":
                self._server.start()
                continue
            for old, new in self._folders.items():
                line = line.replace(old, new)
            done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=50)
            assert 0 == done.returncode, f"{line}: {done.stdout}{done.stderr}"
            said += done.stdout
        return said


class Load:
    """Threads that post, and note what was acknowledged."""

    def __init__(self, port: int) -> None:
        self._port, self._ended = port, False
        self.acknowledged: set[str] = set()
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        until, before = time.monotonic() + 30, len(self.acknowledged)
        while len(self.acknowledged) < before + count:
            assert time.monotonic() < until, "nothing more is acknowledged"
            time.sleep(0.01)

    def end(self) -> None:
        self._ended = True
        for thread in self._threads:
            thread.join()

    def _post(self, number: int) -> None:
        connection, sequence = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20), 0
        while not self._ended:
            sequence += 1
            body = report(f"{number:016x}{sequence:016x}")
            try:
                connection.request("POST", "/v1/reports", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                told = answer.read()
            except (OSError, http.client.HTTPException):
                break
            if answer.status == 200:
                self.acknowledged.add(json.loads(told)["stored"])
        connection.close()


def report(identity: str) -> bytes:
    document = {"v": 1, "kind": "report", "x": 0.25, "id": identity, "app": "example.org/mytool"}
    document |= {"day": time.strftime("%Y-%m-%d", time.gmtime()), "previous": None, "config": None}
    program = {"program": "mytool", "version": "1.2.3", "python": "3.12", "os": "linux", "arch": "x86_64"}
    counts = {**program, "counters": {"cmd/export": 1}, "stacks": {}}
    return json.dumps({**document, "programs": [counts]}, separators=(",", ":")).encode()


def test_backup_of_a_running_server_restored_by_the_guide_has_all_that_was_acknowledged_before(
    server: Any, tmp_path: Path
) -> None:
    """Backed up twice under load, destroyed, restored, started: nothing is missing, and `verify` finds nothing."""
    if shutil.which("rsync") is None:
        assert os.environ.get("TALLYPOST_TOOLS") != "required", "rsync is not installed here"
        pytest.skip("rsync is not installed here (Debian's package rsync)")
    server.end()
    server.start("--seal-bytes", "100000")  # So that segments are sealed while they are copied.
    backup = tmp_path / "backup"
    backup.mkdir()
    machine, load = Machine(server, backup), Load(server.port)
    try:
        for _ in range(2):
            load.wait_for(300)
            before = set(load.acknowledged)
            machine.do("Back up")
        load.wait_for(50)
    finally:
        server.end(signal.SIGKILL)
        load.end()
    shutil.rmtree(server.data)
    (server.data / "applications").mkdir(parents=True)

    said = machine.do("Restore")

    assert "0 damaged" in said
    assert 0 == server.end()
    assert before <= {line["sha256"] for line in server.lines()}
    assert [] == list((server.data / "segments" / "open").iterdir())
