"""The applications that are registered here: each by its ``telemetry.toml`` in one folder.

Takes   the folder's files, looked at again every few seconds.
Gives   for a name what its declaration names, and the upload config of a day.
Never   forgets a declaration because its file is damaged: clients delete what is refused.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tallypost_schema import declaration as declarations
from tallypost_schema import upload_config
from tallypost_schema.errors import DeclarationInvalid
from tallypost_schema.own import OWN

from .. import limits
from ..disk import Disk, Stat
from ..errors import ApplicationUnreadable, FolderMissing, Refused

_log = logging.getLogger(__name__)

_APPLICATION = re.compile(r"""^\s*application\s*=\s*["']([^"'\n]+)["']""", re.MULTILINE)


class Declared:
    """What an application's documents may name, its own and the library's, in the form the hot path asks for."""

    def __init__(self, declaration: declarations.Declaration) -> None:
        self.application = declaration.application
        self.counters = declaration.counter_names | OWN.counter_names
        self.stacks = frozenset(declaration.stacks) | frozenset(OWN.stacks)
        self.events: Mapping[str, declarations.Event] = {**OWN.events, **declaration.events}
        self._whole = dataclasses.replace(
            declaration,
            counters={**OWN.counters, **declaration.counters},
            histograms={**OWN.histograms, **declaration.histograms},
            stacks={**OWN.stacks, **declaration.stacks},
            events=dict(self.events),
        )

    def upload_config(self, today: datetime.date) -> upload_config.UploadConfig:
        """What is asked for on a day."""
        return upload_config.asked_for(self._whole, today)


class _Known(NamedTuple):
    stat: Stat
    declared: Declared | None  # None: damaged, and none was read before.
    application: str  # The name as far as it can be read, also of a damaged file.
    damaged: bool


class Applications:
    """The registered applications. `scan` may run in another thread than `find`: what is found is replaced whole."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._folder, self._disk = folder, disk
        self._files: dict[str, _Known] = {}
        self._missing: set[str] = set()
        self._by_name: dict[str, Declared] = {}
        self._unreadable: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """How many are registered."""
        return len(self._by_name)

    @property
    def damaged(self) -> int:
        """How many files are no valid declaration."""
        return sum(known.damaged for known in self._files.values())

    def find(self, application: str) -> Declared:
        """What the application declares.

        Raises:
            Refused: ``unknown_application``.
            ApplicationUnreadable: a damaged file names it, and none was read before.
        """
        declared = self._by_name.get(application)
        if declared is not None:
            return declared
        if application in self._unreadable:
            raise ApplicationUnreadable(application)
        raise Refused("unknown_application", f"{application[:100]!a} is not registered here")

    def scan(self) -> None:
        """Take what is new or changed.

        Raises:
            FolderMissing: nothing was forgotten.
        """
        try:
            names = [name for name in self._disk.names(self._folder) if name.endswith(".toml")]
            if not names:
                self._disk.stat(self._folder)
        except OSError as failure:
            raise FolderMissing("the applications folder", self._folder) from failure
        files = {name: known for name in names if (known := self._read(name)) is not None}
        for name, known in self._files.items():
            if name in files:
                continue
            # A file that is being replaced may be away for a moment; only one that stays away is gone.
            if name in self._missing:
                _log.warning("%s is gone: %s is registered no more", name, known.application or "its application")
            else:
                files[name] = known
        self._missing = {name for name in files if name not in names}
        self._files = files
        by_name: dict[str, Declared] = {}
        for name, known in sorted(files.items()):
            if known.declared is None:
                continue
            if by_name.setdefault(known.declared.application, known.declared) is not known.declared:
                _log.error("%s declares %s, which a file before it declares", name, known.declared.application)
        self._by_name = by_name
        self._unreadable = frozenset(known.application for known in files.values() if known.declared is None)

    def _read(self, name: str) -> _Known | None:
        path, before = self._folder / name, self._files.get(name)
        try:
            stat = self._disk.stat(path)
            if before is not None and before.stat == stat:
                return before
            if stat.size > limits.declaration_bytes_max:
                raise DeclarationInvalid([f"{stat.size} bytes, allowed are {limits.declaration_bytes_max}"])
            text = self._disk.read(path).decode("utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, DeclarationInvalid) as failure:
            return self._damaged(name, before, Stat(-1, 0, 0), "", str(failure))
        try:
            declaration = declarations.parse(text)
        except (DeclarationInvalid, RecursionError) as failure:
            found = _APPLICATION.search(text)
            return self._damaged(name, before, stat, found[1] if found else "", str(failure))
        _log.info("%s: %s is registered", name, declaration.application)
        return _Known(stat, Declared(declaration), declaration.application, False)

    def _damaged(self, name: str, before: _Known | None, stat: Stat, application: str, reason: str) -> _Known:
        kept = before.declared if before is not None else None
        if before is None or before.stat != stat:  # Said once, not at every look.
            _log.error("%s is damaged%s: %s", name, ", the one before stays in force" if kept else "", reason)
        return _Known(stat, kept, kept.application if kept else application, True)
