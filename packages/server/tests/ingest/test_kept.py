from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_server.disk import OsDisk
from tallypost_server.errors import KeptDamaged, Refused
from tallypost_server.ingest.applications import Applications
from tallypost_server.ingest.kept import KeptReader, judge
from tallypost_server.ingest.quarantine import Quarantine
from tallypost_server.metrics import Metrics
from tallypost_server.testing import FakeClock, FaultyDisk

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"


@pytest.fixture
def quarantine(
    data: Path, disk: FaultyDisk, clock: FakeClock, metrics: Metrics, token: Callable[[int], str]
) -> Quarantine:
    return Quarantine(
        data / "quarantine", disk=disk, clock=clock, metrics=metrics, token=token, in_thread=lambda job: job()
    )


@pytest.fixture
def reader(data: Path) -> KeptReader:
    return KeptReader(data / "quarantine", disk=OsDisk())


def test_read_gives_what_was_kept(quarantine: Quarantine, reader: KeptReader) -> None:
    """Refused documents and damaged stretches, oldest first."""
    quarantine.keep_refused(Refused("malformed", "not JSON"), path="/v1/reports", encoding="identity", body=b"body")
    quarantine.keep_torn(STEM, 17, b"torn")

    files = [reader.read(name) for name in reader.names()]

    assert [(b"body", True), (b"torn", False)] == [(file.body, file.is_document) for file in files]
    assert [[], []] == [checked.problems for checked in reader.check()]


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"at": "yesterday"},
        {"code": "strange"},
        {"source": "/v1/other"},
        {"encoding": "br"},
        {"offset": 3},
        {"body": "not base64"},
        {"body": 7},
        {"at": None},
    ],
)
def test_read_of_what_is_none_raises(
    quarantine: Quarantine, reader: KeptReader, data: Path, change: dict[str, Any]
) -> None:
    """What a file of the quarantine has to say is checked."""
    quarantine.keep_refused(Refused("malformed", "not JSON"), path="/v1/reports", encoding="identity", body=b"body")
    (name,) = reader.names()
    path = data / "quarantine" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(KeptDamaged):
        reader.read(name)

    assert 1 == len(next(reader.check()).problems)


def test_read_of_a_file_beyond_all_bounds_raises(reader: KeptReader, data: Path) -> None:
    """It is not read into memory to find out."""
    path = data / "quarantine" / "large.json"
    path.write_bytes(b" " * (9 << 20))
    path.chmod(0o640)

    with pytest.raises(KeptDamaged, match="at most"):
        reader.read("large.json")


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        ({}, "identity", None),
        ({}, "zstd", None),
        ({"day": "2020-01-01"}, "identity", "too_old"),
        ({"app": "example.org/other"}, "identity", "unknown_application"),
        (b"{", "identity", "malformed"),
        (b"no zstd", "zstd", "malformed"),
    ],
)
def test_judge_tells_what_the_server_would_say_now(
    quarantine: Quarantine,
    reader: KeptReader,
    data: Path,
    clock: FakeClock,
    report: Callable[..., bytes],
    body: dict[str, Any] | bytes,
    encoding: str,
    expected: str | None,
) -> None:
    """By the same checks that a post goes through, with the declarations as they are now."""
    document = body if isinstance(body, bytes) else report(**body)
    if encoding == "zstd" and not isinstance(body, bytes):
        document = zstandard.compress(document)
    refused = Refused("from_the_future", "a day later than tomorrow")
    quarantine.keep_refused(refused, path="/v1/reports", encoding=encoding, body=document)
    applications = Applications(data / "applications", disk=OsDisk())
    applications.scan()

    judged = judge(reader.read(reader.names()[0]), find=applications.find, now=clock.now())

    assert expected == (None if judged.refused is None else judged.refused.code)
    if not isinstance(body, bytes):
        assert body.get("app", "example.org/mytool") == judged.application


def test_judge_of_a_damaged_stretch_is_no_document(
    quarantine: Quarantine, reader: KeptReader, clock: FakeClock
) -> None:
    """A part of a segment is never posted."""
    quarantine.keep_torn(STEM, 17, b"torn")

    def nobody(application: str) -> Any:
        raise AssertionError(application)

    judged = judge(reader.read(reader.names()[0]), find=nobody, now=clock.now())

    assert judged.refused is not None
    assert judged.document is None


def test_settle_takes_a_file_away(quarantine: Quarantine, reader: KeptReader) -> None:
    """And once only."""
    quarantine.keep_torn(STEM, 17, base64.b64encode(b"torn"))

    for _ in range(2):
        reader.settle(f"20261124T100000Z-torn_frame-{STEM.split('-', 2)[2]}-17.json")

    assert [] == reader.names()
