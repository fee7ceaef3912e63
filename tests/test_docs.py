"""Documents tell the truth: what they name exists, and what exists is named."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tallypost import Telemetry, limits, losses
from tallypost.cli.commands import COMMANDS
from tallypost.consent import MODES, WHO
from tallypost_schema import declaration, documents, names, receipts
from tallypost_schema import limits as shared_limits
from tallypost_server.cli.main import main as server_main

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")])


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def all_tests() -> set[str]:
    """The names of all test functions of the repository."""
    return {
        node.name
        for path in [*ROOT.glob("packages/*/tests/**/test_*.py"), *ROOT.glob("tests/**/test_*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }


def test_guarantee_each_names_tests_that_exist() -> None:
    """A guarantee is numbered in order, and each names a test that is there."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    known = all_tests()

    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", text, re.MULTILINE)

    assert [str(number) for number in range(1, len(rows) + 1)] == [number for number, _ in rows]
    for number, shown in rows:
        named = re.findall(r"`(test_\w+)`", shown)
        assert named or "tests.proof" in shown, number
        assert set(named) <= known, set(named) - known


def test_decision_each_names_tests_that_exist() -> None:
    """What a decision gives as its proof is there."""
    known = all_tests()

    named = {
        name for path in ROOT.glob("docs/decisions/*.md") for name in re.findall(r"`(test_\w+)`", path.read_text())
    }

    assert set() == named - known


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_of_a_page_leads_somewhere(page: Path) -> None:
    """Relative links lead to files and folders of the repository."""
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())

    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]

    assert [] == dead


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_declaration_in_a_page_has_no_problems(page: Path) -> None:
    """Each whole telemetry.toml that a page shows is one."""
    for text in blocks(page, "toml"):
        if "application =" in text:
            declaration.parse(text)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archived: Callable[[Path], None]
) -> None:
    """Each Python example runs as it stands, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    if page.name == "query.md":
        archived(tmp_path / "tallypost-data")
    monkeypatch.setenv("TALLYPOST_DIR", str(tmp_path))
    # What the examples declare is what the page about it shows.
    declared = next(text for text in blocks(ROOT / "docs/client/declaration.md", "toml") if "application =" in text)
    (tmp_path / "telemetry.toml").write_text(declared)
    for text in blocks(page, "python"):
        if 'decode_report(b\'{"v":1,"kind":"report",...}\')' not in text:
            exec(compile(text, str(page), "exec"), {})


def test_query_in_its_page_is_answered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    archived: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each SQL example gives a row of an archive that holds what it asks for."""
    monkeypatch.chdir(tmp_path)
    archived(tmp_path / "tallypost-data")
    monkeypatch.setenv("TALLYPOST_SERVER_ARCHIVE", str(tmp_path / "tallypost-data" / "archive"))
    page = (ROOT / "docs/server/query.md").read_text()
    (shown,) = re.findall(r'query "(.*)"$', page, re.MULTILINE)

    for sql in [shown, *blocks(ROOT / "docs/server/query.md", "sql")]:
        # The archive's day goes by.
        status = server_main(["query", "--json", sql.replace("current_date", "DATE '2026-11-25'")])

        said = capsys.readouterr()
        assert (0, "") == (status, said.err)
        assert json.loads(said.out.splitlines()[0])


def test_document_in_the_formats_page_is_one() -> None:
    """The documents that the page shows are decoded, and encoded to the same bytes."""
    report, batch, words = blocks(ROOT / "docs" / "formats" / "documents.md", "json")

    assert report.strip().encode() == documents.encode(documents.decode_report(report.strip().encode()))
    assert batch.strip().encode() == documents.encode(documents.decode_batch(batch.strip().encode()))
    receipt, error = words.strip().splitlines()
    assert receipt.encode() == receipts.encode_receipt(json.loads(receipt)["stored"])
    assert receipts.error_in(error.encode()) is not None


def test_glossary_has_each_word_once_and_each_is_used() -> None:
    """A word of the glossary is used in the sources, and stands there once."""
    words = re.findall(r"\*\*([a-z ]+)\*\*", (ROOT / "docs" / "glossary.md").read_text())
    sources = " ".join(path.read_text().lower() for path in ROOT.glob("packages/*/src/**/*.py"))

    unused = [word for word in words if word not in sources]

    assert len(words) == len(set(words))
    assert [] == unused


def test_readme_names_the_commands_that_exist() -> None:
    """Each command in the README is one, and each one is there."""
    text = (ROOT / "README.md").read_text()
    table = text[text.index("| `tallypost` (on") : text.index("| `tallypost-server` (on")]

    named = {
        word for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in re.findall(r"`([a-z]+)", cell)
    }

    assert set(COMMANDS) == named - {"tallypost"}


def test_makefile_has_the_targets_that_pages_name() -> None:
    """`make X` in a page is a target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = {name for page in DOCS for name in re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", page.read_text(), re.M)}

    assert {one or other for one, other in named} <= targets


def test_constructor_in_the_python_page_is_the_constructor() -> None:
    """The arguments that the page tells are those of `Telemetry`, seams for tests left out."""
    code: Any = Telemetry.__init__.__code__
    arguments = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    page = (ROOT / "docs" / "client" / "python.md").read_text()
    (told,) = re.findall(r"^`Telemetry\((.*)\)`$", page, re.MULTILINE)

    assert [name for name in arguments if name not in ("clock", "disk", "environ")] == re.findall(
        r"(\w+)(?:=[^,]+)?(?:,|$)", told.replace("*, ", "")
    )


def test_pages_tell_the_numbers_in_force() -> None:
    """Figures in pages are the limits of the code."""
    told = {path.name: path.read_text() for path in DOCS}

    assert f"{limits.posts_per_window_max} posts in {limits.post_window_seconds:g} s" in told["uploading.md"]
    assert f"A post may take {limits.post_seconds_max:g} s" in told["uploading.md"]
    assert f"a run {limits.run_seconds_max:g} s" in told["uploading.md"]
    assert f"newest {limits.local_reports_kept} local reports" in told["state-directory.md"]
    assert f"newest {limits.refused_documents_kept} refused" in told["state-directory.md"]
    assert f"({limits.names_per_file_max:,})" in told["count-file.md"]
    assert f"begins with {limits.count_file_bytes_first >> 10} KiB" in told["count-file.md"]
    assert f"to {limits.count_file_bytes_max >> 20} MiB" in told["count-file.md"]
    assert f"horizon of {shared_limits.horizon_days} days" in told["uploading.md"]
    assert f"{shared_limits.containers_max:,} objects and arrays" in told["documents.md"]
    assert f"{shared_limits.nesting_max} levels of nesting" in told["documents.md"]


def test_names_in_the_code_are_in_the_grammar() -> None:
    """What the library counts of itself keeps its own rules, and the modes are the documented ones."""
    assert all(map(names.is_name, losses.OWN_COUNTERS))
    assert ("on", "local", "off") == MODES
    assert ("user", "application", "administrator") == WHO
