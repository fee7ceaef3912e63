from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from tallypost_server import limits
from tallypost_server.archive.reader import ArchiveReader, document_of, event_of
from tallypost_server.disk import ARCHIVE_POINTS, FaultPoint
from tallypost_server.errors import ArchiveUnusable, CoordinatorUnusable, LeaseLost
from tallypost_server.segments.told import Told
from tallypost_server.testing import Killed
from tallypost_server.testing_archive import MemoryTables

from .world import BATCH_SECONDS, DELAY, MAX_DELAY, SESSION, World


def test_report_is_archived_as_it_was_stored_and_its_segment_goes(world: World) -> None:
    """A report is due as it comes; nothing of it is lost on the way into columns."""
    world.report(1)
    world.report(2, previous=None, config=None, programs=[])
    world.seal()

    done = world.archivist().round()

    assert (1, 1, 0, 1, False, False) == done
    assert [] == world.segments()
    one, two = world.rows("reports")
    assert datetime.date(2026, 11, 23) == one["day"]
    assert {"cmd/export": 12, "cmd/export:pdf": 3} == document_of(one)["programs"][0]["counters"]
    assert (None, None, []) == (two["previous"], two["config"], two["programs"])


def test_report_in_the_archive_is_shown_byte_by_byte_as_it_was(world: World) -> None:
    """Keys, maps and numbers keep their order and their kind."""
    world.report(1, x=0.1)
    line = msgspec.json.decode(world.lines[0])
    world.seal()
    world.archivist().round()

    (row,) = world.rows("reports")

    assert msgspec.json.encode(line["doc"]) == msgspec.json.encode(document_of(row))
    assert line["sha256"] == row["sha256"]


def test_complete_session_is_archived_after_the_delay(world: World) -> None:
    """Not before, and then with its terminal index and without gaps."""
    world.batch(0, 3)
    world.batch(3, 2, terminal=4)
    world.seal()
    archivist = world.archivist()

    early = archivist.round()
    assert (1, 0) == (early.registered, early.archived)
    world.clock.advance(DELAY)
    late = archivist.round()

    assert (1, 1) == (late.archived, late.removed)
    assert [0, 1, 2, 3, 4] == world.indexes()
    assert ("complete", 4, [], 1) == tuple(world.part()[key] for key in ("state", "terminal", "gaps", "part"))
    assert (1, 0) == (world.counts()["complete"], world.counts()["open"])


def test_delay_begins_anew_with_each_entry(memory: World) -> None:
    """A session of which something still comes is not settled, complete as it may be."""
    memory.batch(0, 3, terminal=2)
    memory.seal()
    archivist = memory.archivist()
    archivist.round()
    memory.clock.advance(DELAY - 1)
    memory.batch(0, 3, terminal=2)
    memory.seal()
    archivist.round()
    memory.clock.advance(2)

    assert 0 == archivist.round().archived
    memory.clock.advance(DELAY)
    assert 1 == archivist.round().archived


def test_backlog_is_taken_up_bit_by_bit_and_no_session_is_judged_before_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held of it does not grow with it; what an overdue session lacks may lie in the rest."""
    monkeypatch.setattr(limits, "register_documents_max", 2)
    for number in range(3):
        world.report(number)
        world.batch(2 * number, 2, terminal=5)
        world.seal()
    world.clock.advance(MAX_DELAY + 1)
    archivist = world.archivist()

    rounds = [archivist.round() for _ in range(4)]

    assert [(1, True), (1, True), (1, False), (0, False)] == [(done.registered, done.more) for done in rounds]
    assert [0, 0, 2, 0] == [done.archived for done in rounds]
    assert ("complete", 5, [], 1) == tuple(world.part()[key] for key in ("state", "terminal", "gaps", "part"))
    assert 3 == len(world.rows("reports"))
    assert [] == world.segments()


def test_overdue_session_is_not_judged_while_segments_wait_that_may_have_the_rest(
    memory: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its task is full at once."""
    monkeypatch.setattr(limits, "register_documents_max", 1)
    memory.task_rows_max = 2
    for number in range(3):
        memory.batch(2 * number, 2, terminal=5)
        memory.seal()
    memory.clock.advance(MAX_DELAY + 1)
    archivist = memory.archivist()

    done = [archivist.round().archived for _ in range(6)]

    assert [0, 0, 1, 1, 1, 0] == done
    assert ("complete", 5, [], 3) == tuple(memory.part()[key] for key in ("state", "terminal", "gaps", "part"))


def test_session_that_is_larger_than_a_task_is_archived_by_several(memory: World) -> None:
    """As that of a process that runs for months: what a task holds is bounded, and a batch may be in two of them."""
    memory.task_rows_max = 5
    for first in range(0, 14, 7):
        memory.batch(first, 7, fields={"format": str(first)})
    memory.batch(2, 8, fields={"format": "again"})  # Received later, it adds nothing.
    memory.batch(14, 2, lost=2, terminal=17)
    memory.seal()
    memory.clock.advance(DELAY)
    archivist = memory.archivist()

    done = [archivist.round().archived for _ in range(6)]

    assert [1, 1, 1, 1, 0, 0] == done
    rows = memory.rows("sessions")
    assert [[(0, 4)], [(5, 9)], [(10, 13), (16, 16)], [(17, 17)]] == [
        [tuple(each.values()) for each in row["written"]] for row in rows
    ]
    assert ["sparse", "sparse", "sparse", "complete"] == [row["state"] for row in rows]
    assert (17, []) == (memory.part()["terminal"], memory.part()["gaps"])
    assert {1} == set(memory.events().values())
    assert {("format", "0"), ("format", "7"), ("format", "pdf")} == {row["words"][0] for row in memory.rows("events")}
    assert [] == memory.segments()


def test_overdue_session_is_archived_sparse_without_a_terminal_that_was_not_reached(world: World) -> None:
    """What is there is archived with its gaps; the terminal index that nothing reached is dropped."""
    world.batch(2, 2, lost=0)
    world.batch(7, 2, lost=1, terminal=20)
    world.seal()
    archivist = world.archivist()
    world.clock.advance(MAX_DELAY - 1)
    assert 0 == archivist.round().archived

    world.clock.advance(2)
    archivist.round()

    row = world.part()
    assert [2, 3, 8, 9] == world.indexes()
    assert ("sparse", None, 20) == (row["state"], row["terminal"], row["told_terminal"])
    assert [{"first": 0, "last": 1}, {"first": 4, "last": 6}] == row["gaps"]
    assert [{"first": 7, "last": 7}] == row["lost"]
    assert [] == world.segments()


def test_supplement_arrives_in_its_turn_and_completes_the_session(world: World) -> None:
    """What came late follows by the same rules, and only what was not there."""
    world.batch(2, 2, terminal=3)
    world.seal()
    archivist = world.archivist()
    world.clock.advance(MAX_DELAY + 1)
    archivist.round()
    assert "sparse" == world.part()["state"]

    world.batch(0, 3)
    world.seal()
    assert 0 == archivist.round().archived
    world.clock.advance(DELAY)
    archivist.round()

    row = world.part()
    assert [0, 1, 2, 3] == world.indexes()
    assert ("complete", 3, 2) == (row["state"], row["terminal"], row["part"])
    assert [{"first": 0, "last": 1}] == row["written"]
    assert (1, 1, 0) == tuple(world.counts()[key] for key in ("supplements", "complete", "sparse"))


def test_lost_range_is_recorded_and_content_that_comes_for_it_is_kept(world: World) -> None:
    """A lost range is no content: a session may be complete with it, and is more complete without."""
    world.batch(0, 2, lost=2, terminal=3)
    world.seal()
    archivist = world.archivist()
    world.clock.advance(DELAY)
    archivist.round()
    assert ("complete", [2, 3]) == (world.part()["state"], world.indexes())

    world.batch(0, 1)
    world.seal()
    world.clock.advance(DELAY)
    archivist.round()

    assert [0, 2, 3] == world.indexes()
    assert [{"first": 1, "last": 1}] == world.part()["lost"]


def test_document_received_first_wins_in_whatever_order_segments_are_found(memory: World) -> None:
    """Two workers, each with segments of its own: what came first is archived."""
    memory.batch(0, 2, terminal=1, name="first")
    memory.report(1, config="first")
    early = memory.lines
    memory.lines = []
    memory.batch(0, 2, terminal=1, name="second")
    memory.report(1, config="second")
    memory.seal()
    archivist = memory.archivist(batch_seconds=BATCH_SECONDS)
    archivist.round()
    memory.lines = early
    memory.seal()

    memory.clock.advance(BATCH_SECONDS + DELAY)
    for _ in range(2):
        archivist.round()
        memory.clock.advance(BATCH_SECONDS)

    assert {"first"} == {row["name"] for row in memory.rows("events")}
    assert ["first"] == [row["config"] for row in memory.rows("reports")]
    assert [] == memory.segments()


def test_what_is_archived_stays_and_a_repetition_is_counted(world: World) -> None:
    """Also one that was received earlier, and is found later."""
    world.batch(0, 2, terminal=1)
    world.report(1, config="archived")
    world.seal()
    archivist = world.archivist()
    world.clock.advance(DELAY)
    archivist.round()

    world.batch(0, 2, terminal=1, name="again")
    world.report(1, config="again")
    world.seal()
    world.clock.advance(DELAY)
    archivist.round()

    assert {"export"} == {row["name"] for row in world.rows("events")}
    assert ["archived"] == [row["config"] for row in world.rows("reports")]
    assert (2, 2) == (world.counts()["duplicates"], len(world.indexes()))
    assert [] == world.segments()


def test_contradiction_is_counted_and_not_tried_for_ever(world: World) -> None:
    """The first terminal index wins; what lies beyond it is kept, since a receipt was given for it."""
    world.batch(0, 2, terminal=1)
    world.batch(2, 2, terminal=3)
    world.seal()
    archivist = world.archivist()
    world.clock.advance(DELAY)
    archivist.round()

    assert ("complete", 1) == (world.part()["state"], world.part()["terminal"])
    assert [0, 1, 2, 3] == world.indexes()
    assert world.counts()["contradictions"] >= 1
    world.clock.advance(MAX_DELAY)
    assert archivist.round().idle


def test_what_is_due_waits_for_more_until_it_is_old_or_much(memory: World) -> None:
    """Files are large where much comes, and not late where little does."""
    memory.task_rows_max = 3
    memory.report(1)
    memory.seal()
    archivist = memory.archivist(batch_seconds=BATCH_SECONDS)
    assert 0 == archivist.round().archived
    memory.clock.advance(BATCH_SECONDS)
    assert 1 == archivist.round().archived

    for number in range(2, 5):
        memory.report(number)
    memory.seal()

    assert 1 == archivist.round().archived


def test_event_that_says_nothing_keeps_its_place(world: World) -> None:
    """Withheld and undeclared events are rows without a name, and ``show`` leaves them out."""
    body = msgspec.json.decode(line_with_a_withheld_event(world))
    world.seal()
    world.clock.advance(DELAY)
    world.archivist().round()

    assert [None, "export"] == [row["name"] for row in world.rows("events")]
    assert body["doc"]["events"] == [event_of(row) for row in world.rows("events")]


def line_with_a_withheld_event(world: World) -> bytes:
    world.batch(0, 2, terminal=1)
    line = msgspec.json.decode(world.lines.pop())
    line["doc"]["events"][0] = {}
    line["doc"]["events"][1]["fields"] = {"format": "pdf", "pages": 3, "seconds": 0.25, "ok": True}
    world.line(msgspec.json.encode(line) + b"\n")
    return world.lines[-1]


@pytest.mark.parametrize("point", ARCHIVE_POINTS)
def test_archivist_killed_anywhere_is_finished_by_the_next(world: World, point: Any) -> None:
    """Each index and each report is in the archive once, and the segment goes."""
    world.batch(0, 3, terminal=2)
    world.report(1)
    world.seal()
    world.clock.advance(DELAY)
    world.disk.kill_at(point)
    killed = world.archivist()

    with pytest.raises(Killed):
        killed.round()
    world.disk.kill_at(None)
    world.clock.advance(limits.lease_seconds + 1)
    for _ in range(3):
        world.archivist().round()

    assert [0, 1, 2] == world.indexes()
    assert 1 == len(world.rows("reports"))
    assert 1 == len(world.rows("sessions"))
    assert [] == world.segments()


@pytest.mark.parametrize("point", ["before_table_commit", "before_finish"])
def test_archivist_that_slept_while_another_took_over_writes_nothing_twice(world: World, point: Any) -> None:
    """Its lease is over: it finds that, or the table refuses it."""
    world.batch(0, 3, terminal=2)
    world.report(1)
    world.seal()
    world.clock.advance(DELAY)
    sleeper, other = world.archivist(), world.archivist()

    def meanwhile() -> None:
        world.disk.kill_at(None)
        world.clock.advance(limits.lease_seconds + 1)
        other.round()

    world.disk.kill_at(point, meanwhile)
    sleeper.round()
    for _ in range(2):
        other.round()

    assert [0, 1, 2] == world.indexes()
    assert 1 == len(world.rows("reports"))
    assert [] == world.segments()


def test_poison_is_parked_alone_and_the_rest_is_archived(memory: World) -> None:
    """A task that the data refuses is split until the one that does it stands alone."""
    memory.memory.refuses = lambda name, rows: name == "reports" and format(3, "032x") in rows.column("id").to_pylist()
    for number in range(6):
        memory.report(number)
    memory.seal()
    archivist = memory.archivist()
    archivist.round()

    assert [0, 1, 2, 4, 5] == [int(row["id"], 16) for row in memory.rows("reports")]
    (parked,) = (memory.data / "parked").glob("*.jsonl")
    assert format(3, "032x") == msgspec.json.decode(parked.read_bytes())["stream"]
    assert [] == memory.segments()
    assert archivist.round().idle


def test_session_whose_lines_are_longer_than_a_task_may_hold_is_archived_by_several(
    memory: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few events may be as much as many."""
    for first in range(0, 12, 3):
        memory.batch(first, 3, terminal=11)
    monkeypatch.setattr(limits, "task_bytes_max", sum(map(len, memory.lines)) // 3)
    memory.seal()
    memory.clock.advance(DELAY)
    memory.work()

    assert [4, 4, 4] == [row["content"][0]["last"] + 1 - 4 * at for at, row in enumerate(memory.rows("sessions"))]
    assert ("complete", []) == (memory.part()["state"], memory.part()["gaps"])
    assert [] == memory.segments()


def test_part_of_a_large_session_that_is_refused_is_parked_and_the_rest_is_archived(memory: World) -> None:
    """What a later task would have taken waits for it, as if the first one had been done."""
    memory.memory.refuses = lambda name, rows: name == "events" and 3 in rows.column("index").to_pylist()
    memory.task_rows_max = 5
    memory.batch(0, 7)
    memory.batch(7, 7, terminal=13)
    memory.seal()
    memory.clock.advance(DELAY)
    memory.work()
    memory.clock.advance(MAX_DELAY + 1)  # With a gap it is no longer complete.
    memory.work()

    assert list(range(7, 14)) == memory.indexes()
    assert ("sparse", 13, [{"first": 0, "last": 6}]) == tuple(
        memory.part()[key] for key in ("state", "terminal", "gaps")
    )
    (parked,) = (memory.data / "parked").glob("*.jsonl")
    assert [0] == [msgspec.json.decode(line)["first"] for line in parked.read_bytes().splitlines()]
    assert [] == memory.segments()


def test_report_that_waits_is_remembered_however_long_it_does(memory: World) -> None:
    """While the store is away for weeks: were it forgotten, what comes again would be no repetition."""
    memory.report(1)
    memory.seal()
    archivist = memory.archivist()
    memory.memory.failures = [ArchiveUnusable("memory", OSError("away"))]
    archivist.round()
    for _ in range(3):
        memory.clock.advance(10 * 86_400)
        memory.memory.failures = [ArchiveUnusable("memory", OSError("away"))]
        archivist.round()
    memory.report(1)
    memory.seal()
    memory.memory.failures = [ArchiveUnusable("memory", OSError("away"))]
    archivist.round()
    memory.memory.failures = []
    memory.clock.advance(limits.archive_retry_seconds_max)
    memory.work(archivist)

    assert 1 == len(memory.rows("reports"))
    assert 1 == memory.counts()["duplicates"]


def test_coordinator_forgets_of_an_erased_stream_what_waits_and_what_is_known(memory: World) -> None:
    """A report, a session: nothing is left of it to be archived."""
    memory.report(1)
    memory.batch(0, 2)
    memory.seal()
    memory.archivist(batch_seconds=BATCH_SECONDS).round()
    coordinator = memory.coordinator()

    gone = [coordinator.erase(stream) for stream in (format(1, "032x"), SESSION, format(2, "032x"))]

    assert [2, 2, 0] == gone
    assert coordinator.counts().oldest_waiting is None


def die(world: World) -> int:
    """Let archivists work and die until one does not; how many died."""
    for deaths in range(100):
        try:
            world.work()
        except Killed:
            continue
        return deaths
    raise AssertionError("they die for ever")


def test_task_with_which_archivists_die_is_split_until_the_rest_is_archived(memory: World) -> None:
    """As by want of memory, or a fault of a library: what does it alone waits behind all others, and is tried again."""

    def dies(name: str, rows: pa.Table) -> bool:
        if name == "reports" and format(3, "032x") in rows.column("id").to_pylist():
            raise Killed
        return False

    memory.memory.refuses = dies
    for number in range(6):
        memory.report(number)
    memory.seal()
    deaths = die(memory)
    memory.report(7)
    memory.seal()
    more = die(memory)
    memory.clock.advance(limits.archive_retry_seconds_max)
    again = die(memory)

    assert (3 * limits.task_deaths_max, 0, 1) == (deaths, more, again)
    assert [0, 1, 2, 4, 5, 7] == [int(row["id"], 16) for row in memory.rows("reports")]
    assert not (memory.data / "parked").exists()
    assert 1 == len(memory.segments())
    memory.memory.refuses = lambda name, rows: False
    memory.clock.advance(limits.archive_retry_seconds_max)
    memory.work()
    assert [0, 1, 2, 3, 4, 5, 7] == [int(row["id"], 16) for row in memory.rows("reports")]
    assert [] == memory.segments()


def test_session_with_which_archivists_die_waits_behind_others(memory: World) -> None:
    """Its part stays as it was."""
    deadly = "0d" * 16

    def dies(name: str, rows: pa.Table) -> bool:
        if deadly in rows.column("session").to_pylist():
            raise Killed
        return False

    memory.memory.refuses = dies
    for session in (SESSION, deadly):
        memory.batch(0, 2, terminal=1, session=session)
    memory.seal()
    memory.clock.advance(DELAY)
    deaths = die(memory)
    memory.memory.refuses = lambda name, rows: False
    memory.clock.advance(limits.archive_retry_seconds_max)
    memory.work()

    assert 2 * limits.task_deaths_max == deaths
    assert {1} == set(memory.events().values())
    assert 4 == len(memory.events())
    assert [] == memory.segments()


@pytest.mark.parametrize(
    ("point", "events"), [("between_tables", 2), ("before_finish", 2), ("before_finish", 0)], ids=str
)
def test_task_that_is_written_is_finished_however_often_archivists_died(
    world: World, point: FaultPoint, events: int
) -> None:
    """It cannot be split any more, nor need it; one of lost events alone has written its index and nothing else."""
    world.batch(0, events, lost=2 - events, terminal=1)
    world.batch(0, events, lost=2 - events, terminal=1, session="0d" * 16)
    world.seal()
    world.clock.advance(DELAY)
    world.disk.kill_at(point)
    for _ in range(limits.task_deaths_max + 1):
        with pytest.raises(Killed):
            world.archivist().round()
    world.disk.kill_at(None)
    world.work()

    assert 2 * events == sum(world.events().values()) == len(world.events())
    assert [1, 1] == [row["part"] for row in world.rows("sessions")]
    assert 1 == len(world.tables().files("sessions"))
    assert [] == world.segments()


def test_report_that_was_parked_is_tried_again_when_it_comes_again(memory: World) -> None:
    """It is not in the archive, so it is no repetition; whatever refused it may have been mended."""
    memory.memory.refuses = lambda name, rows: True
    memory.report(3)
    memory.seal()
    archivist = memory.archivist()
    archivist.round()
    assert [] == memory.rows("reports")

    memory.memory.refuses = lambda name, rows: False
    memory.report(3)
    memory.seal()
    archivist.round()

    assert [3] == [int(row["id"], 16) for row in memory.rows("reports")]
    assert [] == memory.segments()


def test_store_that_is_away_for_an_hour_parks_nothing(memory: World) -> None:
    """Trouble of the store is tried again, later each time, and loses nothing."""
    memory.report(1)
    memory.seal()
    archivist = memory.archivist()
    until = memory.clock.now() + datetime.timedelta(hours=1)
    tries = 0
    while memory.clock.now() < until:
        memory.memory.failures = [ArchiveUnusable("memory", OSError("away"))]
        tries += archivist.round().failed
        memory.clock.advance(60)
    memory.memory.failures = []
    memory.clock.advance(limits.archive_retry_seconds_max)

    assert 1 == archivist.round().archived
    assert 4 <= tries <= 12
    assert not (memory.data / "parked").exists()


def test_damaged_segment_stays_and_the_others_are_archived(world: World) -> None:
    """Nothing of a damaged one is taken for what was stored."""
    world.report(1)
    damaged = world.data / "segments" / world.seal()
    world.report(2)
    world.seal()
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-3] + b"???")

    done = world.archivist().round()

    assert (1, 1) == (done.registered, done.removed)
    assert [damaged.name] == world.segments()
    damaged.write_bytes(whole)


def test_lost_coordinator_is_made_anew_and_knows_what_is_archived(world: World) -> None:
    """Removed while nothing runs: a repetition is a duplicate, a supplement a supplement, numbers go on."""
    world.batch(2, 2, terminal=20)
    world.report(1)
    world.seal()
    world.clock.advance(MAX_DELAY + 1)
    world.archivist().round()
    world.lose_coordinator()

    world.batch(0, 4)
    world.report(1, config="again")
    world.seal()
    archivist = world.archivist()
    world.clock.advance(MAX_DELAY + 1)
    archivist.round()

    assert [0, 1, 2, 3] == world.indexes()
    assert ["3"] == [row["config"] for row in world.rows("reports")]
    assert (2, 20) == (world.part()["part"], world.part()["told_terminal"])
    assert [1, 2] == sorted({row["part"] for row in world.rows("sessions")})


def test_coordinator_of_an_older_day_is_made_anew(world: World) -> None:
    """One that was restored from a backup gives out numbers that the tables have: it is not believed."""
    world.report(1)
    world.seal()
    world.archivist().round()
    world.close()
    world.database.copy()
    world.report(2)
    world.seal()
    world.archivist().round()
    world.close()
    world.database.put_back()

    world.report(2)
    world.report(3)
    world.seal()
    world.archivist().round()

    assert [1, 2, 3] == [int(row["id"], 16) for row in world.rows("reports")]


def test_two_archivists_share_the_work(world: World) -> None:
    """Who finds a lease taken does something else, or nothing."""
    world.report(1)
    world.seal()
    one, other = world.archivist(), world.archivist()
    assert one._coordinator.hold("scan", "somebody")

    assert (0, True) == (one.round().registered, one.round().busy)
    one._coordinator.let_go("scan", "somebody")
    assert 1 == other.round().archived
    assert one.round().idle


def test_coordinator_is_not_made_anew_while_another_archivist_works(memory: World) -> None:
    """What it forgot the other one may just be writing."""
    memory.report(1)
    memory.seal()
    memory.archivist().round()
    memory.lose_coordinator()
    assert memory.coordinator().hold("lane-0", "somebody")

    with pytest.raises(LeaseLost):
        memory.archivist()


def test_reader_tells_of_a_stream_what_is_archived(world: World) -> None:
    """Events, gaps and lost ranges, as the segments told them."""
    if isinstance(world.tables(), MemoryTables):
        pytest.skip("only tables of files are read by a dataset")
    world.batch(2, 2, lost=1, terminal=9)
    world.seal()
    world.clock.advance(MAX_DELAY + 1)
    world.archivist().round()
    told = Told()

    ArchiveReader(world.tables()).tell(SESSION, told)

    event = {"name": "export", "at": "2026-11-24T10:00:00.123Z", "fields": {"format": "pdf", "pages": 3}}
    expected = [{"gap": [0, 1]}, {"lost": [2, 2]}, {"index": 3, **event}, {"index": 4, **event}]
    assert expected == told.entries()


def test_nothing_is_known_of_a_stream_that_is_older_than_the_horizon(memory: World) -> None:
    """The coordinator's size follows from the horizon, not from history."""
    memory.report(1)
    memory.batch(0, 1, terminal=0)
    memory.seal()
    archivist = memory.archivist()
    memory.clock.advance(DELAY)
    archivist.round()
    assert 1 == memory.counts()["complete"]

    memory.clock.advance(limits.remembered_days * 86_400 + 1)
    archivist.round()

    assert 0 == memory.counts()["complete"]
    assert {} == memory.coordinator().segments()


@pytest.mark.parametrize("when", ["before it is due", "when a task has begun", "while another has it in hand"])
def test_segment_that_is_lost_and_repaired_costs_only_what_cannot_be_read(world: World, when: str) -> None:
    """What a repair has made of a registered segment is no repetition of what was lost."""
    world.batch(0, 3, terminal=2)
    world.report(1)
    world.report(2)
    lines = list(world.lines)
    lost = world.data / "segments" / world.seal()
    archivist = world.archivist(batch_seconds=0.0 if when != "before it is due" else BATCH_SECONDS)
    if when != "before it is due":
        world.clock.advance(DELAY)
        world.disk.kill_at("before_table_commit")
        with pytest.raises(Killed):
            archivist.round()
        world.disk.kill_at(None)
        world.clock.advance(limits.lease_seconds + 1)
    else:
        archivist.round()
    damaged = lost.read_bytes()[:-3] + b"???"
    if when == "while another has it in hand":
        lost.write_bytes(damaged)
        world.archivist().round()
        assert [lost.name] == world.segments()
    lost.unlink()
    lost.with_name(lost.name + ".manifest.json").unlink()
    world.lines = lines[:2]  # The last one cannot be read.
    world.seal()

    world.clock.advance(MAX_DELAY)
    for _ in range(3):
        archivist = world.archivist()
        archivist.round()

    assert [0, 1, 2] == world.indexes()
    assert [1] == [int(row["id"], 16) for row in world.rows("reports")]
    assert [] == world.segments()
    assert archivist.round().idle
    assert not list((world.data / "parked").glob("*"))
    world.report(2)
    world.seal()
    archivist.round()
    assert [1, 2] == [int(row["id"], 16) for row in world.rows("reports")]


def test_segment_that_rots_where_it_lies_holds_up_no_other(world: World) -> None:
    """What shared its task is archived, and it stays for a repair."""
    world.report(1)
    rotten = world.data / "segments" / world.seal()
    world.report(2)
    world.seal()
    archivist = world.archivist(batch_seconds=BATCH_SECONDS)
    archivist.round()
    whole = rotten.read_bytes()
    rotten.write_bytes(whole[:-3] + b"???")

    world.clock.advance(BATCH_SECONDS)
    for _ in range(3):
        archivist.round()
        world.clock.advance(BATCH_SECONDS)

    assert [2] == [int(row["id"], 16) for row in world.rows("reports")]
    assert [rotten.name] == world.segments()
    rotten.write_bytes(whole)


def test_batch_that_was_lost_with_its_segment_is_new_when_it_comes_again(world: World) -> None:
    """Of a session in several segments only what lay in the lost one is forgotten: its events, lost range and end."""
    world.batch(0, 2)
    world.seal()
    world.batch(2, 2, lost=1, terminal=4)
    lost = world.data / "segments" / world.seal()
    archivist = world.archivist()
    archivist.round()
    for path in (lost, lost.with_name(lost.name + ".manifest.json")):
        path.unlink()
    world.clock.advance(MAX_DELAY)
    archivist.round()
    assert ([0, 1], "sparse", None) == (world.indexes(), world.part()["state"], world.part()["told_terminal"])

    world.batch(2, 2, lost=1, terminal=4)
    world.seal()
    world.clock.advance(DELAY)
    archivist.round()

    assert ([0, 1, 3, 4], "complete", 4) == (world.indexes(), world.part()["state"], world.part()["terminal"])


def test_task_that_wrote_its_events_is_finished_without_its_segment(world: World) -> None:
    """What is in the archive is not read again: its segment may be damaged by then."""
    world.batch(0, 3, terminal=2)
    damaged = world.data / "segments" / world.seal()
    world.clock.advance(DELAY)
    world.disk.kill_at("between_tables")
    with pytest.raises(Killed):
        world.archivist().round()
    world.disk.kill_at(None)
    world.clock.advance(limits.lease_seconds + 1)
    damaged.write_bytes(b"rot")

    assert 1 == world.archivist().round().archived
    assert [0, 1, 2] == world.indexes()
    assert "complete" == world.part()["state"]


def test_round_ends_when_trouble_cannot_be_kept(memory: World) -> None:
    """With a disk that is full the same task would else be tried again at once, for ever."""
    memory.report(1)
    memory.seal()
    archivist = memory.archivist()
    archivist._coordinator.try_later = refuse  # type: ignore[method-assign]  # A database on the same full disk.
    memory.memory.failures = [ArchiveUnusable("memory", OSError("full"))] * 3

    with pytest.raises(CoordinatorUnusable):
        archivist.round()
    assert 2 == len(memory.memory.failures)


def refuse(*_: Any) -> None:
    raise CoordinatorUnusable("sqlite", OSError("full"))
