"""The fork mark: a byte that is true in the process that made it, and false in every child, however it was forked.

Takes   nothing.
Gives   a view of one byte, read before each increment.
Never   asks the system while something is counted.

Python's own hook hears of forks made from Python alone. Linux wipes a page in the child when it is told to; elsewhere a
fork made from C is not seen.
"""

from __future__ import annotations

import sys

_MADV_WIPEONFORK = 18


def fork_mark() -> memoryview[bool]:
    """A mark of this process; where the system cannot wipe it, it stays true in children too."""
    if sys.platform != "linux":
        return plain_mark()
    import mmap

    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_MADV_WIPEONFORK)
    except OSError:  # A kernel before 4.14, or no memory.
        return plain_mark()
    page[0] = 1
    return memoryview(page)[:1].cast("?")


def plain_mark() -> memoryview[bool]:
    """A mark that nothing wipes."""
    return memoryview(bytearray(b"\1")).cast("?")
