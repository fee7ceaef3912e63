"""A process of the proof of events: one that logs until it is killed, or one that uploads by a hasty clock.

Takes   ``log KIND NUMBER`` or ``upload AHEAD ROUNDS``, the proof's folder, and a file to say in how far it is.
Gives   events whose content follows from their process and number; in the file, before each event, how many there are.
Never   decides whether anything holds; never ends by itself where it logs, unless its kind is to end.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from pathlib import Path

APPLICATION = "example.org/proof"
# The number of a forked child is that of its parent and so many more.
CHILD = 1_000_000
WORDS = ("one", "two, with a comma", 'three "quoted", \\ and ü')
LONG_WORDS = tuple(f"{letter * 80}" for letter in "abc")
LONG_FIELDS = tuple(f"long{place}" for place in range(9))
# By kind: the most events of a burst, the longest pause after one, and how long such a process may live; seconds.
KINDS = {
    "single": (1, 0.01, 1.0),
    "bursts": (40, 0.05, 1.5),
    "forks": (30, 0.05, 1.5),
    "ends": (20, 0.05, 1.0),
    "long": (60, 0.1, 2.0),
}


def event_of(process: int, number: int, kind: str) -> tuple[str, dict[str, object]]:
    """The event that a process of that kind logs as its so many-th, from 0."""
    fields: dict[str, object] = {
        "process": process,
        "number": number,
        "half": number / 2,
        "even": number % 2 == 0,
        "word": WORDS[number % len(WORDS)],
    }
    if kind != "long":
        return "step", fields
    return "page", {**fields, **{name: LONG_WORDS[number % len(LONG_WORDS)] for name in LONG_FIELDS}}


def declaration() -> str:
    """What declares these events."""
    short = f'process = "count", number = "count", half = "seconds", even = "flag", word = {_spelled(WORDS)}'
    long = ", ".join(f"{name} = {_spelled(LONG_WORDS)}" for name in LONG_FIELDS)
    head = f'application = "{APPLICATION}"\ncontact = "privacy@example.org"\nconsent_version = 1\n'
    rules = 'why = "To be found again"\nowner = "the proof"\nexpires = "never"\n'
    return f"{head}[events.step]\n{rules}fields = {{ {short} }}\n[events.page]\n{rules}fields = {{ {short}, {long} }}\n"


def log(folder: Path, told: Path, kind: str, process: int) -> None:
    """Log events, in bursts."""
    from tallypost import Telemetry

    telemetry = Telemetry(APPLICATION, "1", declaration=folder / "telemetry.toml", uploader="manual")
    rng = random.Random(process)
    burst, pause, life = KINDS[kind]
    put, number = _mapped(told), 0
    until = time.monotonic() + (rng.random() * life if kind == "ends" else 3600)
    while time.monotonic() < until:
        for _ in range(rng.randint(1, burst)):
            put[0] = number + 1
            name, fields = event_of(process, number, kind)
            telemetry.event(name, **fields)  # type: ignore[arg-type]  # They are what the declaration says.
            number += 1
        if kind == "forks" and process < CHILD and os.fork() == 0:
            process, put, number = process + CHILD, _mapped(told.with_name(f"{process + CHILD}")), 0
        elif kind == "forks" and process < CHILD:
            kind = "bursts"
        time.sleep(rng.random() * pause)


def upload(told: Path, ahead: float, rounds: int) -> None:
    """Upload so many times, or until nothing is left, or somebody else is at work, or the server does not answer."""
    from tallypost.clock import SystemClock
    from tallypost.installed import daily_of

    class HastyClock(SystemClock):
        """The machine's, but what is waited for is over at once: fifteen posts a minute are few for a proof."""

        def __init__(self) -> None:
            super().__init__({})
            machine, self.ahead = self.now, ahead
            self.now = lambda: machine() + self.ahead

        def sleep(self, seconds: float) -> None:
            super().sleep(min(seconds, 0.01))
            self.ahead += max(0.0, seconds - 0.01)

    clock = HastyClock()
    told.write_text("begun")
    for _ in range(rounds):
        daily = daily_of(os.environ["TALLYPOST_DIR"], APPLICATION, environ=os.environ, clock=clock)
        uploaded = daily.upload()
        if uploaded.nothing_left or uploaded.sent == 0:
            return
        clock.sleep(61)


def _spelled(words: tuple[str, ...]) -> str:
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words]
    return "[" + ", ".join(f'"{word}"' for word in escaped) + "]"


def _mapped(path: Path) -> memoryview:
    """A number in a file, which survives whoever writes it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, mmap.PAGESIZE)
    return memoryview(mmap.mmap(file, mmap.PAGESIZE)).cast("Q")


if __name__ == "__main__":
    what, *given, folder, told = sys.argv[1:]
    if what == "log":
        log(Path(folder), Path(told), given[0], int(given[1]))
    else:
        upload(Path(told), float(given[0]), int(given[1]))
