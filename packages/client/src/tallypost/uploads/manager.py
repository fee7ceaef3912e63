"""The upload manager: which document is posted next, and when. A policy without network, disk or waiting.

Takes   the names of documents, and the outcome of each post.
Gives   one task at a time: `Upload`, `Wait` or `Done`.
Never   reads a document; never sleeps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct, field

from tallypost_schema.outcomes import Outcome

from .. import limits


class State(Struct):
    """What outlives a session of work, and is shared by all processes through the disk. Instants are UTC seconds."""

    posts: list[float] = field(default_factory=list)
    next_try: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a document's next try is when it is."""
    why: str = ""
    """Why the next try of all is when it is, for people; empty where nothing was ever tried."""


@dataclass(frozen=True)
class Upload:
    """Post this document."""

    name: str


@dataclass(frozen=True)
class Wait:
    """Ask again after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Done:
    """The session of work is over; `why` is a clause for people, `left` says whether documents still wait."""

    why: str
    left: bool


class UploadManager:
    """The queue and its policy, for one session of work."""

    def __init__(
        self, state: State, *, now: Callable[[], float], draw: Callable[[], float], save: Callable[[State], None]
    ) -> None:
        """`draw` gives numbers in [0, 1); `save` keeps the state before anything depends on it."""
        self.state = state
        self._now, self._draw, self._save = now, draw, save
        self._queue: deque[str] = deque()
        self._failures_in_a_row = 0
        self._waits_in_a_row = 0

    def document_recorded(self, name: str) -> None:
        """Take a document into the queue: an observer of the pending database."""
        if name not in self._queue:
            self._queue.append(name)

    def try_all_now(self) -> None:
        """Forget the next tries: a person asked for it."""
        self.state.next_try.clear()

    def next_task(self) -> Upload | Wait | Done:
        """What is to be done now."""
        now = self._now()
        if not self._queue:
            return self._done("nothing is left to send", left=False)
        if self._failures_in_a_row >= limits.failures_in_a_row_max:
            return self._done(without_success(self._failures_in_a_row), left=True)
        name = next((name for name in self._queue if self._due(name, now)), None)
        if name is None:
            return self._done("the next try is later", left=True)
        # An instant later than now is from before the clock was set back: it says nothing.
        self.state.posts = [at for at in self.state.posts if now - limits.post_window_seconds < at <= now]
        if len(self.state.posts) >= limits.posts_per_window_max:
            if self._waits_in_a_row >= limits.waits_in_a_row_max:
                return self._done(f"{limits.posts_per_window_max} posts a minute are sent at most", left=True)
            self._waits_in_a_row += 1
            return Wait(self.state.posts[0] + limits.post_window_seconds - now)
        self._waits_in_a_row = 0
        self.state.posts.append(now)
        self._keep()
        return Upload(name)

    def report_result(
        self, name: str, outcome: Outcome, retry_after: float | None = None, trouble: str = "no answer"
    ) -> None:
        """Take the outcome of a post.

        `retry_after` is the server's wish in seconds, if it had a readable one; `trouble` is a clause for people.
        """
        self._queue.remove(name)
        self._ended()
        if outcome == "recoverable":
            self._failures_in_a_row += 1
            failures = self.state.failures[name] = self.state.failures.get(name, 0) + 1
            self.state.next_try[name] = self._now() + self._delay(failures, retry_after)
            asked = "the server asked for it" if retry_after is not None else without_success(failures)
            self.state.reasons[name] = f"{asked}: {trouble}"
            self._queue.append(name)
        else:
            self._failures_in_a_row = 0
            self._settle(name)
        self._keep()

    def again(self, name: str) -> None:
        """Have the document of the present task posted once more, before any other: its form was not taken."""
        self._queue.remove(name)
        self._queue.appendleft(name)
        self._ended()
        self._keep()

    def forget(self, name: str) -> None:
        """Drop the document of the present task, which was not posted: it is settled, or held back."""
        self._queue.remove(name)
        self._settle(name)
        self.put_off()

    def put_off(self) -> None:
        """Leave the document of the present task where it is: it was not posted."""
        self.state.posts.pop()  # `next_task` counted a post that was none. What failed before stays failed.
        self._keep()

    def earliest_try(self) -> float | None:
        """When the first of the documents in the queue may be tried; None if the queue is empty.

        After failures in a row the trouble is not the document's: those that were not tried wait with the others.
        """
        if not self._queue:
            return None
        name = self._earliest()
        return self.state.next_try[name] if name is not None else self._now()

    def _earliest(self) -> str | None:
        """The document that has to wait the least; None if one has not to wait."""
        waiting = [name for name in self._queue if name in self.state.next_try]
        if self._failures_in_a_row < limits.failures_in_a_row_max and len(waiting) < len(self._queue):
            return None
        return min(waiting, key=self.state.next_try.__getitem__, default=None)

    def _done(self, why: str, *, left: bool) -> Done:
        self._keep()  # What was withdrawn or evicted since the last session has left its traces here.
        return Done(why, left)

    def _keep(self) -> None:
        self.state.reasons = {name: why for name, why in self.state.reasons.items() if name in self.state.next_try}
        name = self._earliest()
        if not self._queue:
            self.state.why = "nothing was left to send"
        elif name is None:
            self.state.why = "more was left than one run may send"
        else:
            self.state.why = self.state.reasons.get(name, "a post had no success")
        self._save(self.state)

    def _ended(self) -> None:
        # When in the course of a post its document arrived nobody knows: the minute counts from its end.
        self.state.posts[-1:] = [self._now()]

    def _settle(self, name: str) -> None:
        self.state.failures.pop(name, None)
        self.state.next_try.pop(name, None)

    def _due(self, name: str, now: float) -> bool:
        # A next try further off than any delay is from before the clock was set back. (A second for the rounding of
        # the sum: a day from now is no further off than a day.)
        wait = self.state.next_try.get(name, now) - now
        return wait <= 0 or wait > limits.backoff_seconds_max + 1

    def _delay(self, failures: int, retry_after: float | None) -> float:
        if retry_after is not None:
            return min(retry_after, limits.retry_after_seconds_max)
        doubled: float = limits.backoff_seconds_first * 2 ** min(failures - 1, 30)
        return self._draw() * min(doubled, limits.backoff_seconds_max)


def without_success(failures: int) -> str:
    """How often something failed, as a clause for people."""
    return "a post had no success" if failures == 1 else f"{failures} posts in a row had no success"
