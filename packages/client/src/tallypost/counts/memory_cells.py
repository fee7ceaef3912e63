"""Cells without a file: where none can be made, and where nothing may be counted.

Takes   names.
Gives   the same cells as a count file.
Never   survives the process.
"""

from __future__ import annotations

from .. import limits


class MemoryCells:
    """The same cells without a file: nothing here survives the process."""

    hands_out = True

    def __init__(self) -> None:
        self.cells: dict[str, memoryview] = {}

    def cell(self, name: str) -> memoryview | None:
        """The cell of `name`, made if need be; None if there are too many."""
        cell = self.cells.get(name)
        if cell is None and len(self.cells) < limits.names_per_file_max:
            cell = self.cells[name] = memoryview(bytearray(8)).cast("Q")
        # A view of it, since the counter releases what it is given.
        return cell[:] if cell is not None else None

    def added(self, name: str) -> None:
        """Nothing is left to do."""

    def is_there(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing to give up."""


class NoCells(MemoryCells):
    """The cells of mode *off*: what is counted in them is never carried anywhere."""
