"""Rules of the house that a machine can see: seams have no way round, rooms import only rooms before them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))

# A seam's own module may do what nobody else may; fakes need none of it.
SEAMS = {
    ("client", "clock.py"),
    ("client", "disk.py"),
    ("client", "randomness.py"),
    ("server", "clock.py"),
    ("server", "disk.py"),
}
FORBIDDEN = {
    "time.time": "the Clock",
    "time.sleep": "the Clock",
    "datetime.datetime.now": "the Clock",
    "datetime.datetime.utcnow": "the Clock",
    "datetime.date.today": "the Clock",
    "os.urandom": "the Random",
    "uuid.uuid4": "the Random",
    "random.random": "the Random",
    "secrets.token_hex": "the Random",
    "open": "the Disk",
    "os.open": "the Disk",
    "os.replace": "the Disk",
    "os.rename": "the Disk",
    "os.link": "the Disk",
    "os.unlink": "the Disk",
    "os.remove": "the Disk",
    "os.fsync": "the Disk",
    "os.fdatasync": "the Disk",
}
# Each exception with its reason.
ALLOWED = {
    ("client", "telemetry.py", "os.urandom"): "handed to the slots: the wiring is where a seam is filled in",
    ("client", "events/wiring.py", "os.urandom"): "the part of the wiring that the first event loads",
    ("server", "app.py", "secrets.token_hex"): "the boot id is drawn where the server is wired",
    ("server", "archiving.py", "secrets.token_hex"): "tasks' ids are drawn where archival is wired",
    ("server", "erasing.py", "secrets.token_hex"): "who holds the leases is drawn where the erasure is wired",
    ("server", "cli/load_test.py", "secrets.token_hex"): "the seed of a load is drawn where the load is wired",
}

# In the order in which data passes. Modules that stand beside the rooms may be imported by all.
ROOMS = {
    "client": ["counts", "events", "reports", "uploads", "viewer", "cli", "contrib"],
    "server": ["segments", "ingest", "streams", "archive", "charts", "pages", "cli"],
}


def package_of(source: Path) -> str:
    """shared, client or server."""
    return source.relative_to(ROOT / "packages").parts[0]


def place_in(source: Path) -> str:
    """The path below the import package."""
    return "/".join(source.relative_to(ROOT / "packages").parts[3:])


def calls_in(source: Path) -> list[tuple[int, str]]:
    """The dotted names that a module calls, or hands on, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute):
            found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.append((node.lineno, node.func.id))
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{package_of(source)}/{place_in(source)}")
def test_source_has_no_way_round_a_seam(source: Path) -> None:
    """Time, chance and the disk come in through their seams alone."""
    if (package_of(source), place_in(source)) in SEAMS:
        return

    ways_round = [
        f"line {line}: {name} goes round {FORBIDDEN[name]}"
        for line, name in calls_in(source)
        if name in FORBIDDEN and (package_of(source), place_in(source), name) not in ALLOWED
    ]

    assert [] == ways_round


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_rooms_before_them(package: str) -> None:
    """Data moves one way: a room knows the rooms before it, and is handed what comes after."""
    order = ROOMS[package]
    wrong = []
    for source in SOURCES:
        room = place_in(source).split("/")[0]
        if package_of(source) != package or room not in order:
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module:
                other = node.module.split(".")[0]
                if other in order and order.index(other) > order.index(room):
                    wrong.append(f"{place_in(source)} imports {other}")

    assert [] == wrong


def test_client_and_server_never_import_each_other() -> None:
    """What both need is in the schema."""
    wrong = [
        str(source)
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and {"client": "tallypost_server", "server": "tallypost", "shared": "tallypost"}[package_of(source)]
        in [(getattr(node, "module", None) or name.name).split(".")[0] for name in node.names]
    ]

    assert [] == wrong


def test_library_never_imports_what_is_for_tests() -> None:
    """Fakes ship for tests alone."""
    wrong = [
        f"{package_of(source)}/{place_in(source)}, line {node.lineno}"
        for source in SOURCES
        if not place_in(source).startswith("testing")
        for node in ast.walk(ast.parse(source.read_text()))
        if (isinstance(node, ast.ImportFrom) and "testing" in [*(node.module or "").split("."), *_names_of(node)])
        or (isinstance(node, ast.Import) and any("testing" in name.split(".") for name in _names_of(node)))
    ]

    assert [] == wrong


def _names_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{package_of(source)}/{place_in(source)}")
def test_module_opens_with_what_it_takes_gives_and_never_does(source: Path) -> None:
    """A module's docstring is its contract; packages and entry points are too small for one."""
    if source.name in ("__init__.py", "__main__.py", "errors.py"):
        return

    docstring = ast.get_docstring(ast.parse(source.read_text())) or ""

    assert all(re.search(rf"^{word}\s", docstring, re.MULTILINE) for word in ("Takes", "Gives", "Never")), source


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{package_of(source)}/{place_in(source)}")
def test_ignored_rule_has_its_reason(source: Path) -> None:
    """Each `noqa` and `type: ignore` says why on its own line."""
    bare = [
        line.strip()
        for line in source.read_text().splitlines()
        if re.search(r"# (?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z-, ]+\])\s*$", line)
    ]

    assert [] == bare


def test_repository_names_no_registry_and_no_machine() -> None:
    """Nothing that is committed holds for one machine alone."""
    pattern = re.compile(r"index-url|extra-index|(?<![\w.])/(?:root|work)/")
    named = [
        f"{path.relative_to(ROOT)}: {line.strip()[:80]}"
        for path in _texts()
        if path != Path(__file__).resolve()
        for line in path.read_text("utf-8", "replace").splitlines()
        if pattern.search(line)
    ]

    assert [] == named


def _texts() -> list[Path]:
    endings = {".py", ".toml", ".md", ".yml", ".yaml", ".txt", ".sh", ".conf", ".service", ""}
    skipped = {".git", ".venv", "demo", "results", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and path.suffix in endings and not skipped & set(path.relative_to(ROOT).parts)
    ]
