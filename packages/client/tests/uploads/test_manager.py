from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallypost import limits
from tallypost.testing import FakeClock
from tallypost.uploads.manager import Done, State, Upload, UploadManager, Wait

Manage = Callable[..., UploadManager]
# The same examples on every run, no database, no clock.
repeatable = settings(deadline=None, derandomize=True, database=None)


class Kept:
    """A state on a disk of its own: what one manager saved, the next one begins with."""

    def __init__(self) -> None:
        self.content = msgspec.json.encode(State())

    def save(self, state: State) -> None:
        self.content = msgspec.json.encode(state)

    def load(self) -> State:
        return msgspec.json.decode(self.content, type=State)


@pytest.fixture
def kept() -> Kept:
    """What is kept between sessions of work."""
    return Kept()


@pytest.fixture
def manage(kept: Kept, clock: FakeClock) -> Manage:
    """Begin a session of work with these documents."""

    def begin(*names: str, draw: float = 0.5) -> UploadManager:
        manager = UploadManager(kept.load(), now=clock.now, draw=lambda: draw, save=kept.save)
        for name in names:
            manager.document_recorded(name)
        return manager

    return begin


def test_next_task_without_documents_is_done(manage: Manage) -> None:
    """Nothing waits, nothing is left."""
    assert Done("nothing is left to send", left=False) == manage().next_task()


def test_next_task_names_documents_in_the_order_of_recording(manage: Manage) -> None:
    """First come, first posted; a document told twice is posted once."""
    manager = manage("b", "a", "b")

    tasks = []
    for _ in range(3):
        tasks.append(manager.next_task())
        if isinstance(tasks[-1], Upload):
            manager.report_result(tasks[-1].name, "stored")

    assert [Upload("b"), Upload("a"), Done("nothing is left to send", left=False)] == tasks


def test_next_task_after_15_posts_is_a_wait_until_the_first_is_a_minute_old(manage: Manage, clock: FakeClock) -> None:
    """The sixteenth post of a minute waits, no longer than it must."""
    manager = manage(*map(str, range(17)))
    for n in range(15):
        manager.report_result(str(n), "stored") if manager.next_task() == Upload(str(n)) else pytest.fail("no upload")
        clock.sleep(1)

    waiting = manager.next_task()

    assert Wait(45.0) == waiting
    clock.sleep(45)
    assert Upload("15") == manager.next_task()


def test_next_task_within_the_minute_waits_to_its_very_end(manage: Manage, clock: FakeClock) -> None:
    """Fifteen posts at once are followed by none for a whole minute, whoever asks and however often."""
    manager = manage(*map(str, range(16)))
    for n in range(15):
        manager.next_task()
        manager.report_result(str(n), "stored")
    waits = []
    for seconds in (31.0, 28.0, 1.0):
        clock.sleep(seconds)
        waits.append(manage("15").next_task())

    assert [Wait(29.0), Wait(1.0), Upload("15")] == waits


def test_next_task_counts_the_minute_from_the_end_of_a_post(manage: Manage, clock: FakeClock) -> None:
    """A slow post may have arrived at its end: sixteen never arrive within a minute of each other."""
    manager = manage(*map(str, range(16)))
    for n in range(15):
        manager.next_task()
        clock.sleep(3)
        manager.report_result(str(n), "stored")

    assert Wait(60.0 - 14 * 3) == manager.next_task()


def test_again_names_the_document_once_more_before_any_other(manage: Manage) -> None:
    """What was posted in a form that is not taken is neither stored nor failed, and each of its posts counts."""
    manager = manage("a", "b")
    manager.next_task()
    manager.again("a")

    assert Upload("a") == manager.next_task()
    assert (2, {}) == (len(manager.state.posts), manager.state.failures)


def test_next_task_counts_the_posts_of_earlier_sessions(manage: Manage, clock: FakeClock) -> None:
    """Posts are counted for the state directory, not for a process."""
    for n in range(15):
        manager = manage(str(n))
        assert Upload(str(n)) == manager.next_task()
        manager.report_result(str(n), "stored")

    assert isinstance(manage("more").next_task(), Wait)


def test_next_task_counts_a_post_before_it_is_made(manage: Manage) -> None:
    """A process that is killed during a post has posted."""
    manage("a").next_task()

    waits = [isinstance(manage("a").next_task(), Wait) for _ in range(15)]

    assert [False] * 14 + [True] == waits


def test_next_task_after_three_waits_in_a_row_is_done(manage: Manage, clock: FakeClock) -> None:
    """A session that gets nothing but waits ends."""
    manager = manage(*map(str, range(20)))
    for _ in range(15):
        task = manager.next_task()
        assert isinstance(task, Upload)
        manager.report_result(task.name, "stored")

    tasks = [type(manager.next_task()) for _ in range(4)]

    assert [Wait, Wait, Wait, Done] == tasks
    assert Done("15 posts a minute are sent at most", left=True) == manager.next_task()


def test_next_task_after_a_wait_that_was_worth_it_counts_waits_anew(manage: Manage, clock: FakeClock) -> None:
    """Only waits in a row end a session."""
    manager = manage(*map(str, range(100)))

    waits = uploads = 0
    while uploads < 80:
        task = manager.next_task()
        if isinstance(task, Wait):
            waits += 1
            clock.sleep(task.seconds)
        else:
            assert isinstance(task, Upload)
            uploads += 1
            manager.report_result(task.name, "stored")

    assert 5 == waits


def test_next_task_after_three_failures_in_a_row_is_done(manage: Manage) -> None:
    """The trouble is not the document's: the session ends, and something is left."""
    manager = manage("a", "b", "c", "d")
    for name in ("a", "b", "c"):
        assert Upload(name) == manager.next_task()
        manager.report_result(name, "recoverable")

    assert Done("3 posts in a row had no success", left=True) == manager.next_task()


@pytest.mark.parametrize("outcome", ["stored", "refused"])
def test_next_task_after_an_answer_counts_failures_anew(manage: Manage, outcome: str) -> None:
    """Only failures in a row end a session: a server that answers is there."""
    manager = manage(*"abcdefg")

    for name in "abcde":
        assert Upload(name) == manager.next_task()
        manager.report_result(name, outcome if name == "c" else "recoverable")  # type: ignore[arg-type]  # An outcome.

    assert Upload("f") == manager.next_task()


def test_forget_does_not_count_failures_anew(manage: Manage) -> None:
    """A document that was not posted says nothing about the server."""
    manager = manage(*"abcde")

    for name in "abcd":
        assert Upload(name) == manager.next_task()
        manager.forget(name) if name == "c" else manager.report_result(name, "recoverable")

    assert isinstance(manager.next_task(), Done)


def test_forget_gives_its_place_in_the_minute_back(manage: Manage, kept: Kept) -> None:
    """What is not posted is not counted as a post: twenty withdrawn documents hold nobody up."""
    manager = manage(*map(str, range(20)), "last")
    for n in range(20):
        assert Upload(str(n)) == manager.next_task()
        manager.forget(str(n))

    assert Upload("last") == manager.next_task()
    assert 1 == len(kept.load().posts)


def test_report_result_of_a_failure_sends_the_document_to_the_tail(manage: Manage, clock: FakeClock) -> None:
    """The others come first, even when its next try has come."""
    manager = manage("a", "b", draw=0.0)
    manager.next_task()
    manager.report_result("a", "recoverable")

    assert Upload("b") == manager.next_task()
    manager.report_result("b", "stored")
    assert Upload("a") == manager.next_task()


def test_next_task_before_the_next_try_is_done(manage: Manage, clock: FakeClock) -> None:
    """A document whose time has not come keeps no process waiting; in its time it is posted by another."""
    manager = manage("a")
    manager.next_task()
    manager.report_result("a", "recoverable")

    assert Done("the next try is later", left=True) == manager.next_task()
    assert Done("the next try is later", left=True) == manage("a").next_task()
    clock.sleep(30)
    assert Upload("a") == manage("a").next_task()


def test_try_all_now_takes_what_is_not_due(manage: Manage) -> None:
    """A person who asks for it is not told to wait for a backoff."""
    manager = manage("a")
    manager.next_task()
    manager.report_result("a", "recoverable")
    again = manage("a")

    again.try_all_now()

    assert Upload("a") == again.next_task()


@pytest.mark.parametrize("draw", [0.0, 0.25, 1 - 2**-53])
def test_report_result_doubles_the_backoff_from_a_minute_to_a_day(
    manage: Manage, clock: FakeClock, kept: Kept, draw: float
) -> None:
    """After n failures the next try is drawn from 0 to 2ⁿ⁻¹ minutes, and from 0 to a day at most."""
    delays = []
    for _ in range(16):
        manager = manage("a", draw=draw)
        manager.try_all_now()
        assert Upload("a") == manager.next_task()
        manager.report_result("a", "recoverable")
        delays.append(kept.load().next_try["a"] - clock.now())
        clock.sleep(60)

    expected = [draw * min(60.0 * 2**n, 86_400.0) for n in range(16)]
    assert pytest.approx(expected, abs=1e-5) == delays


def test_report_result_after_countless_failures_is_a_day_at_most(manage: Manage, kept: Kept, clock: FakeClock) -> None:
    """A document that fails for ever is tried for ever, with numbers that stay numbers."""
    kept.save(State(failures={"a": 10**9}))
    manager = manage("a", draw=0.999)
    manager.next_task()

    manager.report_result("a", "recoverable")

    assert kept.load().next_try["a"] - clock.now() <= 86_400


@pytest.mark.parametrize(
    ("wish", "delay"), [(0.0, 0.0), (7.0, 7.0), (86_400.0, 86_400.0), (86_401.0, 86_400.0), (float("inf"), 86_400.0)]
)
def test_report_result_with_a_wish_of_the_server_takes_it_up_to_a_day(
    manage: Manage, clock: FakeClock, kept: Kept, wish: float, delay: float
) -> None:
    """Retry-After stands in place of the backoff, capped at a day."""
    manager = manage("a")
    manager.next_task()

    manager.report_result("a", "recoverable", wish)

    assert delay == kept.load().next_try["a"] - clock.now()


@repeatable
@given(at=st.floats(0, 4e9), fraction=st.floats(0, 1, exclude_max=True))
def test_next_task_after_the_longest_wish_is_never_at_once(at: float, fraction: float) -> None:
    """A try that is a day off waits at every instant: the rounding of a sum is no clock set back."""
    manager = UploadManager(State(), now=lambda: at + fraction, draw=lambda: 0.5, save=lambda state: None)
    manager.document_recorded("a")
    manager.next_task()

    manager.report_result("a", "recoverable", 1e9)

    assert Done("the next try is later", left=True) == manager.next_task()


@pytest.mark.parametrize("outcome", ["stored", "refused"])
def test_report_result_of_an_end_forgets_the_document(manage: Manage, kept: Kept, outcome: str) -> None:
    """What is settled leaves nothing in the state but the instant of its post."""
    kept.save(State(failures={"a": 3}))
    manager = manage("a")
    manager.next_task()

    manager.report_result("a", outcome)  # type: ignore[arg-type]  # An outcome.

    assert ({}, {}, 1) == (kept.load().failures, kept.load().next_try, len(kept.load().posts))


def test_next_task_after_the_clock_was_set_back_waits_for_nothing(manage: Manage, clock: FakeClock, kept: Kept) -> None:
    """Instants that are yet to come, further off than any delay, say nothing."""
    clock.set("2027-11-20T12:00:00Z")
    future = clock.now()
    kept.save(State(posts=[future] * 15, next_try={"a": future}))
    clock.set("2026-11-20T12:00:00Z")

    assert Upload("a") == manage("a").next_task()


def test_next_task_after_the_clock_went_on_by_a_year_waits_for_nothing(
    manage: Manage, clock: FakeClock, kept: Kept
) -> None:
    """What lies behind holds nobody up."""
    now = clock.now()
    kept.save(State(posts=[now] * 15, next_try={"a": now + 86_400}))
    clock.set("2027-11-20T12:00:00Z")

    assert Upload("a") == manage("a").next_task()


def test_earliest_try_is_that_of_the_first_due_document(manage: Manage, clock: FakeClock, kept: Kept) -> None:
    """Whoever waits for the next try knows when it is; an empty queue has none."""
    now = clock.now()
    kept.save(State(next_try={"a": now + 90, "b": now + 30}))

    assert now + 30 == manage("a", "b").earliest_try()
    assert now == manage("a", "b", "new").earliest_try()
    assert manage().earliest_try() is None


def test_earliest_try_after_failures_in_a_row_holds_the_untried_back_too(manage: Manage, clock: FakeClock) -> None:
    """A server that is down is not asked at once for the documents that were not tried yet."""
    manager = manage(*"abcdef")
    for name in "abc":
        manager.next_task()
        manager.report_result(name, "recoverable")

    assert clock.now() + 30 == manager.earliest_try()


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (None, "a post had no success: connect timeout"),
        (7.0, "the server asked for it: connect timeout"),
        (0.0, "the server asked for it: connect timeout"),
    ],
)
def test_why_of_a_failure_is_the_wish_or_the_trouble(manage: Manage, kept: Kept, wish: float | None, why: str) -> None:
    """Why the next try is when it is stays on the disk, for those who ask later."""
    manager = manage("a")
    manager.next_task()

    manager.report_result("a", "recoverable", wish, "connect timeout")

    assert why == kept.load().why


def test_why_of_failures_in_a_row_counts_them(manage: Manage, kept: Kept) -> None:
    """The third time in vain is told as such."""
    for _ in range(3):
        manager = manage("a")
        manager.try_all_now()
        manager.next_task()
        manager.report_result("a", "recoverable", None, "connect timeout")

    assert "3 posts in a row had no success: connect timeout" == kept.load().why


def test_why_is_that_of_the_document_that_is_tried_first(manage: Manage, kept: Kept) -> None:
    """Of several reasons the one that decides is told, whichever came last."""
    manager = manage("a", "b", "c")
    for name, wish in (("a", 60.0), ("b", 3600.0)):
        manager.next_task()
        manager.report_result(name, "recoverable", wish, f"trouble of {name}")
    manager.next_task()
    manager.report_result("c", "stored")

    assert "the server asked for it: trouble of a" == kept.load().why


def test_why_after_everything_was_sent_or_went_is_that(manage: Manage, kept: Kept) -> None:
    """What was withdrawn since the last session is no reason any more."""
    manager = manage("a")
    manager.next_task()
    manager.report_result("a", "recoverable", None, "connect timeout")

    manage().next_task()

    assert "nothing was left to send" == kept.load().why


def test_why_of_documents_beyond_the_minute_is_that_one_run_may_send_no_more(manage: Manage, kept: Kept) -> None:
    """What is due, and was not posted, waits for the next run alone."""
    manager = manage(*map(str, range(16)))
    for n in range(15):
        manager.next_task()
        manager.report_result(str(n), "stored")

    manager.next_task()

    assert "more was left than one run may send" == kept.load().why


def test_state_keeps_no_reason_of_what_waits_no_more(manage: Manage, kept: Kept) -> None:
    """A document that was withdrawn leaves nothing behind, in years of failures."""
    kept.save(State(reasons={"gone": "trouble"}))

    manage("a").next_task()

    assert {} == kept.load().reasons


def test_state_of_an_earlier_version_is_read(clock: FakeClock) -> None:
    """What is not said there yet has its first value."""
    state = msgspec.json.decode(b'{"posts":[1.0],"next_try":{"a":5.0},"failures":{"a":1}}', type=State)

    assert State([1.0], {"a": 5.0}, {"a": 1}, {}, "") == state


def test_put_off_leaves_the_document_and_counts_no_post(manage: Manage, kept: Kept) -> None:
    """A task that could not be begun is the next one's first."""
    manager = manage("a")
    manager.next_task()

    manager.put_off()

    assert [] == kept.load().posts
    assert Upload("a") == manager.next_task()


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 30)),
        st.tuples(st.just("sleep"), st.floats(0, 90)),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("task"), st.sampled_from(["stored", "refused", "recoverable", "forget", "killed"])),
        st.tuples(st.just("task"), st.just("stored")),
    ),
    max_size=150,
)


@given(steps=_steps, draw=st.floats(0, 1, exclude_max=True))
@settings(repeatable, max_examples=150)
def test_manager_through_any_history_keeps_its_limits(steps: list[tuple[str, object]], draw: float) -> None:
    """Whatever is recorded, answered, waited for or killed: 15 posts a minute, 3 failures, nothing before its time."""
    clock, kept = FakeClock(), Kept()
    manager = UploadManager(kept.load(), now=clock.now, draw=lambda: draw, save=kept.save)
    posts: list[float] = []
    failures = 0
    waiting: list[str] = []
    for word, what in steps:
        if word == "record":
            manager.document_recorded(str(what))
            waiting += [str(what)] if str(what) not in waiting else []
        elif word == "sleep":
            clock.sleep(what)  # type: ignore[arg-type]  # A number of seconds.
        elif word == "restart":
            manager = UploadManager(kept.load(), now=clock.now, draw=lambda: draw, save=kept.save)
            failures = 0
            for name in waiting:
                manager.document_recorded(name)
        else:
            task = manager.next_task()
            if isinstance(task, Wait):
                assert 0 < task.seconds <= 60
            elif isinstance(task, Done):
                assert task.left is bool(waiting)
            else:
                assert failures < 3
                assert task.name in waiting
                assert kept.load().next_try.get(task.name, 0) <= clock.now()
                if what == "forget":
                    manager.forget(task.name)
                    waiting.remove(task.name)
                    continue
                posts.append(clock.now())
                if what == "killed":
                    manager = UploadManager(kept.load(), now=clock.now, draw=lambda: draw, save=kept.save)
                    failures = 0
                    for name in waiting:
                        manager.document_recorded(name)
                    continue
                manager.report_result(task.name, what)  # type: ignore[arg-type]  # An outcome.
                failures = failures + 1 if what == "recoverable" else 0
                if what != "recoverable":
                    waiting.remove(task.name)

    for first, last in zip(posts, itertools.islice(posts, limits.posts_per_window_max, None)):  # noqa: B905
        assert last - first >= limits.post_window_seconds - 1e-6
