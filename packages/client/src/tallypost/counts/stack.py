"""The stack counter: counted by where it was hit, as far as that is in the application's own packages.

Takes   a hit, or an exception.
Gives   an increment of ``name`` and frames ``module:function:+line``, the outermost first.
Never   tells of other packages' frames, of files, or of values; the line is relative to the function's begin.
"""

from __future__ import annotations

import sys

from tallypost_schema import limits as shared_limits
from tallypost_schema import names

from .. import losses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType, TracebackType

    from .counter import Counter
    from .recorder import Recorder

    Place = tuple[str, CodeType, int]

# Of a hit outside of the declared packages nothing is told but that there was one.
ELSEWHERE = "?:?:+0"


class StackCounter:
    """A counter keyed by where it was hit. Get one from `Telemetry.stack`."""

    __slots__ = ("_depth", "_known", "_packages", "_recorder", "name")

    def __init__(self, name: str, depth: int, *, packages: Callable[[], frozenset[str]], recorder: Recorder) -> None:
        """`packages` tells the declared packages of this stack; it is asked once, at the first hit."""
        self.name, self._depth, self._recorder = name, depth, recorder
        self._packages: Callable[[], frozenset[str]] | frozenset[str] = packages
        self._known: dict[tuple[Place, ...], Counter] = {}

    def inc(self, n: int = 1) -> None:
        """Count `n` more hits of the line that calls this."""
        try:
            frame: FrameType | None = sys._getframe(1)
            places = []
            while frame is not None:
                places.append((frame.f_globals.get("__name__", "?"), frame.f_code, frame.f_lineno))
                frame = frame.f_back
            self._count(places, n)
        except Exception:  # noqa: BLE001  # The host must not notice; what cannot be told is counted as lost.
            self._recorder.lose(losses.DROPPED_VALUES)

    def inc_for(self, error: BaseException, n: int = 1) -> None:
        """Count `n` more of an exception, by the way that it came."""
        try:
            step: TracebackType | None = error.__traceback__
            places = []
            while step is not None:
                frame = step.tb_frame
                places.append((frame.f_globals.get("__name__", "?"), frame.f_code, step.tb_lineno))
                step = step.tb_next
            self._count(places[::-1], n)
        except Exception:  # noqa: BLE001  # As above.
            self._recorder.lose(losses.DROPPED_VALUES)

    def _count(self, places: list[Place], n: int) -> None:
        """Count a way that is told from the innermost place outwards."""
        packages = self._packages
        if callable(packages):
            packages = self._packages = packages()
        own = tuple(place for place in places if names.is_within(place[0], packages))[: self._depth]
        counter = self._known.get(own)
        if counter is None:
            counter = self._recorder.counter(self._key(own))
            if len(self._known) < 1000:  # Ways without end are counted, only not kept at hand.
                self._known[own] = counter
        counter.inc(n)

    def _key(self, own: tuple[Place, ...]) -> str:
        frames = [_frame(place) for place in own] or [ELSEWHERE]
        # Over the size the outermost frames go first: the innermost tell most.
        while len(frames) > 1 and len("\n".join((self.name, *frames)).encode()) > shared_limits.stack_bytes_max:
            frames.pop()
        key = "\n".join((self.name, *reversed(frames)))
        return key if names.is_stack(key) else f"{self.name}\n{ELSEWHERE}"

    def __repr__(self) -> str:
        return f"<StackCounter {self.name}>"


def _frame(place: Place) -> str:
    module, code, line = place
    function = getattr(code, "co_qualname", code.co_name)  # The qualified name is known from Python 3.11 on.
    return f"{module}:{function}:+{max(0, line - code.co_firstlineno)}"
