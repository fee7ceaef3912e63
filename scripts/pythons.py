"""Run the unit tests on every other supported Python that this machine has.

Takes   the Pythons on the search path, and those of pyenv where it is installed.
Gives   a sentence a Python, and exit status 1 if the tests of one fail.
Never   installs a Python.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = [(3, minor) for minor in range(10, 15)]
TESTS = ["packages", "tests/test_whole_way.py"]
# As in the Makefile.
UNIT = "not system and not long and not s3 and not postgres"
# They show what crashes leave on a disk, which no version of Python changes, and take as long as all others.
ELSEWHERE = [
    *(f"packages/server/tests/archive/test_{name}.py" for name in ("lost_coordinator", "model", "power_cut", "undone")),
    *(f"packages/server/tests/cli/test_{name}.py" for name in ("erase", "keep", "verify_archive")),
]


def main() -> int:
    """Run them."""
    failed = []
    found = pythons()
    for version, interpreter in found.items():
        print(f"Python {version[0]}.{version[1]}: unit tests", flush=True)
        if not run(version, interpreter):
            failed.append(version)
    missing = [version for version in SUPPORTED if version not in found and version != sys.version_info[:2]]
    for version in missing:
        print(f"Python {version[0]}.{version[1]} is not on this machine: not tested", flush=True)
    return 1 if failed else 0


def pythons() -> dict[tuple[int, int], str]:
    """Interpreters by version, without the one that runs this."""
    candidates = [path for version in SUPPORTED if (path := shutil.which(f"python3.{version[1]}"))]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += sorted(glob.glob(os.path.join(root, "versions", "*", "bin", "python")))
    found: dict[tuple[int, int], str] = {}
    for candidate in candidates:
        # What pyenv puts on the search path may be a stand-in for a version that is not switched on.
        told = subprocess.run(
            [candidate, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        words = told.stdout.split()
        version = (int(words[0]), int(words[1])) if told.returncode == 0 and len(words) == 2 else (0, 0)
        if version in SUPPORTED and version != sys.version_info[:2]:
            found.setdefault(version, candidate)
    return dict(sorted(found.items()))


def run(version: tuple[int, int], interpreter: str) -> bool:
    """The tests on one Python, in a virtual environment of its own."""
    folder = ROOT / ".cache" / f"venv-{version[0]}.{version[1]}"
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    packages = [word for name in ("shared", "client", "server") for word in ("--editable", f"packages/{name}")]
    steps = [
        [interpreter, "-m", "venv", str(folder)],
        [*pip, "--requirement", "requirements/dev.txt"],
        [*pip, "--no-deps", "--no-build-isolation", *packages],
        [
            *(python, "-m", "pytest", "-m", UNIT, "-n", "2", "--dist", "loadfile"),
            *(f"--ignore={path}" for path in ELSEWHERE),
            *TESTS,
        ],
    ]
    return all(subprocess.run(step, cwd=ROOT, check=False).returncode == 0 for step in steps)


if __name__ == "__main__":
    sys.exit(main())
