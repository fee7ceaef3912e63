"""The live view of `tallypost show --watch`.

Takes   a way to the present lines, a clock, and where to write.
Gives   on a terminal a picture that is drawn anew; elsewhere a new table whenever something has changed.
Never   ends by itself: Ctrl-C does that, and leaves the terminal as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from ..clock import spelled
from .table import shortened

if TYPE_CHECKING:
    from ..seams import Clock

SECONDS = 2.0
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
# Home, then clear what is below it: the whole picture goes out in one write, so that nothing flickers.
_REDRAW = "\x1b[H\x1b[J"


def watch_terminal(
    draw: Callable[[int], list[str]],
    *,
    title: str,
    seconds: float,
    clock: Clock,
    out: TextIO,
    size: Callable[[], tuple[int, int]],
) -> None:
    """Draw what `draw` gives for a width, every so many seconds, until Ctrl-C; `size` is that of the terminal."""
    out.write(_HIDE_CURSOR)
    try:
        while True:
            width, height = size()
            head = f"{title}  {spelled(clock.now())}  every {seconds:g} s, Ctrl-C ends"
            picture = _cut([shortened(head, width), "", *draw(width)], height - 1)
            out.write(_REDRAW + "".join(f"{line}\n" for line in picture))
            out.flush()
            clock.sleep(seconds)
    except KeyboardInterrupt:
        return
    finally:
        out.write(_SHOW_CURSOR)
        out.flush()


def watch_changes(draw: Callable[[], list[str]], *, seconds: float, clock: Clock, out: TextIO) -> None:
    """Write what `draw` gives, again each time that it has changed, until Ctrl-C."""
    before: list[str] | None = None
    try:
        while True:
            now = draw()
            if now != before:
                out.write("".join(f"{line}\n" for line in now))
                out.flush()
                before = now
            clock.sleep(seconds)
    except KeyboardInterrupt:
        return


def _cut(picture: list[str], height: int) -> list[str]:
    """The first lines that a terminal has room for; the last of them says how many are not shown."""
    if len(picture) <= max(height, 1):
        return picture
    kept = picture[: max(height - 1, 0)]
    return [*kept, f"… {len(picture) - len(kept)} more lines"]
