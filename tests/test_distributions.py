"""Each distribution can be installed alone, from its folder and as a wheel, and brings what it needs and no more."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = {"shared": "tallypost_schema", "client": "tallypost", "server": "tallypost_server"}

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command; its output."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def environment(folder: Path) -> str:
    """A fresh virtual environment; its Python."""
    venv.create(folder, with_pip=True)
    return str(folder / "bin" / "python")


def test_distribution_each_is_installed_from_its_wheel(tmp_path: Path) -> None:
    """The built wheels hold their packages, typed marker and data, and work where nothing else of ours is."""
    for name in IMPORTS:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        run(*pip, "--wheel-dir", str(tmp_path), str(ROOT / "packages" / name))
    wheels = {path.name.split("-")[0]: path for path in tmp_path.glob("*.whl")}

    contents = {name: set(zipfile.ZipFile(wheel).namelist()) for name, wheel in wheels.items()}
    python = environment(tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", *map(str, wheels.values()))
    told = run(python, "-c", "import tallypost, tallypost_server, tallypost_schema.own; print(tallypost.__file__)")

    assert set(IMPORTS.values()) == set(wheels)
    assert all(f"{name}/py.typed" in contents[name] for name in contents)
    assert "tallypost_schema/own.toml" in contents["tallypost_schema"]
    assert told.startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "command", "foreign"),
    [("client", "tallypost", {"starlette", "uvicorn"}), ("server", "tallypost-server", {"httpx"})],
)
def test_distribution_alone_is_installed_from_its_folder(
    tmp_path: Path, name: str, command: str, foreign: set[str]
) -> None:
    """Client and server each need the schema, and nothing of the other one."""
    python = environment(tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", str(ROOT / "packages" / "shared"))
    run(python, "-m", "pip", "install", "--quiet", str(ROOT / "packages" / name))

    told = run(str(tmp_path / "venv" / "bin" / command), "--help")
    installed = {line.split("==")[0].split(" @")[0].lower() for line in run(python, "-m", "pip", "freeze").splitlines()}

    assert f"usage: {command}" in told
    assert set() == foreign & installed
    assert "tallypost-schema" in installed
