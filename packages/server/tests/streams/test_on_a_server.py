"""The coordinator on PostgreSQL, where several are at it at the same time."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tallypost_server import archiving, limits
from tallypost_server.clock import SystemClock, micros
from tallypost_server.errors import CoordinatorForeign, CoordinatorNewer, CoordinatorUnusable, ExtraMissing
from tallypost_server.streams import queries
from tallypost_server.streams.coordinator import Coordinator, Restored
from tallypost_server.streams.database import engine_of
from tallypost_server.streams.migrations import migrate
from tallypost_server.streams.task import Entry

from ..databases import Postgres, Schema

APP = "example.org/mytool"
SESSION = "ab" * 16
AT = micros(datetime.datetime(2026, 11, 24, 10, tzinfo=datetime.timezone.utc))


def batch(first: int, last: int, *, session: str = SESSION, terminal: int | None = None, line: int = 0) -> Entry:
    return Entry("events", APP, session, AT + first, line, 100, first, last, 0, terminal)


@pytest.fixture
def schema(postgres: Postgres) -> Iterator[Schema]:
    made = postgres.schema()
    yield made
    made.drop()


@pytest.fixture
def engine(schema: Schema) -> Iterator[Callable[..., Engine]]:
    """Opens the database, by its own clock."""
    with contextlib.ExitStack() as stack:

        def made(**options: float) -> Engine:
            opened = engine_of(schema.place, SystemClock(), **options)
            stack.callback(opened.dispose)
            return opened

        yield made


def at_once(count: int, job: Callable[[int], Any]) -> list[Any]:
    """Do something in so many threads, which all begin at the same moment; what each gave."""
    barrier = threading.Barrier(count)
    given: list[Any] = [None] * count

    def do(number: int) -> None:
        barrier.wait(20)
        try:
            given[number] = job(number)
        except Exception as failure:
            given[number] = failure

    threads = [threading.Thread(target=do, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    return given


@pytest.mark.postgres
def test_coordinator_that_two_change_at_once_keeps_what_both_did(engine: Callable[..., Engine]) -> None:
    """One has read a session, another one puts something into it, the first one writes: nothing is lost."""
    slow, quick = engine(), engine()
    one, other = Coordinator(slow), Coordinator(quick)
    one.register("first", [batch(0, 1)])
    second = threading.Thread(target=other.register, args=("second", [batch(4, 5)]))

    @sa.event.listens_for(slow, "after_cursor_execute")
    def meanwhile(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT sessions") and second.ident is None:
            second.start()
            second.join(1)  # It waits for its turn; without, it is done by then.

    one.register("third", [batch(2, 3)])
    second.join()

    assert ((0, 5),) == one.known("", "~")[(APP, SESSION)].session.content


@pytest.mark.postgres
def test_coordinator_into_which_many_register_at_once_knows_all_of_it(engine: Callable[..., Engine]) -> None:
    """Whoever comes first, each index of the one session is known in the end, and nobody is refused."""
    coordinators = [Coordinator(engine()) for _ in range(4)]

    def register(number: int) -> None:
        for each in range(5):
            place = 4 * each + number
            coordinators[number].register(f"{place}", [batch(place, place, terminal=19 if place == 19 else None)])

    assert [None] * 4 == at_once(4, register)

    known = coordinators[0].known("", "~")[(APP, SESSION)].session
    assert (((0, 19),), True) == (known.content, known.complete)


@pytest.mark.postgres
def test_lease_that_many_want_at_once_is_one_of_theirs(engine: Callable[..., Engine]) -> None:
    """It is held by one until that lets go, and then by another."""
    coordinators = [Coordinator(engine()) for _ in range(6)]

    first = at_once(6, lambda number: coordinators[number].hold("scan", f"{number}"))
    coordinators[0].let_go("scan", f"{first.index(True)}")
    second = at_once(6, lambda number: coordinators[number].hold("scan", f"{number}"))

    assert (1, 5) == (first.count(True), first.count(False))
    assert (1, 5) == (second.count(True), second.count(False))


@pytest.mark.postgres
def test_task_that_many_want_at_once_is_given_out_once(engine: Callable[..., Engine]) -> None:
    """Who does not hold the lane gets none, and its number is one alone."""
    coordinators = [Coordinator(engine()) for _ in range(4)]
    coordinators[0].register("first", [Entry("report", APP, "0f" * 16, AT, 0, 100)])
    coordinators[0].gather(AT, delay=0, max_delay=0, new_id=lambda size: "ab" * size)

    def claim(number: int) -> Any:
        if coordinators[number].hold("lane-0", f"{number}"):
            return coordinators[number].claim(0, f"{number}", AT, batch_seconds=0)
        return None

    given = [task for task in at_once(4, claim) if task is not None]

    assert [("ab" * 16, 1)] == [(task.id, task.number) for task in given]


@pytest.mark.postgres
def test_coordinator_that_many_make_at_once_is_made_once(engine: Callable[..., Engine]) -> None:
    """Archivists that start together on an empty database find the same tables, with the same lanes."""
    engines = [engine() for _ in range(4)]

    made = at_once(4, lambda number: Coordinator(engines[number], lanes=number + 1))

    assert [made[0].lanes] * 4 == [each.lanes for each in made]


@pytest.mark.postgres
def test_one_that_sleeps_in_a_transaction_holds_nobody_up(engine: Callable[..., Engine]) -> None:
    """It is thrown out after a while, finds that when it wakes, and nothing that it wrote is there."""
    Coordinator(engine())
    sleeper = engine(wait_seconds=0.5)
    other = Coordinator(engine())

    def sleep() -> None:
        with sleeper.begin() as connection:
            queries.keep_fact(connection, "dream", "1")
            assert other.hold("scan", "other")
            queries.keep_fact(connection, "dream", "2")

    with pytest.raises(sa.exc.DBAPIError):
        sleep()

    with engine().begin() as connection:
        assert queries.fact(connection, "dream") is None


@pytest.mark.postgres
def test_one_that_waits_in_vain_for_its_turn_says_so(engine: Callable[..., Engine]) -> None:
    """Others that take too long are trouble that passes: it is tried again."""
    Coordinator(engine())
    waits = Coordinator(engine(wait_seconds=0.3))

    with engine().begin(), pytest.raises(CoordinatorUnusable, match="lock timeout"):
        waits.segments()
    assert {} == waits.segments()


@pytest.mark.postgres
def test_transactions_are_as_they_must_be_whatever_the_server_was_told(engine: Callable[..., Engine]) -> None:
    """They see what others have committed, and are durable."""
    with engine().begin() as connection:
        names = ("transaction_isolation", "synchronous_commit")
        told = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

    assert ["read committed", "on"] == told


@pytest.mark.postgres
def test_names_are_compared_byte_by_byte_whatever_the_database_speaks(engine: Callable[..., Engine]) -> None:
    """English sorts signs before digits; what goes by slices of names must not lose any."""
    coordinator = Coordinator(engine())
    names = ["0" * 32, "9" * 32, "f" * 32]
    coordinator.register("first", [batch(0, 0, session=name, line=line) for line, name in enumerate(names)])

    assert {(APP, name) for name in names} == set(coordinator.known("", "~"))
    assert {(APP, names[1])} == set(coordinator.known("8", "f"))


@pytest.mark.postgres
def test_erased_stream_leaves_nothing_in_the_tables_files(engine: Callable[..., Engine], postgres: Postgres) -> None:
    """Its rows, the index entries that lead to them, and what was there of them before."""
    coordinator = Coordinator(engine())
    names = [format(number, "032x") for number in range(300)]
    coordinator.register("first", [batch(0, 0, session=name, line=line) for line, name in enumerate(names)])
    postgres.run("CHECKPOINT")
    assert _files_with(postgres, names[7])

    coordinator.erase(names[7])
    coordinator.scrub()
    postgres.run("CHECKPOINT")

    assert [] == _files_with(postgres, names[7])
    assert _files_with(postgres, names[8])
    assert 299 == len(coordinator.known("", "~"))


def _files_with(postgres: Postgres, name: str) -> list[Path]:
    return [path for path in postgres.files.rglob("*") if path.is_file() and name.encode() in path.read_bytes()]


@pytest.mark.postgres
def test_coordinator_of_a_newer_version_is_not_touched(engine: Callable[..., Engine]) -> None:
    """An older program says so, and leaves it as it is."""
    with engine().begin() as connection:
        assert 5 == migrate(connection, lanes=5)
        assert 5 == migrate(connection, lanes=3)
        queries.keep_fact(connection, "version", "99")

    with pytest.raises(CoordinatorNewer):
        Coordinator(engine())
    with engine().begin() as connection:
        assert "99" == queries.fact(connection, "version")


@pytest.mark.postgres
def test_coordinator_of_a_server_has_more_lanes(schema: Schema, make_settings: Callable[..., Any]) -> None:
    """As many tasks may be worked on at once."""
    with archiving.coordinator(make_settings(coordinator=schema.place)) as opened:
        assert limits.postgresql_lanes == opened.lanes


@pytest.mark.postgres
def test_who_only_looks_makes_no_coordinator(schema: Schema, make_settings: Callable[..., Any]) -> None:
    """A wrong address in `status` or `verify` leaves nothing in somebody's database."""
    schema.lose()
    settings = make_settings(coordinator=schema.place)

    assert 0 == archiving.waiting(settings).streams["open"]
    assert [] == archiving.check_archive(settings).faults
    assert not archiving.is_settled(settings, "first")
    assert not archiving.has_coordinator(settings)
    with archiving.coordinator(settings):
        assert archiving.has_coordinator(settings)


@pytest.mark.postgres
def test_coordinator_is_one_data_folders(schema: Schema, data: Path, make_settings: Callable[..., Any]) -> None:
    """Who comes from another one is refused before it takes what it does not find for lost; made anew it stays so."""
    settings = make_settings(coordinator=schema.place)
    (data / "node").write_text("0a0a0a0a\n")
    with archiving.coordinator(settings) as opened:
        opened.register("first", [batch(0, 0)])
        opened.restore(Restored({}, [], []))
        opened.register("first", [batch(0, 0)])
    (data / "node").write_text("0b0b0b0b\n")

    with pytest.raises(CoordinatorForeign), archiving.coordinator(settings):
        pass

    (data / "node").write_text("0a0a0a0a\n")
    with archiving.coordinator(settings) as opened:
        assert {"first": False} == opened.segments()


@pytest.mark.parametrize("secret", [":hush@127.0.0.1:1/db", "@127.0.0.1:1/db?password=hush"])
def test_password_of_a_database_is_in_no_message(secret: str) -> None:
    """It can be in the address, and is not for logs."""
    with pytest.raises(CoordinatorUnusable) as raised:
        Coordinator(engine_of(f"postgresql+psycopg://tallypost{secret}", SystemClock()))

    assert "127.0.0.1" in str(raised.value)
    assert "hush" not in str(raised.value)


def test_coordinator_without_its_driver_says_what_to_install(
    make_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is an extra, as the archive is."""
    found = archiving.importlib.util.find_spec
    monkeypatch.setattr(archiving.importlib.util, "find_spec", lambda name: None if name == "psycopg" else found(name))

    with (
        pytest.raises(ExtraMissing, match=r"tallypost-server\[postgres\]"),
        archiving.coordinator(make_settings(coordinator="postgresql+psycopg://tallypost@/tallypost")),
    ):
        pass
