"""A disk that is really full: a file system in memory of 16 MiB, where this user may mount one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallypost_schema import receipts

Spawn = Callable[..., Any]
Document = Callable[..., bytes]
Stored = Callable[[], list[dict[str, Any]]]

JSON = {"content-type": "application/json"}
LEFT_BYTES = 128 << 10


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A file system of its own."""
    with tempfile.TemporaryDirectory(prefix="tallypost-full-") as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", folder]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if mounted.returncode != 0:
            pytest.skip(f"this user cannot mount a file system: {mounted.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True, timeout=20)


def fill(ballast: Path, left: int) -> None:
    """Take all room but so much."""
    disk = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - left)


@pytest.mark.parametrize("reserve", [1, LEFT_BYTES // 2], ids=["to the last byte", "to the reserve"])
def test_disk_that_is_full_declines_and_keeps_what_it_acknowledged(
    spawn: Spawn, report: Document, tmp_path: Path, stored: Stored, today: str, reserve: int
) -> None:
    """Documents are declined with `no_space` until there is room, then taken; a kill costs none that has a receipt."""
    options = ("--seal-bytes", "50000", "--reserve-bytes", str(reserve))
    server = spawn(*options)
    fill(tmp_path / "ballast", LEFT_BYTES)
    acknowledged: set[str] = set()

    def post(client: Any, number: int) -> int:
        name = os.urandom(16).hex()
        body = report(id=name, day=today, counters={"cmd/export": number})
        answer = client.post("/v1/reports", content=body, headers=JSON)
        if answer.status_code == 200:
            assert receipts.is_receipt_of(answer.content, body)
            acknowledged.add(name)
        else:
            assert (503, "no_space") == (answer.status_code, json.loads(answer.content)["error"]["code"])
        return int(answer.status_code)

    with server.client() as client:
        number = 0
        while post(client, number) == 200:
            number += 1
            assert number < 20_000, "the disk is never full"
        for _ in range(2_000):  # Sealing makes room again, until nothing is left to seal.
            post(client, number)
            while_full = client.get("/readyz").status_code
            if while_full == 503:
                break
        (tmp_path / "ballast").unlink()
        back = [post(client, number) for _ in range(20)]
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    again = spawn(*options, listen=server.address)
    again.process.send_signal(signal.SIGTERM)

    assert 503 == while_full
    assert [200] * 20 == back
    assert 0 == again.process.wait(15)
    assert acknowledged <= {line["stream"] for line in stored()}
