"""The commands for an application's makers, `tallypost check` and `tallypost docs`.

Takes   a telemetry.toml, and folders of code.
Gives   an exit status: 0 it is as it should be, 1 something fails; findings, or the page for users.
Never   needs an application that has counted; never runs the code that it reads.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tallypost_schema import declaration
from tallypost_schema.declaration import Declaration
from tallypost_schema.errors import DeclarationInvalid

from ..clock import day_of
from ..declared import page
from ..declared.html import html
from ..declared.lints import LEVELS, Lint, lint
from ..declared.markdown import markdown
from ..declared.source import uses_in
from ..declared.used import compare
from ..disk import OsDisk

if TYPE_CHECKING:
    from ..seams import Clock

FORMATS = {"html": html, "markdown": markdown}
# Where pytest's settings stand: an integration may be named there alone.
_SETTINGS = frozenset({"pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"})
# Other people's code. Hidden folders are left out, too, and environments wherever they lie.
_FOREIGN = frozenset({"__pycache__", "node_modules", "site-packages"})


def add_arguments(command: str, parser: argparse.ArgumentParser) -> None:
    """What the two commands take."""
    parser.add_argument("file", metavar="FILE", help="a telemetry.toml")
    if command == "check":
        parser.add_argument(
            "--source",
            metavar="DIR",
            action="append",
            default=[],
            help="compare it with the Python files in this folder, too; may be given again",
        )
        parser.add_argument("--strict", action="store_true", help="fail on warnings, too")
    else:
        parser.add_argument(
            "--format", choices=tuple(FORMATS), help="html, unless PATH ends in .md: then it is markdown"
        )
        parser.add_argument("--output", metavar="PATH", help="write it there instead of to standard output")


def run(given: argparse.Namespace, *, clock: Clock) -> int:
    """Do one of the two."""
    today = datetime.date.fromisoformat(day_of(clock.now()))
    if given.command == "check":
        return check(given.file, sources=given.source, strict=given.strict, as_json=given.json, today=today)
    return docs(given.file, form=given.format, output=given.output, as_json=given.json, today=today)


def check(file: str, *, sources: list[str], strict: bool, as_json: bool, today: datetime.date) -> int:
    """Problems of a telemetry.toml, and what looks wrong in it, a line each."""
    declared = _declared(file)
    lints: list[Lint] = []
    if isinstance(declared, Declaration):
        lints = lint(declared, today=today) + (_compared(declared, sources) if sources else [])
        lints.sort(key=lambda one: LEVELS.index(one.level))
    broken = [] if isinstance(declared, Declaration) else declared
    problems = [*broken, *(one.sentence for one in lints if one.fails(strict=strict))]
    if as_json:
        print(json.dumps({"file": file, "problems": problems, "lints": [_told(one) for one in lints]}))
    for problem in broken:
        print(f"{file}: {problem}", file=sys.stderr)
    for one in lints:
        print(f"{file}: {one.level}: {one.sentence} [{one.code}]: {one.advice}", file=sys.stderr)
    if not problems and not as_json:
        print(f"{file}: no problems{_beside(lints)}")
    return 1 if problems else 0


def docs(file: str, *, form: str | None, output: str | None, as_json: bool, today: datetime.date) -> int:
    """The page for users, or with `as_json` what it says."""
    declared = _declared(file)
    if not isinstance(declared, Declaration):
        for problem in declared:
            print(f"{file}: {problem}", file=sys.stderr)
        return 1
    written = FORMATS[form or _form_of(output)](page.page(declared, today=today)).encode()
    if output is not None:
        # Not by way of the disk's seam: this is a file to be published, not one for this user alone.
        Path(output).write_bytes(written)
    if as_json:
        print(json.dumps(page.facts(declared, today=today)))
    elif output is not None:
        print(output)
    else:
        sys.stdout.buffer.write(written)
        sys.stdout.buffer.flush()
    return 0


def _form_of(output: str | None) -> Literal["html", "markdown"]:
    return "markdown" if output is not None and output.lower().endswith((".md", ".markdown")) else "html"


def _declared(file: str) -> Declaration | list[str]:
    """The declaration in a file, or its problems."""
    try:
        return declaration.parse(OsDisk().read(file).decode())
    except (OSError, ValueError) as error:
        return [f"cannot be read: {error}"]
    except DeclarationInvalid as error:
        return error.problems


def _told(one: Lint) -> dict[str, str | None]:
    told = ("code", "level", "key", "place", "sentence", "advice")
    return {key: getattr(one, key) for key in told}


def _beside(lints: list[Lint]) -> str:
    """How many findings there are that do not fail."""
    numbers = {level: sum(one.level == level for one in lints) for level in LEVELS}
    told = [f"{n} {level}{'s' * (n > 1)}" for level, n in numbers.items() if n]
    return f"; {', '.join(told)}" if told else ""


# -------------------------------------------------------------------- code


def _compared(declared: Declaration, sources: list[str]) -> list[Lint]:
    missing = [source for source in sources if not any(path.endswith(".py") for path in _paths_in(source))]
    if missing:
        # Without code each name would be called unused.
        return [Lint("no-source", source, "holds no Python file") for source in missing]
    files: dict[str, bytes] = {}
    unreadable: dict[str, str] = {}
    for path in dict.fromkeys(path for source in sources for path in _paths_in(source)):
        _read(path, files, unreadable)
    uses = uses_in(files)
    uses.unreadable.update(unreadable)
    return compare(declared, uses)


def _read(path: str, files: dict[str, bytes], unreadable: dict[str, str]) -> None:
    try:
        files[path] = OsDisk().read(path)
    except OSError as error:
        unreadable[path] = error.strerror or str(error)


def _paths_in(source: str) -> Iterator[str]:
    """The files of a folder that may say what is counted, sorted; or the file itself."""
    if os.path.isfile(source):
        yield source
    for folder, below, found in os.walk(source):
        below[:] = sorted(name for name in below if not _is_foreign(folder, name))
        paths = (os.path.join(folder, name) for name in sorted(found) if name.endswith(".py") or name in _SETTINGS)
        yield from filter(os.path.isfile, paths)  # To read a pipe is to wait for its writer.


def _is_foreign(folder: str, name: str) -> bool:
    return name.startswith(".") or name in _FOREIGN or os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
