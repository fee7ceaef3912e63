"""Asking: the one question that Tallypost puts to a person, and only where one sits.

Takes   what may leave by the declaration, a keyboard, a screen.
Gives   the person's answer, or None if there was none.
Never   asks twice for one answer; never takes silence for a yes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TextIO

from tallypost_schema.declaration import Declaration

if TYPE_CHECKING:
    from collections.abc import Iterator

# Whoever types something else twice more is not answering.
ATTEMPTS_MAX = 3
_ANSWERS: dict[str, Literal["on", "local"]] = {"y": "on", "yes": "on", "n": "local", "no": "local", "": "local"}


def is_terminal(*streams: TextIO | None) -> bool:
    """Whether a person sits at all of them."""
    try:
        return all(stream is not None and stream.isatty() for stream in streams)
    except ValueError:  # Closed.
        return False


def ask(
    declared: Declaration, *, question: str | None, endpoint: str | None, keyboard: TextIO, screen: TextIO
) -> Literal["on", "local"] | None:
    """The answer; None if the input ended, or none of three lines was an answer.

    Raises:
        KeyboardInterrupt: the person wants to end the program, which is no answer.
    """
    for line in _lines(declared, question, endpoint):
        print(line, file=screen)
    for _ in range(ATTEMPTS_MAX):
        print("May it be posted? yes or no [no] ", end="", file=screen, flush=True)
        line = keyboard.readline()
        if not line:
            print(file=screen)
            return None
        answer = _ANSWERS.get(line.strip().lower())
        if answer is not None:
            said = "Thank you." if answer == "on" else "Nothing is posted; counts stay on this machine."
            print(f"{said} Change it at any time: tallypost --app {declared.application} on | off", file=screen)
            return answer
    return None


def _lines(declared: Declaration, question: str | None, endpoint: str | None) -> Iterator[str]:
    application = declared.application
    n = len(declared.counters) + len(declared.histograms) + len(declared.stacks) + len(declared.events)
    yield question or f"{application} counts what it does. Its makers would like to have the numbers once a day."
    yield f"  what      numbers for {n} declared names; nothing that names you or this machine"
    if endpoint is not None:
        yield f"  to whom   {endpoint}"
    if declared.about is not None:
        yield f"  why       {declared.about}"
    yield f"  see it    tallypost --app {application} preview"
