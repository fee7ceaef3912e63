"""What an application counts, diverted into a state directory in memory for as long as a test looks.

Takes   an application's own `Telemetry`, however long ago it was made.
Gives   `capture`, and what was counted meanwhile.
Never   touches a file of the machine, posts, or leaves the application changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tallypost_schema import declaration as declarations
from tallypost_schema.errors import DeclarationInvalid

from ..errors import WrongUse
from ..reports.look import look
from ..reports.overview import days_of
from ..state_directory import StateDirectory
from ..telemetry import _declaration_path
from .counted import Counted, Undeclared
from .fake_disk import FakeDisk

if TYPE_CHECKING:
    from tallypost_schema.declaration import Declaration

    from ..telemetry import Telemetry


@contextmanager
def capture(telemetry: Telemetry, *, declared_only: bool = False) -> Iterator[Counted]:
    """Have what an application counts go to a state directory in memory, and see it.

    It is a state directory of its own, in mode *local*, whatever a test runner, the environment or the user said; the
    application may ask for its mode and change it there. Nothing is posted, no file of the machine is touched, and at
    the end everything is as it was. Captures may be nested, and threads may count in them; each sees what is counted
    since its own begin. What other processes count is not seen.

    Args:
        telemetry: the application's own, such as its module's ``telemetry``.
        declared_only: fail at the end if something was counted that the declaration does not name.

    Raises:
        WrongUse: `declared_only`, and there is no declaration, or one with problems.
        Undeclared: at the end, as said above.
    """
    diversion, before = _begin_diversion(telemetry)
    try:
        if declared_only and diversion.declaration is None:
            raise WrongUse("declaration", telemetry._declaration, "a telemetry.toml that `tallypost check` passes")
        counted = Counted(diversion.counts, diversion.declaration, before)
    except BaseException:
        _end_diversion(telemetry)
        raise
    try:
        yield counted
    finally:
        # In this order: after the last look nothing more is counted there, so that no increment is in neither place.
        _end_diversion(telemetry)
        counted.stop()
    if declared_only and (names := counted.undeclared()):
        raise Undeclared(names)


class _Diversion:
    """Where one application counts while it is captured, however many captures there are."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.captures = 0
        self._disk = FakeDisk(clock=telemetry._clock)
        self._directory = StateDirectory(os.path.join(os.sep, "captured"), telemetry.application)
        self.declaration: Declaration | None = None
        content = telemetry._declaration_text()
        if content is not None and telemetry._declaration is not None:
            self._disk.write(_declaration_path(telemetry._declaration), content)
            try:
                self.declaration = declarations.parse(content.decode())
            except (UnicodeDecodeError, DeclarationInvalid):
                self.declaration = None
        # What is said of a test runner stays, since wrong events raise there; but with "on" a saved answer decides, and
        # there is none yet: that is *local*.
        runner = {name: value for name, value in telemetry._environ.items() if name.startswith("PYTEST_")}
        self._parts: dict[str, Any] = {
            "_disk": self._disk,
            "_directory": self._directory,
            "_environ": {**runner, "TALLYPOST": "on"},
            "_default": "local",
            "_endpoint": None,
            "_uploader": "manual",
            "_is_set_up": False,
            # The application's own write where they began, and so do those that begin here.
            "_events": None,
            "_first_events": [],
        }

    def exchange(self, telemetry: Telemetry) -> None:
        """Give the application the captured parts for its own, or the other way round."""

        def change() -> None:
            now = vars(telemetry)
            assert self._parts.keys() <= now.keys(), "each is an attribute of Telemetry"
            mine, self._parts = self._parts, {name: now[name] for name in self._parts}
            now.update(mine)

        telemetry._recorder.between_files(change)

    def counts(self) -> dict[str, int]:
        """All that was counted, of whatever day."""
        total: dict[str, int] = {}
        for day in days_of(look(self._directory, disk=self._disk))["days"]:
            for program in day["programs"]:
                for name, n in (*program["counters"].items(), *program["stacks"].items()):
                    total[name] = total.get(name, 0) + n
        return total


# By the identity of an application's `Telemetry`, while it is captured. The lock protects the table and its counts.
_diversions: dict[int, _Diversion] = {}
_diversions_lock = threading.Lock()


def _begin_diversion(telemetry: Telemetry) -> tuple[_Diversion, dict[str, int]]:
    """Where it counts from now on, and what was counted there before: all that threads count from then on is more."""
    with _diversions_lock:
        diversion = _diversions.get(id(telemetry)) or _Diversion(telemetry)
        before = diversion.counts()
        if diversion.captures == 0:
            diversion.exchange(telemetry)
            _diversions[id(telemetry)] = diversion
        diversion.captures += 1
        return diversion, before


def _end_diversion(telemetry: Telemetry) -> None:
    # The last one to end restores, in whatever order captures in several threads end.
    with _diversions_lock:
        diversion = _diversions[id(telemetry)]
        diversion.captures -= 1
        if diversion.captures == 0:
            del _diversions[id(telemetry)]
            if telemetry._events is not None:
                telemetry._events.stop()
            diversion.exchange(telemetry)
