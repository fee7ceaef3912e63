"""Prints what distributions need from elsewhere: so that an image keeps it in a layer below their own code.

Takes   paths of ``pyproject.toml`` files.
Gives   their dependencies, one a line, as pip's ``--requirement`` reads them.
Never   names the distributions of this repository: those are installed from their folders.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import tomllib

OWN_PREFIX = "tallypost"


def dependencies(manifests: Iterable[Path]) -> Iterator[str]:
    """The third-party requirements of these manifests, in their order."""
    for manifest in manifests:
        project = tomllib.loads(manifest.read_text(encoding="utf-8"))["project"]
        yield from (line for line in project.get("dependencies", []) if not line.startswith(OWN_PREFIX))


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in dependencies(map(Path, sys.argv[1:])))
