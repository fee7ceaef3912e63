from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tallypost_server.disk import OsDisk
from tallypost_server.segments.repair import held

Running = Callable[..., AbstractAsyncContextManager[tuple[Any, Any]]]
Say = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def filled(running: Running, data: Path, report: Callable[..., bytes]) -> Path:
    """A data folder that a server has filled: two segments and a refused document. Its first segment."""
    for number in range(2):
        async with running() as (_, client):
            for more in range(3):
                assert 200 == (await client.post_report(report(id=f"{number}{more}" * 16))).status_code
            assert 422 == (await client.post_report(report(day="2020-01-01"))).status_code
    return min((data / "segments").glob("*.zst"))


async def test_verify_of_a_sound_folder_ends_with_0(say: Say, filled: Path) -> None:
    """All is well, and how much that is."""
    status, out, _ = say("verify")

    assert 0 == status
    assert "read 2 sealed segments, 0 open files, 2 quarantine files with 6 sound lines; 0 damaged\n" == out


async def test_verify_beside_a_server_ends_with_0(
    say: Say, running: Running, report: Callable[..., bytes], filled: Path
) -> None:
    """What a server writes just now is no damage."""
    async with running() as (_, client):
        await client.post_report(report())

        status, out, _ = say("verify", "--json")

    facts = json.loads(out)
    assert 0 == status
    assert {"open": 1, "sealed": 2, "quarantine": 2} == facts["files"]
    assert (7, [], [], []) == (facts["lines"], facts["damaged"], facts["strangers"], facts["aside"])


async def test_verify_tells_each_damage_and_changes_nothing(say: Say, filled: Path, data: Path) -> None:
    """What and where, in every kind of file, and exit 1."""
    whole = filled.read_bytes()
    filled.write_bytes(whole[:-4] + b"0000")
    kept = min((data / "quarantine").iterdir())
    kept.write_bytes(kept.read_bytes()[:-5])
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}

    status, out, _ = say("verify")
    with_json = say("verify", "--json")

    facts = json.loads(with_json[1])
    assert (1, 1) == (status, with_json[0])
    assert f"segments/{filled.name}: byte " in out
    assert "checksum" in out
    assert "3 lines can be read, 0 are missing" in out
    assert f"quarantine/{kept.name}: it is no file of the quarantine" in out
    assert "2 damaged\n" in out
    assert [f"segments/{filled.name}", f"quarantine/{kept.name}"] == [found["file"] for found in facts["damaged"]]
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    filled.write_bytes(whole)


async def test_verify_repair_sets_right_and_says_what_it_did(say: Say, filled: Path, data: Path) -> None:
    """It ends with 0 if nothing is missing, and then all is well."""
    filled.write_bytes(filled.read_bytes()[:-2])
    kept = min((data / "quarantine").iterdir())
    kept.write_bytes(b"{")

    status, out, _ = say("verify", "--repair")

    assert 0 == status
    assert f"moved to quarantine/damaged/{filled.name}; 3 lines of it are in documents-" in out
    assert f"moved to quarantine/damaged/{kept.name}" in out
    status, out, _ = say("verify", "--json")
    facts = json.loads(out)
    assert (0, 6) == (status, facts["lines"])
    assert 3 == len(facts["aside"])


async def test_verify_repair_with_lines_missing_ends_with_1(say: Say, filled: Path, data: Path) -> None:
    """What cannot be read again is not all well, however sound the rest is then."""
    filled.write_bytes(filled.read_bytes()[:-20])

    status, out, _ = say("verify", "--repair", "--json")

    (damage,) = json.loads(out)["damaged"]
    assert 1 == status
    assert damage["repaired"]
    assert 3 == damage["lines"] + damage["missing"]
    assert damage["missing"] > 0
    assert 0 == say("verify")[0]


async def test_verify_repair_of_a_missing_segment_ends_with_1_every_time(say: Say, filled: Path, data: Path) -> None:
    """It is not forgotten by being told once."""
    whole = filled.read_bytes()
    filled.unlink()

    assert [1, 1, 1] == [say("verify", *more)[0] for more in ((), ("--repair",), ())]

    filled.write_bytes(whole)
    filled.chmod(0o640)


async def test_verify_repair_beside_another_one_fails(say: Say, filled: Path, data: Path) -> None:
    """Two of them would take each other's half made files."""
    with held(data / "repair", OsDisk()):
        status, out, err = say("verify", "--repair")

    assert (1, "") == (status, out)
    assert "another tallypost-server verify --repair is at work" in err


async def test_server_after_a_repair_starts_and_takes_documents(
    say: Say, running: Running, report: Callable[..., bytes], filled: Path, data: Path
) -> None:
    """A repaired folder is one like any other, with what was put aside in its quarantine."""
    filled.write_bytes(filled.read_bytes()[:-2])
    say("verify", "--repair")

    async with running() as (_, client):
        assert 200 == (await client.post_report(report())).status_code
        assert 422 == (await client.post_report(report(day="2020-01-01"))).status_code

    assert 0 == say("verify")[0]
    assert os.listdir(data / "quarantine" / "damaged")
