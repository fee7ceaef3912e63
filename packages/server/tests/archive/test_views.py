"""SQL over the archive: what the views hold, and that a statement can only read."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tallypost_schema import documents
from tallypost_server.archive.columns import TABLES, TableName
from tallypost_server.archive.rows import EventRows, ReportRows, by_partition, session_rows
from tallypost_server.archive.store import FolderStore
from tallypost_server.archive.tables import Tables
from tallypost_server.archive.views import Views
from tallypost_server.errors import QueryRefused
from tallypost_server.segments.format import decode_line, line_of_batch, line_of_report
from tallypost_server.streams.session import Session, part_of
from tallypost_server.streams.task import Mark, Task
from tallypost_server.testing import FakeClock, FaultyDisk

AT = "2026-11-24T10:00:00.123Z"
FIRST_SEEN = 1_795_514_400_123_000


class Archive:
    """Tables that tasks write into, one after the other."""

    def __init__(self, folder: Path, disk: FaultyDisk, clock: FakeClock) -> None:
        self.folder, self.number = folder, 0
        self.tables = Tables(FolderStore(folder, disk=disk), clock=clock, point=disk.point)

    def write(self, name: TableName, rows: Any) -> None:
        self.number += 1
        task = format(self.number, "032x")
        self.tables.write(name, 0, Mark.of(self.number, task), task, by_partition(rows), lambda: None)

    def add_report(self, body: bytes) -> None:
        rows = ReportRows()
        line = line_of_report(documents.decode_report(body), received=AT, sha256="00" * 32)
        rows.add(decode_line(line))
        self.write("reports", rows.table())

    def add_batch(self, body: bytes) -> None:
        rows, batch = EventRows(), documents.decode_batch(body)
        wanted = ((batch.first, batch.last),)
        rows.add(decode_line(line_of_batch(batch, received=AT, sha256="00" * 32)), FIRST_SEEN, wanted)
        self.write("events", rows.table())

    def add_part(self, session: str, number: int, last: int) -> None:
        known = Session("example.org/mytool", session, FIRST_SEEN, FIRST_SEEN, part=number - 1)
        task = Task(format(number, "032x"), "events", 0, number, 1, 0)
        parts = {(known.app, session): part_of(known, ((0, last),))}
        self.write("sessions", session_rows(task.lane, task.number, parts, lambda day: f"day={day}/x.parquet"))


@pytest.fixture
def archive(tmp_path: Path, disk: FaultyDisk, clock: FakeClock) -> Archive:
    return Archive(tmp_path / "the maker's archive", disk, clock)


@pytest.fixture
def ask(archive: Archive, tmp_path: Path) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """The rows that a statement gives, of the archive as it is then."""
    opened: list[Views] = []
    spill = tmp_path / "spill"  # DuckDB allows itself all that is in there.
    spill.mkdir()

    def rows(sql: str) -> list[tuple[Any, ...]]:
        opened.append(Views(archive.tables, spill=str(spill)))
        return [row for columns in opened[-1].ask(sql).batches for row in zip(*columns, strict=True)]

    yield rows
    for views in opened:
        views.close()


def test_views_of_an_archive_that_is_not_there_are_empty_and_have_all_columns(tmp_path: Path) -> None:
    """A query that is right on a full archive is right on an empty one, and makes no tables."""
    views = Views(None, spill=str(tmp_path))

    for name, table in TABLES.items():
        answer = views.ask(f"FROM {name}")
        assert table.schema.names == answer.columns
        assert [] == [batch for batch in answer.batches if batch[0]]
    assert "bucket" in views.ask("FROM counters").columns
    assert "frames" in views.ask("FROM stacks").columns
    views.close()


def test_counters_are_a_row_a_report_program_and_counter(
    archive: Archive, ask: Callable[[str], list[tuple[Any, ...]]], report: Callable[..., bytes]
) -> None:
    """The whole name stands beside its counter and its bucket, which a plain counter has not."""
    archive.add_report(report(counters={"cmd/export": 12, "cmd/export:pdf": 3}, stacks={"crash/KeyError\na:b:+1": 2}))
    archive.add_report(report(id="0e" * 16, day="2026-11-23", counters={}))

    assert [
        ("example.org/mytool", datetime.date(2026, 11, 24), "mytool", "1.2.3", "cmd/export", "cmd/export", None, 12),
        (
            "example.org/mytool",
            datetime.date(2026, 11, 24),
            "mytool",
            "1.2.3",
            "cmd/export:pdf",
            "cmd/export",
            "pdf",
            3,
        ),
    ] == ask("SELECT app, day, program, version, name, counter, bucket, value FROM counters ORDER BY name")
    assert [("crash/KeyError", ["a:b:+1"], 2)] == ask("SELECT name, frames, value FROM stacks")
    assert [(2, 1)] == ask("SELECT count(*), count(*) FILTER (day = DATE '2026-11-23') FROM reports")
    assert [({"cmd/export": 12, "cmd/export:pdf": 3},)] == ask(
        "SELECT programs[1].counters FROM reports WHERE day = '2026-11-24'"
    )


def test_events_have_their_fields_as_maps(
    archive: Archive, ask: Callable[[str], list[tuple[Any, ...]]], batch: Callable[..., bytes]
) -> None:
    """A field is asked for by its name, in the map of its type."""
    archive.add_batch(batch(2))

    assert [(0, "export", "pdf", 3.0, {}), (1, "export", "pdf", 3.0, {})] == ask(
        "SELECT index, name, words['format'], numbers['pages'], flags FROM events ORDER BY index"
    )
    assert [(datetime.datetime(2026, 11, 24, 10, 0, 0, 123000, tzinfo=datetime.timezone.utc),)] == ask(
        'SELECT DISTINCT "at" FROM events'
    )


def test_sessions_are_each_the_row_of_the_last_part(
    archive: Archive, ask: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    """What an earlier task told of a session is told no more."""
    archive.add_part("ab" * 16, 1, 3)
    archive.add_part("cd" * 16, 1, 0)
    archive.add_part("ab" * 16, 2, 5)

    assert [("ab" * 16, 2, [{"first": 0, "last": 5}]), ("cd" * 16, 1, [{"first": 0, "last": 0}])] == ask(
        "SELECT session, part, content FROM sessions ORDER BY session"
    )


def test_file_that_the_log_does_not_name_is_not_read(
    archive: Archive, ask: Callable[[str], list[tuple[Any, ...]]], batch: Callable[..., bytes]
) -> None:
    """What a killed archivist left in the folder is in no table."""
    archive.add_batch(batch(2))
    (file,) = archive.tables.files("events")
    left = archive.folder / "events" / "day=2026-11-24" / "left.parquet"
    left.write_bytes((archive.folder / "events" / file.path).read_bytes())

    assert [(2,)] == ask("SELECT count(*) FROM events")


class Elsewhere(FolderStore):
    """A store that is told by an address, not by a path."""

    @property
    def address(self) -> str:
        return f"file://{super().address}"


def test_archive_that_is_no_folder_is_asked_through_arrow(
    tmp_path: Path, disk: FaultyDisk, clock: FakeClock, report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """An object store's tables have the same views, and nothing else is read there either."""
    archive = Archive(tmp_path / "archive", disk, clock)
    archive.add_report(report(counters={"cmd/export:pdf": 3}))
    archive.add_batch(batch(2))
    views = Views(Tables(Elsewhere(archive.folder, disk=disk), clock=clock, point=disk.point), spill=str(tmp_path))

    counted = list(views.ask("SELECT day, bucket, value FROM counters WHERE day = DATE '2026-11-24'").batches)
    happened = list(views.ask("SELECT words['format'] AS format, count(*) FROM events GROUP BY ALL").batches)

    assert [[[datetime.date(2026, 11, 24)], ["pdf"], [3]]] == counted
    assert [[["pdf"], [2]]] == happened
    assert ["app"] == views.ask("SELECT app FROM sessions").columns
    views.close()


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT (",
        "SELECT nothing FROM reports",
        "COPY (SELECT 1) TO '{file}'",
        "SELECT 1; COPY (SELECT 1) TO '{file}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}'",
        "EXPORT DATABASE '{folder}/x'",
        "ATTACH '{file}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "CREATE PERSISTENT SECRET s (TYPE http)",
        "DROP VIEW reports",
        "FROM read_text('{folder}/reports/_delta_log/00000000000000000000.json')",
        "FROM enable_profiling(format = 'json', save_location = '{file}')",
    ],
)
def test_statement_that_does_more_than_read_is_refused(
    archive: Archive, ask: Callable[[str], list[tuple[Any, ...]]], report: Callable[..., bytes], sql: str
) -> None:
    """Whatever is asked, the archive's folder holds afterwards what it held before."""
    archive.add_report(report())
    (file,) = archive.tables.files("reports")
    folder = archive.folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    given = sql.format(
        file=str(folder / "reports" / file.path).replace("'", "''"), folder=str(folder).replace("'", "''")
    )

    with pytest.raises(QueryRefused):
        ask(given)

    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "sql",
    [
        "FROM reports",
        "WITH a AS (SELECT 1 AS one) FROM a",
        "DESCRIBE counters",
        "SUMMARIZE counters",
        "SHOW TABLES",
        "PIVOT counters ON name USING sum(value) GROUP BY day",
        "CREATE TABLE mine AS FROM counters; SELECT count(*) FROM mine;",
    ],
)
def test_statement_that_reads_is_answered(
    archive: Archive, ask: Callable[[str], list[tuple[Any, ...]]], report: Callable[..., bytes], sql: str
) -> None:
    """DuckDB's own ways to ask are there, tables in memory included."""
    archive.add_report(report())

    assert ask(sql)


def test_trouble_in_the_middle_of_an_answer_is_told(ask: Callable[[str], list[tuple[Any, ...]]]) -> None:
    """What was given before stands; the error says what is wrong."""
    with pytest.raises(QueryRefused):  # In DuckDB's words, or of a thread of its that was interrupted for it.
        ask("SELECT CASE WHEN range < 200000 THEN range ELSE error('never') END FROM range(300000)")
