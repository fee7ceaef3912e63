from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost_schema import documents, receipts
from tallypost_server.clock import SystemClock, stamp
from tallypost_server.disk import OsDisk
from tallypost_server.segments.format import line_of_batch, line_of_report
from tallypost_server.segments.reader import SegmentReader
from tallypost_server.segments.write import Told, write_segment

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"
Say = Callable[..., tuple[int, str, str]]
Spawn = Callable[..., Any]


@pytest.fixture
def lines(report: Callable[..., bytes], batch: Callable[..., bytes], today: str) -> list[bytes]:
    """Lines of five documents, three of them of one session."""
    bodies = [
        *(report(id=format(number, "032x"), day=today) for number in range(2)),
        *(batch(2, first=2 * number) for number in range(3)),
    ]
    received = "2026-11-24T10:00:00.000Z"
    return [
        line_of_report(documents.decode_report(body), received=received, sha256="0" * 64)
        if b'"report"' in body
        else line_of_batch(documents.decode_batch(body), received=received, sha256="0" * 64)
        for body in bodies
    ]


@pytest.fixture
def backup(tmp_path: Path, lines: list[bytes]) -> Path:
    """A sealed segment outside of any data folder."""
    (tmp_path / "backup" / "open").mkdir(parents=True)
    told = Told()
    told.add(b"".join(lines))
    write_segment(tmp_path / "backup", STEM, told, lines, disk=OsDisk())
    return tmp_path / "backup" / (STEM + ".jsonl.zst")


@pytest.fixture
def stored_in(data: Path) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in SegmentReader(data / "segments", disk=OsDisk()).lines()]


def keep(data: Path, name: str, code: str, body: bytes, source: str = "/v1/reports") -> Path:
    """Lays a file into the quarantine."""
    path = data / "quarantine" / name
    kept = {"v": 1, "at": stamp(SystemClock().now()), "code": code, "message": "why", "source": source}
    kept.update(body=base64.b64encode(body).decode(), encoding="identity")
    path.write_text(json.dumps(kept))
    path.chmod(0o640)
    return path


def test_replay_of_a_backup_restores_its_documents(
    say: Say, spawn: Spawn, backup: Path, lines: list[bytes], stored_in: Callable[[], list[dict[str, Any]]]
) -> None:
    """What the lines hold is posted and stored: the same documents, received now, with the hash of what was posted."""
    server = spawn()

    status, out, _ = say("replay", str(backup), "--to", f"http://{server.address}")

    assert (0, "5 stored, 0 refused, 0 unreadable\n") == (status, out)
    stored = stored_in()
    told = [json.loads(line) for line in lines]
    key = lambda line: (line["stream"], line["first"] or 0)  # noqa: E731
    assert sorted((line["doc"] for line in told), key=str) == sorted((line["doc"] for line in stored), key=str)
    assert [key(line) for line in told if line["kind"] == "events"] == [
        key(line) for line in stored if line["kind"] == "events"
    ]
    for line in stored:
        assert receipts.hash_of(json.dumps(line["doc"], separators=(",", ":")).encode()) == line["sha256"]


def test_replay_twice_is_told_stored_twice(say: Say, spawn: Spawn, backup: Path) -> None:
    """Whoever is not sure may do it again: a repeat has its receipt as well, and is the same document."""
    address = f"http://{spawn().address}"

    outcomes = [say("replay", str(backup), "--to", address, "--json") for _ in range(2)]

    expected = {"stored": 5, "refused": 0, "unreadable": 0, "without_answer": 0}
    assert [(0, expected)] * 2 == [(status, json.loads(out)) for status, out, _ in outcomes]


def test_replay_to_a_socket_and_by_default_where_the_settings_say(
    say: Say, spawn: Spawn, backup: Path, tmp_path: Path
) -> None:
    """A server is found by an address, by its socket, or by its own setting."""
    server = spawn(listen=f"unix:{tmp_path}/s")

    assert 0 == say("replay", str(backup), "--to", server.address)[0]
    assert 0 == say("replay", str(backup), "--listen", server.address)[0]


def test_replay_of_a_damaged_segment_posts_what_can_be_read_and_ends_with_1(
    say: Say, spawn: Spawn, backup: Path, lines: list[bytes], stored_in: Callable[[], list[dict[str, Any]]]
) -> None:
    """A restore is not given up because of a part, and not called whole either."""
    backup.write_bytes(backup.read_bytes()[:-1])

    status, out, err = say("replay", str(backup), "--to", f"http://{spawn().address}")

    assert (1, "5 stored, 0 refused, 1 unreadable\n") == (status, out)
    assert f"{backup}: not posted: damaged at about byte" in err
    assert 5 == len(stored_in())


def test_replay_of_an_open_segment_posts_its_whole_frames(say: Say, spawn: Spawn, backup: Path) -> None:
    """What a crash left open can be posted as well."""
    path = backup.with_name(STEM + ".open")
    path.write_bytes(backup.read_bytes() + b"half")

    status, out, err = say("replay", str(path), "--to", f"http://{spawn().address}")

    assert (1, "5 stored, 0 refused, 1 unreadable\n") == (status, out)
    assert "4 bytes that are no whole frame" in err


def test_replay_of_what_is_refused_goes_on_and_ends_with_1(
    say: Say, spawn: Spawn, data: Path, backup: Path, report: Callable[..., bytes]
) -> None:
    """A report beyond the horizon has no receipt, and the reason is told."""
    old = keep(data, "20200101T000000Z-too_old-00000001.json", "too_old", report(day="2020-01-01"))

    status, out, err = say("replay", str(old), str(backup), "--to", f"http://{spawn().address}")

    assert (1, "5 stored, 1 refused, 0 unreadable\n") == (status, out)
    assert f"{old}: refused: 422 too_old" in err
    assert old.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replay",), 2),
        (("replay", "notes.txt"), 2),
        (("replay", f"{STEM}.jsonl.zst.manifest.json"), 2),
        (("replay", f"{STEM}.jsonl.zst"), 1),
        (("quarantine", "nonsense"), 2),
        (("quarantine", "show"), 2),
        (("quarantine", "show", "../lock"), 2),
        (("quarantine", "show", "missing.json"), 1),
    ],
)
def test_wrong_use_is_told_before_anything_is_posted(say: Say, arguments: tuple[str, ...], expected: int) -> None:
    """A file that is not there, or of another kind, stops a restore at its begin."""
    try:
        status, out, err = say(*arguments)
    except SystemExit as ended:
        status, out, err = int(ended.code or 0), "", "said"

    assert (expected, "") == (status, out)
    assert err


@pytest.mark.parametrize("to", ["ftp://example.org", "example.org", "unix:", "http://[::1"])
def test_replay_to_what_is_no_address_is_wrong_use(say: Say, backup: Path, to: str) -> None:
    """It is not tried."""
    status, out, err = say("replay", str(backup), "--to", to)

    assert (2, "") == (status, out)
    assert err


def test_replay_to_nobody_ends_with_1(say: Say, backup: Path) -> None:
    """It says what it met, and how much was stored."""
    status, out, err = say("replay", str(backup), "--to", "http://127.0.0.1:9", "--patience", "0.5")

    assert (1, "0 stored, 0 refused, 0 unreadable; not all were posted\n") == (status, out)
    assert "the server took nothing" in err


def test_replay_without_httpx_says_what_to_install(backup: Path) -> None:
    """Who never replays has no need of it."""
    program = "import sys; sys.modules['httpx'] = None; from tallypost_server.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "replay", str(backup)]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (1, "") == (ended.returncode, ended.stdout)
    assert "posting documents needs httpx: pip install 'tallypost-server[replay]'" in ended.stderr


def test_quarantine_lists_what_was_refused_and_what_would_be_taken_now(
    say: Say, data: Path, report: Callable[..., bytes], today: str
) -> None:
    """When, why, of which application, how much, and what the server would say today."""
    keep(data, "20261101T000000Z-from_the_future-00000001.json", "from_the_future", report(day=today))
    keep(data, "20261102T000000Z-malformed-00000002.json", "malformed", b"{")

    status, out, _ = say("quarantine", "--json")
    text = say("quarantine")[1]

    future, malformed = json.loads(out)["files"]
    assert 0 == status
    assert ("from_the_future", "example.org/mytool", "accepted") == (future["code"], future["app"], future["now"])
    assert ("malformed", None, 1, "malformed") == tuple(malformed[key] for key in ("code", "app", "bytes", "now"))
    assert ["name", "at", "code", "message", "source", "encoding", "app", "bytes", "now"] == list(future)
    assert "would be accepted now\n    why\n" in text
    assert "2 refused, 1 would be accepted now\n" in text


def test_quarantine_show_prints_one_with_its_document(
    say: Say, data: Path, report: Callable[..., bytes], today: str
) -> None:
    """All that is known of it, and what was posted."""
    body = report(day=today)
    path = keep(data, "20261101T000000Z-from_the_future-00000001.json", "from_the_future", body)

    status, out, _ = say("quarantine", "show", path.name, "--json")
    text = say("quarantine", "show", path.name)[1]

    facts = json.loads(out)
    assert 0 == status
    assert (body.decode(), base64.b64encode(body).decode()) == (facts["document"], facts["body"])
    assert body.decode() in text
    assert "code      from_the_future\n" in text


def test_quarantine_show_of_what_is_no_text_prints_base64(say: Say, data: Path) -> None:
    """A terminal gets no control characters."""
    path = keep(data, "20261101T000000Z-malformed-00000001.json", "malformed", b"\x1b[2J\xff")

    _, out, _ = say("quarantine", "show", path.name)

    assert "\x1b" not in out
    assert base64.b64encode(b"\x1b[2J\xff").decode() in out


def test_quarantine_replay_stores_what_would_be_accepted_and_keeps_the_rest(
    say: Say,
    spawn: Spawn,
    data: Path,
    report: Callable[..., bytes],
    today: str,
    stored_in: Callable[[], list[dict[str, Any]]],
) -> None:
    """What has its receipt leaves the quarantine; nothing else does."""
    good = keep(data, "20261101T000000Z-from_the_future-00000001.json", "from_the_future", report(day=today))
    bad = keep(data, "20261102T000000Z-malformed-00000002.json", "malformed", b"{")
    server = spawn()

    status, out, _ = say("quarantine", "replay", "--to", f"http://{server.address}")
    again = say("quarantine", "replay", "--to", f"http://{server.address}", "--json")

    assert (0, "1 stored and removed from the quarantine, 0 refused again, 1 would be refused and stay\n") == (
        status,
        out,
    )
    assert ["0f" * 16] == [line["stream"] for line in stored_in()]
    assert (False, True) == (good.exists(), bad.exists())
    expected = {"stored": 0, "refused": 0, "without_answer": 0, "would_be_refused": 1}
    assert (0, expected) == (again[0], json.loads(again[1]))


def test_quarantine_replay_without_a_server_removes_nothing(
    say: Say, data: Path, report: Callable[..., bytes], today: str
) -> None:
    """Only a receipt takes a document out of the quarantine."""
    good = keep(data, "20261101T000000Z-from_the_future-00000001.json", "from_the_future", report(day=today))

    status, _, err = say("quarantine", "replay", good.name, "--to", "http://127.0.0.1:9", "--patience", "0.5")

    assert 1 == status
    assert "took nothing" in err
    assert good.exists()


def test_quarantine_with_a_damaged_file_lists_the_others(
    say: Say, data: Path, report: Callable[..., bytes], today: str
) -> None:
    """It is told, on standard error, and `verify` says more."""
    good = keep(data, "20261101T000000Z-from_the_future-00000001.json", "from_the_future", report(day=today))
    bad = keep(data, "20261102T000000Z-malformed-00000002.json", "malformed", b"{")
    bad.write_bytes(bad.read_bytes()[:-5])

    status, out, err = say("quarantine", "--json")

    assert (0, [good.name]) == (status, [file["name"] for file in json.loads(out)["files"]])
    assert f"quarantine/{bad.name} is damaged" in err
    assert (1, "") == say("quarantine", "show", bad.name)[:2]


def test_quarantine_without_the_declarations_cannot_tell_what_would_be_accepted(
    say: Say, data: Path, report: Callable[..., bytes], today: str, tmp_path: Path
) -> None:
    """It says so, lists what there is, and does not post on a guess."""
    path = keep(data, "20261101T000000Z-from_the_future-00000001.json", "from_the_future", report(day=today))
    missing = ("--applications", str(tmp_path / "missing"))

    status, out, err = say("quarantine", "--json", *missing)
    replayed = say("quarantine", "replay", "--json", *missing)

    (file,) = json.loads(out)["files"]
    assert (0, None) == (status, file["now"])
    assert "cannot be told" in err
    assert (1, "") == replayed[:2]
    assert path.exists()


def test_quarantine_tells_how_many_damaged_files_were_put_aside(say: Say, data: Path) -> None:
    """They are no refused documents, and easily forgotten."""
    (data / "quarantine" / "damaged").mkdir(mode=0o750)
    (data / "quarantine" / "damaged" / "a").touch(mode=0o640)

    assert "1 damaged files put aside whole" in say("quarantine")[1]
    assert ["a"] == json.loads(say("quarantine", "--json")[1])["aside"]


def test_replay_of_a_damaged_stretch_of_a_segment_posts_nothing(say: Say, data: Path) -> None:
    """It is no document, whatever is in it; so all there is to post is posted, and the exit says that it is not all."""
    path = data / "quarantine" / "20261101T000000Z-torn_frame-0a0a0a0a-0b0b0b0b-000001-17.json"
    kept = {"v": 1, "at": "2026-11-24T10:00:00.000Z", "code": "torn_frame", "message": "4 bytes", "source": STEM}
    path.write_text(json.dumps({**kept, "body": "dG9ybg==", "offset": 17}))
    path.chmod(0o640)

    status, out, err = say("replay", str(path), "--to", "http://127.0.0.1:9")

    assert (1, "0 stored, 0 refused, 1 unreadable\n") == (status, out)
    assert "a damaged stretch of a segment, no document" in err


@pytest.mark.parametrize("patience", ["nan", "inf", "0", "-1", "long"])
def test_replay_with_a_patience_that_has_no_end_is_wrong_use(say: Say, patience: str, tmp_path: Path) -> None:
    """A server that is away for ever must not be waited for by mistake."""
    with pytest.raises(SystemExit, match="2"):
        say("replay", str(tmp_path / "x.jsonl.zst"), "--patience", patience)
