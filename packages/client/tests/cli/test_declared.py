from __future__ import annotations

import datetime
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost.clock import day_of
from tallypost.declared.lints import LEVELS, RULES
from tallypost.declared.page import facts
from tallypost_schema import declaration as declarations

ROOT = Path(__file__).resolve().parents[4]
FILES = sorted([*ROOT.glob("examples/**/telemetry.toml"), *ROOT.glob("tests/**/*.toml")])
DAY = 86_400
Command = Callable[..., Any]


@pytest.fixture
def good(tmp_path: Path, declaration: Path) -> Path:
    """A declaration in which nothing is wrong."""
    path = tmp_path / "good.toml"
    path.write_text(declaration.read_text().replace("expires = 2026-11-22", 'expires = "never"'))
    return path


@pytest.fixture
def doubtful(good: Path) -> Path:
    """A declaration with a warning, and nothing else."""
    good.write_text(good.read_text().replace("cmd/old", "cmd/exports"))
    return good


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The code to the good declaration: it counts all that is declared."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "tool.py").write_text(
        'telemetry.counter("cmd/export").inc(bucket="pdf")\n'
        'telemetry.counter("cmd/sampled").inc()\n'
        'telemetry.counter("cmd/old").inc()\n'
        'telemetry.histogram("export/seconds", edges=(0.1, 1))\n'
    )
    return folder


def lints_of(command: Command, *words: str) -> list[tuple[str, str]]:
    """Code and key of each finding."""
    return [(lint["code"], lint["key"]) for lint in json.loads(command("check", "--json", *words).out)["lints"]]


# -------------------------------------------------------------------- check


def test_check_of_a_good_file_is_quiet_about_it(command: Command, good: Path, source: Path, base: Path) -> None:
    """Exit 0; no application is needed for it, and nothing is made."""
    for words in ((str(good),), (str(good), "--source", str(source)), (str(good), "--strict")):
        said = command("check", *words)

        assert (0, f"{good}: no problems\n", "") == (said.status, said.text, said.err)
    assert {"file": str(good), "problems": [], "lints": []} == json.loads(command("check", str(good), "--json").out)
    assert not base.exists()


@pytest.mark.parametrize(
    "content", [b"", b"application = 'example.org/mytool'", b"\xff", b"[counters.x]\nwhy = 1", b"[" * 5000]
)
def test_check_of_a_bad_file_names_its_problems(command: Command, tmp_path: Path, content: bytes) -> None:
    """Exit 1, each problem a line on standard error, with the file's name."""
    (bad := tmp_path / "bad.toml").write_bytes(content)

    said = command("check", str(bad))

    assert (1, b"") == (said.status, said.out)
    assert all(line.startswith(f"{bad}: ") for line in said.err.splitlines())
    assert said.err
    assert len(said.err.splitlines()) == len(json.loads(command("check", str(bad), "--json").out)["problems"])


@pytest.mark.parametrize("word", ["check", "docs"])
@pytest.mark.parametrize("name", ["none.toml", "."])
def test_command_on_no_file_fails(command: Command, tmp_path: Path, word: str, name: str) -> None:
    """What is not there, or is a folder, cannot be read."""
    said = command(word, str(tmp_path / name))

    assert (1, b"") == (said.status, said.out)
    assert "cannot be read" in said.err


def test_check_goes_by_the_shifted_clock(command: Command, declaration: Path) -> None:
    """An expiry is checked at the instant that a demonstration has set."""
    declaration.write_text(declaration.read_text().replace("2026-11-22", day_of(time.time() + 30 * DAY)))

    today = command("check", str(declaration))
    later = command("check", str(declaration), TALLYPOST_TESTING_CLOCK_SHIFT=str(31 * DAY))

    assert (0, 1) == (today.status, later.status)
    assert "cmd/old" in later.err


def test_check_with_a_warning_fails_only_if_it_is_strict(command: Command, doubtful: Path) -> None:
    """It is said in both cases, with its level, its code word and what to do."""
    mild, strict = command("check", str(doubtful)), command("check", str(doubtful), "--strict")

    assert (0, f"{doubtful}: no problems; 1 warning\n") == (mild.status, mild.text)
    assert (1, b"") == (strict.status, strict.out)
    sentence = 'counters."cmd/exports" is nearly counters."cmd/export"'
    line = f"{doubtful}: warning: {sentence} [near-duplicate]: {RULES['near-duplicate'].advice}\n"
    assert line == mild.err == strict.err


def test_check_as_json_has_what_fails_and_what_was_found(command: Command, doubtful: Path) -> None:
    """`problems` are the sentences by which it fails; `lints` are all findings, with their code words."""
    mild = json.loads(command("check", str(doubtful), "--json").out)
    strict = json.loads(command("check", "--strict", str(doubtful), "--json").out)

    (lint,) = mild["lints"]
    assert ["code", "level", "key", "place", "sentence", "advice"] == list(lint)
    assert ("near-duplicate", "warning", None) == (lint["code"], lint["level"], lint["place"])
    assert [] == mild["problems"]
    assert [lint["sentence"]] == strict["problems"]
    assert mild["lints"] == strict["lints"]


def test_check_tells_errors_before_warnings_before_notes(command: Command, declaration: Path, source: Path) -> None:
    """What fails stands first."""
    (source / "tool.py").write_text('telemetry.counter("mine").inc()')

    said = command("check", str(declaration), "--source", str(source), TALLYPOST_TESTING_CLOCK_SHIFT=str(10_000 * DAY))

    levels = [line.removeprefix(f"{declaration}: ").partition(":")[0] for line in said.err.splitlines()]
    assert 1 == said.status
    assert {"error", "warning", "note"} == set(levels)
    assert levels == sorted(levels, key=[*LEVELS].index)


def test_check_with_source_compares_with_the_code(command: Command, good: Path, source: Path) -> None:
    """In all its folders, and in all that are given."""
    (source / "tool.py").write_text('telemetry.counter("cmd/export").inc(bucket="pdf")\n')
    (source / "deeper").mkdir()
    (source / "deeper" / "more.py").write_text('telemetry.counter("cmd/sampled").inc()\n')
    (other := source.parent / "other.py").write_text('telemetry.histogram("export/seconds", edges=(0.1, 2))\n')

    one = lints_of(command, str(good), "--source", str(source))
    both = lints_of(command, str(good), "--source", str(source), "--source", str(other))

    assert [("unused-name", 'counters."cmd/old"'), ("unused-name", 'histograms."export/seconds"')] == one
    assert [("other-edges", 'histograms."export/seconds".edges'), ("unused-name", 'counters."cmd/old"')] == both
    assert 1 == command("check", str(good), "--source", str(other)).status


def test_check_with_source_reads_no_code_of_others(command: Command, good: Path, source: Path) -> None:
    """Environments, caches and hidden folders hold what others count; a pipe is not waited for."""
    for folder in (".venv/lib", "env", "node_modules/x", "site-packages", "__pycache__"):
        (source / folder).mkdir(parents=True)
        (source / folder / "theirs.py").write_text('telemetry.counter("theirs").inc()')
    (source / "env" / "pyvenv.cfg").touch()
    os.mkfifo(source / "pipe.py")

    assert [] == lints_of(command, str(good), "--source", str(source))


def test_check_with_source_tells_a_file_that_cannot_be_read(command: Command, good: Path, source: Path) -> None:
    """It is a warning: what it counts is not known."""
    (source / "old.py").write_text("print 'x'\n")

    assert [("unreadable-source", f"{source}/old.py")] == lints_of(command, str(good), "--source", str(source))


def test_check_with_source_sees_pytests_settings(command: Command, tmp_path: Path) -> None:
    """The plugin need not be named in any Python file."""
    folder = ROOT / "examples" / "contrib" / "pytest"

    assert [] == lints_of(command, str(folder / "telemetry.toml"), "--source", str(folder))


@pytest.mark.parametrize("name", ["none", "empty", "good.toml"])
def test_check_with_a_source_without_code_fails(command: Command, good: Path, name: str) -> None:
    """Else each name would be called unused by a wrong path."""
    (good.parent / "empty").mkdir()

    said = command("check", str(good), "--source", str(good.parent / name))

    assert (1, b"") == (said.status, said.out)
    assert f"{name} holds no Python file" in said.err
    assert "unused" not in said.err


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_check_of_a_real_declaration_passes(command: Command, path: Path) -> None:
    """Those of the examples strictly; that of the system tests has a name that has expired, on purpose."""
    said = command("check", "--strict", str(path))

    assert (1 if "system" in str(path) else 0) == said.status, said.err


# -------------------------------------------------------------------- docs


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_docs_of_a_real_declaration_is_a_page_on_standard_output(command: Command, path: Path) -> None:
    """In HTML, if nothing is said, or in Markdown; in UTF-8, whatever the terminal's encoding."""
    web, markdown = command("docs", str(path)), command("docs", str(path), "--format", "markdown")

    application = declarations.parse(path.read_text()).application
    assert (0, "") == (web.status, web.err) == (markdown.status, markdown.err)
    assert web.out.startswith(b"<!doctype html>")
    assert f"<h1>What {application} counts</h1>" in web.text
    assert markdown.text.startswith(f"# What {application} counts\n")


@pytest.mark.parametrize(
    ("name", "words", "begin"),
    [
        ("page.html", (), "<!doctype html>"),
        ("PAGE.MD", (), "# What"),
        ("page", (), "<!doctype html>"),
        ("page", ("--format", "markdown"), "# What"),
        ("page.md", ("--format", "html"), "<!doctype html>"),
    ],
)
def test_docs_with_output_writes_the_file_and_tells_its_name(
    command: Command, good: Path, tmp_path: Path, name: str, words: tuple[str, ...], begin: str
) -> None:
    """The same bytes that it would have printed; what the file is called says its format, unless that is said."""
    output = tmp_path / name

    said = command("docs", str(good), "--output", str(output), *words)

    assert (0, f"{output}\n", "") == (said.status, said.text, said.err)
    assert output.read_text("utf-8").startswith(begin)


def test_docs_with_output_where_nothing_can_be_written_fails(command: Command, good: Path, tmp_path: Path) -> None:
    """Exit 1, and a sentence that names the path."""
    said = command("docs", str(good), "--output", str(tmp_path / "none" / "page.html"))

    assert (1, b"") == (said.status, said.out)
    assert "none/page.html" in said.err
    assert "Traceback" not in said.err


def test_docs_as_json_has_the_facts_of_the_page(command: Command, good: Path, tmp_path: Path) -> None:
    """In place of the page on standard output; a file is written all the same."""
    output = tmp_path / "page.html"

    said = command("docs", str(good), "--json", "--output", str(output))

    today = datetime.date.fromisoformat(json.loads(said.out)["day"])
    assert f"{json.dumps(facts(declarations.parse(good.read_text()), today=today))}\n" == said.text
    assert output.read_bytes().startswith(b"<!doctype html>")


def test_docs_of_a_bad_file_names_its_problems_and_prints_no_page(command: Command, tmp_path: Path) -> None:
    """As `check` does; what looks wrong and is allowed is no hindrance."""
    (bad := tmp_path / "bad.toml").write_text("application = 'example.org/mytool'\n[counters.x]\nwhy = 1\n")
    output = tmp_path / "page.html"

    said = command("docs", str(bad), "--output", str(output))

    assert (1, b"") == (said.status, said.out)
    assert command("check", str(bad)).err == said.err
    assert not output.exists()


def test_docs_goes_by_the_shifted_clock(command: Command, declaration: Path) -> None:
    """What has expired on that day is marked so."""
    declaration.write_text(declaration.read_text().replace("2026-11-22", day_of(time.time() + 30 * DAY)))

    today = command("docs", str(declaration))
    later = command("docs", str(declaration), TALLYPOST_TESTING_CLOCK_SHIFT=str(31 * DAY))

    assert "leaves no more" not in today.text
    assert "leaves no more" in later.text


@pytest.mark.parametrize(
    "words", [("docs",), ("docs", "f", "--format", "pdf"), ("docs", "f", "g"), ("check", "f", "--source")]
)
def test_command_used_wrongly_exits_2(command: Command, words: tuple[str, ...]) -> None:
    """Nothing on standard output, and the usage on standard error."""
    said = command(*words)

    assert (2, b"") == (said.status, said.out)
    assert "usage: tallypost" in said.err


# -------------------------------------------------------------------- pages


def test_page_of_the_declaration_has_each_lint_with_its_level_and_advice() -> None:
    """The table is that of the code, errors before warnings before notes."""
    text = (ROOT / "docs" / "client" / "declaration.md").read_text()

    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| .+ \| (.+) \|$", text, re.MULTILINE)

    assert [(code, rule.level, rule.advice) for code, rule in RULES.items()] == rows
    levels = [rule.level for rule in RULES.values()]
    assert levels == sorted(levels, key=[*LEVELS].index)
