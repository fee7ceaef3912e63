"""Acknowledged means kept: a server that is killed under load has every document that it gave a receipt for.

Takes   a folder, seconds, a seed.
Gives   how often the server was killed, and how many documents were acknowledged and found.
Never   looks into the server: documents go in over HTTP, and are found in the files of its data folder.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import zstandard

from .server import free_port, start

DECLARATION = """
application = "example.org/proof"
contact = "privacy@example.org"
consent_version = 1
[counters."proof/inc"]
why = "To be found again"
owner = "the proof"
expires = "never"
"""
SENDERS = 8


def prove(folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """Post, kill and start for so many seconds."""
    rng = random.Random(seed)
    data = folder / "data"
    (data / "applications").mkdir(parents=True)
    (data / "applications" / "proof.toml").write_text(DECLARATION)
    port = free_port()
    posted: dict[str, bytes] = {}
    acknowledged: set[str] = set()
    ended = threading.Event()
    senders = [
        threading.Thread(target=_send, args=(port, number, posted, acknowledged, ended)) for number in range(SENDERS)
    ]
    server = start(data, port)
    for sender in senders:
        sender.start()
    until, kills = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < until:
            time.sleep(rng.random() * 1.5)
            server.send_signal(signal.SIGKILL)
            server.wait()
            kills += 1
            server = start(data, port)
    finally:
        ended.set()
        for sender in senders:
            sender.join()
        server.terminate()
        status = server.wait(30)
    assert status == 0, f"the server ended with {status} after SIGTERM"
    lines = [line for path in (data / "segments").glob("*.jsonl.zst") for line in _lines(path)]
    stored = {line["sha256"]: line for line in lines}
    missing = acknowledged - set(stored)
    invented = set(stored) - set(posted)
    altered = [one for one, line in stored.items() if one in posted and line["doc"] != json.loads(posted[one])]
    assert not missing, f"{len(missing)} acknowledged documents are in no segment"
    assert not invented, f"{len(invented)} documents that nobody posted"
    assert not altered, f"{len(altered)} documents are not what was posted"
    assert acknowledged, "nothing was acknowledged"
    return {"kills": kills, "acknowledged": len(acknowledged), "stored": len(lines)}


def _send(port: int, number: int, posted: dict[str, bytes], acknowledged: set[str], ended: threading.Event) -> None:
    sequence = 0
    connection: http.client.HTTPConnection | None = None
    while not ended.is_set():
        sequence += 1
        document = _report(number * 10_000_000 + sequence)
        name = hashlib.sha256(document).hexdigest()
        posted[name] = document
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", "/v1/reports", document, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                assert json.loads(body)["stored"] == name
                acknowledged.add(name)
        except (OSError, http.client.HTTPException):
            connection = None
            time.sleep(0.05)


def _report(identity: int) -> bytes:
    program = {"program": "proof", "version": "1", "python": "3.12", "os": "linux", "arch": "x86_64"}
    document = {
        "v": 1,
        "kind": "report",
        "x": 0.5,
        "id": f"{identity:032x}",
        "app": "example.org/proof",
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "previous": None,
        "config": None,
        "programs": [{**program, "counters": {"proof/inc": identity}, "stacks": {}}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _lines(path: Path) -> list[dict[str, Any]]:
    content = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
    return [json.loads(line) for line in content.splitlines()]
