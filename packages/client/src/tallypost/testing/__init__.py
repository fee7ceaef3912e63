"""For tests and demonstrations: counts to assert on, another clock, disks that fail, a network of one's own.

Takes   what a test wants to happen.
Gives   `capture` and the pytest fixture ``tallypost_capture``, for makers; `FakeClock`, `FakeRandom`, `FaultyDisk`,
        `FakeDisk`, `FakeTransport`, for the library's own tests; and ``python -m tallypost.testing``.
Never   used by the library itself; never loads a module before its name is asked for: pytest, for one, may be missing,
        and nothing here has an assertion for it to rewrite (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .__main__ import main as main
    from .clock import FakeClock as FakeClock
    from .clock import instant as instant
    from .counted import Counted as Counted
    from .counted import Undeclared as Undeclared
    from .diversion import capture as capture
    from .fake_disk import FakeBlock as FakeBlock
    from .fake_disk import FakeDisk as FakeDisk
    from .fake_disk import FakeLock as FakeLock
    from .fake_disk import FakeWritten as FakeWritten
    from .faults import Faults as Faults
    from .faults import FaultyDisk as FaultyDisk
    from .fixture import tallypost_capture as tallypost_capture
    from .randomness import FakeRandom as FakeRandom
    from .transport import FakeTransport as FakeTransport
else:
    _MODULES = {
        "Counted": "counted",
        "FakeBlock": "fake_disk",
        "FakeClock": "clock",
        "FakeDisk": "fake_disk",
        "FakeLock": "fake_disk",
        "FakeRandom": "randomness",
        "FakeTransport": "transport",
        "FakeWritten": "fake_disk",
        "Faults": "faults",
        "FaultyDisk": "faults",
        "Undeclared": "counted",
        "capture": "diversion",
        "instant": "clock",
        "main": "__main__",
        "tallypost_capture": "fixture",
    }

    def __getattr__(name: str) -> object:
        """A public name, from its module."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        return found

    def __dir__() -> list[str]:
        """With the fixture where pytest looks for it, as in ``pytest_plugins = ["tallypost.testing"]``."""
        names = {*globals(), *_MODULES}
        return sorted(names if "pytest" in sys.modules else names - {"tallypost_capture"})
