"""What was counted in a capture, and what of it the declaration forgot.

Takes   a look at all counts, as often as it is asked, and what they were when the capture began.
Gives   a mapping of what came since then, by name; `Undeclared`.
Never   counts, and never changes where something is counted (``diversion.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from tallypost_schema import own

if TYPE_CHECKING:
    from tallypost_schema.declaration import Declaration


class Undeclared(AssertionError):
    """Something was counted that the declaration does not name, so it would never leave."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        shown = ", ".join(name.replace("\n", " < ") for name in names)
        super().__init__(f"counted, but not declared: {shown}; name them in telemetry.toml, or count them no more")


class Counted(Mapping[str, int]):
    """What was counted since a ``with capture(…)`` began, by name; 0 for what was not. It stands still at its end."""

    def __init__(
        self, counts: Callable[[], dict[str, int]], declaration: Declaration | None, before: dict[str, int]
    ) -> None:
        """`before` was counted when the capture began."""
        self._counts, self._declaration, self._before = counts, declaration, before
        self._after: dict[str, int] | None = None

    def __getitem__(self, name: str) -> int:
        return self._since().get(name, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._since())

    def __len__(self) -> int:
        return len(self._since())

    def __contains__(self, name: object) -> bool:
        return name in self._since()

    def stack(self, name: str) -> int:
        """How often a stack counter was hit, on whatever way; each way has its own entry, name and frames."""
        return sum(n for key, n in self._since().items() if key.startswith(f"{name}\n"))

    def undeclared(self) -> list[str]:
        """The names that were counted and are not in the declaration."""
        return sorted(name for name in self._since() if not _is_declared(name, self._declaration))

    def stop(self) -> None:
        """Stand still: what is counted from now on is not seen here."""
        self._after = self._counts()

    def _since(self) -> dict[str, int]:
        counts = self._after if self._after is not None else self._counts()
        return {name: more for name, n in counts.items() if (more := n - self._before.get(name, 0)) > 0}

    def __repr__(self) -> str:
        return f"<Counted {self._since()}>"


def _is_declared(name: str, declaration: Declaration | None) -> bool:
    """Whether it may leave under its own name, or as the declared bucket ``:other``."""
    if name.startswith(own.PREFIX):
        return True
    if declaration is None:
        return False
    if "\n" in name:
        return declaration.names_stack(name)
    plain, colon, _ = name.partition(":")
    return declaration.names_counter(name) or (bool(colon) and declaration.names_counter(f"{plain}:other"))
