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
            return Done("nothing is left to send", left=False)
        if self._failures_in_a_row >= limits.failures_in_a_row_max:
            return Done(f"{self._failures_in_a_row} posts in a row had no success", left=True)
        name = next((name for name in self._queue if self._due(name, now)), None)
        if name is None:
            return Done("the next try is later", left=True)
        # An instant later than now is from before the clock was set back: it says nothing.
        self.state.posts = [at for at in self.state.posts if now - limits.post_window_seconds < at <= now]
        if len(self.state.posts) >= limits.posts_per_window_max:
            if self._waits_in_a_row >= limits.waits_in_a_row_max:
                return Done(f"{limits.posts_per_window_max} posts a minute are sent at most", left=True)
            self._waits_in_a_row += 1
            return Wait(self.state.posts[0] + limits.post_window_seconds - now)
        self._waits_in_a_row = 0
        self.state.posts.append(now)
        self._save(self.state)
        return Upload(name)

    def report_result(self, name: str, outcome: Outcome, retry_after: float | None = None) -> None:
        """Take the outcome of a post; `retry_after` is the server's wish in seconds, if it had a readable one."""
        self._queue.remove(name)
        if outcome == "recoverable":
            self._failures_in_a_row += 1
            failures = self.state.failures[name] = self.state.failures.get(name, 0) + 1
            self.state.next_try[name] = self._now() + self._delay(failures, retry_after)
            self._queue.append(name)
        else:
            self._failures_in_a_row = 0
            self.state.failures.pop(name, None)
            self.state.next_try.pop(name, None)
        self._save(self.state)

    def forget(self, name: str) -> None:
        """Drop the document of the present task, which was not posted: it is settled, or held back."""
        self._queue.remove(name)
        self.state.failures.pop(name, None)
        self.state.next_try.pop(name, None)
        self.state.posts.pop()  # `next_task` counted a post that was none. What failed before stays failed.
        self._save(self.state)

    def earliest_try(self) -> float | None:
        """When the first of the documents in the queue may be tried; None if the queue is empty.

        After failures in a row the trouble is not the document's: those that were not tried wait with the others.
        """
        tries = [self.state.next_try[name] for name in self._queue if name in self.state.next_try]
        if self._failures_in_a_row >= limits.failures_in_a_row_max or len(tries) == len(self._queue):
            return min(tries, default=None)
        return self._now()

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
