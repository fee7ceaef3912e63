"""Applications that counted on this machine, known by what their last run wrote down.

Takes   the folder of state directories.
Gives   their names, and the daily work of one, without importing the application.
Never   changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tallypost_schema import names

from .clock import SystemClock
from .daily import Daily, LastRun
from .disk import OsDisk, text_of
from .errors import NoApplication
from .seams import Clock, Disk
from .state_directory import StateDirectory


def applications(base: str, *, depth_max: int = 5) -> list[str]:
    """The applications that have a state directory under `base`."""
    found = []
    waiting = [""]
    while waiting:
        name = waiting.pop()
        folder = os.path.join(base, *name.split("/")) if name else base
        try:
            entries = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
            files = {entry.name for entry in os.scandir(folder) if entry.is_file()}
        except OSError:
            continue
        if name and ("private" in entries or "mode" in files):
            found.append(name)
        elif name.count("/") < depth_max:
            waiting += [f"{name}/{entry}" if name else entry for entry in entries]
    return sorted(name for name in found if names.is_application(name))


def only_application(base: str) -> str:
    """The one application under `base`.

    Raises:
        NoApplication: there is none, or more than one.
    """
    found = applications(base)
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoApplication(f"no application has counted under {base}; name one with --app, or a folder with --dir")
    raise NoApplication(f"several applications have counted under {base}: {', '.join(found)}; choose one with --app")


def daily_of(
    base: str,
    application: str,
    *,
    environ: Mapping[str, str],
    clock: Clock | None = None,
    disk: Disk | None = None,
) -> Daily:
    """The daily work of an application, with the declaration and endpoint of its last run."""
    disk = disk if disk is not None else OsDisk()
    directory = StateDirectory(base, application)
    lines = (text_of(disk, directory.last_run) or "").splitlines()
    said = dict(line.partition("=")[::2] for line in lines)
    key = said.get("declaration", "none")
    try:
        declaration = disk.read(directory.declaration(key)) if key != "none" else None
    except OSError:
        declaration = None
    return Daily(
        directory,
        last_run=LastRun(application, said.get("program", ""), said.get("version", ""), said.get("endpoint", ""), key),
        declaration=declaration,
        default="local",
        environ=environ,
        clock=clock if clock is not None else SystemClock(environ),
        disk=disk,
    )
