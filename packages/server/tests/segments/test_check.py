from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tallypost_server.metrics import Metrics
from tallypost_server.segments.check import Checked, SegmentChecker
from tallypost_server.segments.seal import Sealer
from tallypost_server.segments.truth import problem_of
from tallypost_server.testing import FaultyDisk

STEM = "documents-20261124T100000Z-0a0a0a0a-0b0b0b0b-000001"
Frame = Callable[[bytes], bytes]


@pytest.fixture
def check(data: Path, disk: FaultyDisk) -> Callable[..., list[Checked]]:
    """Checks all files, beside a server or without one."""

    def files(*, serving: bool = False) -> list[Checked]:
        return list(SegmentChecker(data / "segments", disk=disk, serving=lambda: serving).files())

    return files


@pytest.fixture
def sealed(data: Path, disk: FaultyDisk, metrics: Metrics, torn: Any, opened: Path) -> Path:
    """A sealed segment of six lines."""
    Sealer(data / "segments", disk=disk, metrics=metrics, torn_keeper=torn).seal(STEM)
    path = data / "segments" / (STEM + ".jsonl.zst")
    whole, manifest = path.read_bytes(), manifest_of(path).read_bytes()
    yield path
    path.write_bytes(whole)
    path.chmod(0o640)
    manifest_of(path).write_bytes(manifest)
    manifest_of(path).chmod(0o640)


def manifest_of(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")


def told(checked: Checked) -> str:
    return "; ".join(problem.problem for problem in checked.problems)


def test_files_that_are_sound_have_no_problem(
    check: Callable[..., list[Checked]], sealed: Path, data: Path, lines: list[bytes], frame: Frame
) -> None:
    """A sealed segment and an open file as the server leaves them."""
    other = data / "segments" / "open" / (STEM[:-1] + "2.open")
    other.write_bytes(frame(lines[0]) + frame(b"".join(lines[1:])))
    other.chmod(0o640)

    opened, whole = check()

    assert (other, "open", 6, []) == opened[:4]
    assert (sealed, "sealed", 6, []) == whole[:4]
    assert 0 == whole.missing


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("segment", "other.jsonl.zst"),
        ("rows", 7),
        ("bytes", 1),
        ("sha256", "0" * 64),
        ("lines_bytes", 1),
        ("first", "2026-11-24T10:00:01.000Z"),
        ("last", "2026-11-24T10:00:01.000Z"),
        ("node", "ffffffff"),
    ],
)
def test_manifest_that_tells_otherwise_is_a_problem(
    check: Callable[..., list[Checked]], sealed: Path, key: str, value: object
) -> None:
    """Whatever the manifest holds is checked."""
    manifest = json.loads(manifest_of(sealed).read_bytes())
    manifest_of(sealed).write_text(json.dumps({**manifest, key: value}))

    (checked,) = check()

    assert f"its manifest tells {key}" in told(checked)
    assert 1 == len(checked.problems)
    assert (1 if key == "rows" else 0) == checked.missing
    assert checked.manifest is not None
    assert manifest[key] == getattr(checked.manifest, key)


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "is missing"), (b"", "cannot be read"), (b"{}", "cannot be read")]
)
def test_manifest_that_is_none_is_a_problem(
    check: Callable[..., list[Checked]], sealed: Path, content: bytes | None, problem: str
) -> None:
    """A segment without a manifest could have lost anything."""
    if content is None:
        manifest_of(sealed).unlink()
    else:
        manifest_of(sealed).write_bytes(content)

    (checked,) = check()

    assert f"its manifest {problem}" == told(checked)
    assert checked.manifest is not None


def test_segment_of_which_only_the_manifest_is_left_is_missing(
    check: Callable[..., list[Checked]], sealed: Path
) -> None:
    """What was stored and is not there is told, with how much it was."""
    sealed.unlink()

    (checked,) = check()

    assert "missing: only its manifest is here" == told(checked)
    assert 6 == checked.missing


def test_manifest_of_a_segment_that_is_being_sealed_is_no_problem(
    check: Callable[..., list[Checked]], sealed: Path, opened: Path, lines: list[bytes], frame: Frame
) -> None:
    """The manifest is there before its segment; the open file holds the lines meanwhile."""
    sealed.unlink()
    opened.write_bytes(b"".join(map(frame, lines)))

    (checked,) = check()

    assert ("open", []) == (checked.kind, checked.problems)
    opened.unlink()


def test_segment_with_any_bit_flipped_is_damaged(check: Callable[..., list[Checked]], sealed: Path) -> None:
    """Wherever the damage is, it is found, and no line is read that was not stored."""
    whole = sealed.read_bytes()
    stored = set(zstandard.decompress(whole).splitlines())
    for place in range(0, len(whole), 3):
        sealed.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])

        (checked,) = check()

        assert checked.problems, place
        assert checked.lines + checked.missing == 6 or checked.lines > len(stored)


def test_segment_cut_anywhere_is_damaged(check: Callable[..., list[Checked]], sealed: Path) -> None:
    """An end that is lacking is never taken for an end."""
    whole = sealed.read_bytes()
    for size in range(0, len(whole), 7):
        sealed.write_bytes(whole[:size])

        (checked,) = check()

        assert checked.problems, size


def test_damaged_line_is_told_with_its_number(
    check: Callable[..., list[Checked]], sealed: Path, lines: list[bytes]
) -> None:
    """Also where every checksum is right."""
    content = b"".join([*lines[:2], b'{"v":1,"received":"never"}\n', *lines[3:]])
    sealed.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))

    (checked,) = check()

    assert 3 == checked.problems[0].line
    assert (5, 1) == (checked.lines, checked.missing)
    assert checked.manifest is None


def test_torn_frame_is_told_with_its_place(
    check: Callable[..., list[Checked]], opened: Path, lines: list[bytes], frame: Frame
) -> None:
    """In the middle of an open file, and at its end."""
    frames = [frame(line) for line in lines]
    opened.write_bytes(frames[0] + frames[1][:-3] + b"".join(frames[2:]) + b"half")

    (checked,) = check()

    assert [len(frames[0]), opened.stat().st_size - 4] == [problem.offset for problem in checked.problems]
    assert 5 == checked.lines


def test_torn_end_beside_a_server_is_a_group_on_its_way(
    check: Callable[..., list[Checked]], opened: Path, lines: list[bytes], frame: Frame
) -> None:
    """While a server runs the last frame may not be whole yet; one in the middle is damage all the same."""
    opened.write_bytes(frame(lines[0]) + frame(lines[1])[:-3])
    assert [] == check(serving=True)[0].problems

    opened.write_bytes(frame(lines[0])[:-3] + frame(lines[1]) + frame(lines[2])[:-3])
    assert [0] == [problem.offset for problem in check(serving=True)[0].problems]


def test_problems_of_a_file_are_told_up_to_a_number_and_counted(
    check: Callable[..., list[Checked]], opened: Path, frame: Frame
) -> None:
    """A disk that lost everything does not fill the memory with words about it."""
    opened.write_bytes(frame(b'{"v":1,"received":"x"}\n' * 1000))

    (checked,) = check()

    assert (20, 980) == (len(checked.problems), checked.more)


def test_check_of_a_large_segment_holds_little_of_it(
    check: Callable[..., list[Checked]], data: Path, lines: list[bytes]
) -> None:
    """The memory that checking takes does not grow with the segment."""
    path = data / "segments" / (STEM + ".jsonl.zst")
    content = b"".join(lines[1].replace(b"0" * 31 + b"1", b"%032x" % (number**7)) for number in range(24000))
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))
    path.chmod(0o640)

    tracemalloc.start()
    (checked,) = check()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 24000 == checked.lines
    assert 8 << 20 < len(content)
    assert peak < 3 << 20
    path.unlink()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line: line, None),
        (lambda line: {**line, "app": "example.org/other"}, "other things"),
        (lambda line: {**line, "stream": "cd" * 16}, "other things"),
        (lambda line: {**line, "last": 9}, "other things"),
        (lambda line: {**line, "terminal": 9}, "other things"),
        (lambda line: {**line, "sha256": "0"}, "sha256"),
        (lambda line: {**line, "received": "today"}, "no line"),
        (lambda line: {**line, "v": 2}, "no line"),
        (lambda line: {**line, "kind": "other"}, "no line"),
        (lambda line: {**line, "kind": "report"}, "breaks a rule"),
        (lambda line: {**line, "doc": {**line["doc"], "first": -1}}, "breaks a rule"),
        (lambda line: {**line, "doc": []}, "breaks a rule"),
    ],
)
def test_problem_of_a_line_that_breaks_the_format_is_told(
    lines: list[bytes], change: Callable[[dict[str, Any]], dict[str, Any]], problem: str | None
) -> None:
    """A line is checked in itself and against its document."""
    found = problem_of(json.dumps(change(json.loads(lines[0])), separators=(",", ":")).encode())

    assert found == problem if problem is None else problem in (found or "")


def test_strangers_are_named_and_no_damage(check: Callable[..., list[Checked]], data: Path, disk: FaultyDisk) -> None:
    """What is not ours is told, and left alone."""
    (data / "segments" / "notes.txt").write_text("")
    (data / "segments" / "open" / "half.making").write_text("")
    (data / "segments" / "open" / "notes.txt").write_text("")

    checker = SegmentChecker(data / "segments", disk=disk, serving=lambda: False)

    assert [] == check()
    assert ["segments/notes.txt", "segments/open/notes.txt"] == checker.strangers()
    for path in [*(data / "segments").rglob("*.txt"), *(data / "segments").rglob("*.making")]:
        path.unlink()
