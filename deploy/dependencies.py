"""Prints what distributions need from elsewhere: so that an image keeps it in a layer below their own code.

Takes   paths of ``pyproject.toml`` files, each with the extras that are wanted: ``…/pyproject.toml[archive,replay]``.
Gives   their dependencies, one a line, as pip's ``--requirement`` reads them.
Never   names the distributions of this repository: those are installed from their folders.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import tomllib

OWN_PREFIX = "tallypost"


def dependencies(manifests: Iterable[str]) -> Iterator[str]:
    """The third-party requirements of these manifests, in their order."""
    for manifest in manifests:
        path, _, extras = manifest.removesuffix("]").partition("[")
        project = tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"]
        wanted = list(project.get("dependencies", []))
        for extra in extras.split(",") if extras else ():
            wanted += project["optional-dependencies"][extra]
        yield from (line for line in wanted if not line.startswith(OWN_PREFIX))


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in dependencies(sys.argv[1:]))
