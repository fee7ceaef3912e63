"""The tables as DuckDB has them: views that SQL asks.

Takes   the tables, and a statement.
Gives   its rows; the views `reports`, `counters`, `stacks`, `events` and `sessions`.
Never   writes, downloads an extension, or looks into a file that the table's own log does not name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from ..errors import QueryRefused
from .columns import PARTITION, TABLES, TableName
from .tables import Tables

# What only reads. CREATE makes something in memory, and is a part of what DuckDB makes of PIVOT.
_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.CREATE)
_BATCH_ROWS = 10_000

_COUNTS = """
CREATE VIEW {view} AS
SELECT app, day, id, program.program, program.version, program.python, program.os, program.arch, {columns}
FROM (SELECT app, day, id, unnest(programs) AS program FROM reports), unnest(map_entries(program.{map})) AS _(entry)
"""
_COUNTERS = _COUNTS.format(
    view="counters",
    map="counters",
    # Without a bucket there is no second part, and an empty bucket is none.
    columns="""entry.key AS name, split_part(entry.key, ':', 1) AS counter,
    nullif(split_part(entry.key, ':', 2), '') AS bucket, entry.value AS value""",
)
_STACKS = _COUNTS.format(
    view="stacks",
    map="stacks",
    columns="""split_part(entry.key, chr(10), 1) AS name, string_split(entry.key, chr(10))[2:] AS frames,
    entry.value AS value""",
)
# Each task has written a row: the last one tells what the archive has.
_LAST_PART = "QUALIFY row_number() OVER (PARTITION BY app, session ORDER BY part DESC) = 1"


class Answer(NamedTuple):
    """What a statement gives: its columns, and batches of rows, each a column a list."""

    columns: list[str]
    batches: Iterator[list[list[Any]]]


class Views:
    """One connection to a database in memory."""

    def __init__(self, tables: Tables | None, *, spill: str) -> None:
        """The views are of the tables as they are now, empty without any; `spill` is a folder for what memory lacks.

        Raises:
            ArchiveUnusable: the store refuses.
        """
        self._connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET temp_directory = {_quoted(spill)}")
        paths = []
        # The index first: of what it tells, the rows were written before it.
        for name in ("sessions", "events", "reports"):
            paths += self._add(name, tables)
        self._connection.execute(_COUNTERS)
        self._connection.execute(_STACKS)
        # A statement sees the files of the views, and nothing else on this machine or elsewhere.
        self._connection.execute(f"SET allowed_paths = {_listed(paths)}")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def close(self) -> None:
        """Give the memory back."""
        self._connection.close()

    def ask(self, sql: str) -> Answer:
        """What a statement gives; of several, what the last one gives. The next one ends the answer before.

        Raises:
            QueryRefused: it is no SQL, or does more than read. What fails later raises it too.
        """
        try:
            statements = self._connection.extract_statements(sql)
            if not statements or any(statement.type not in _READING for statement in statements):
                raise QueryRefused("only what reads is asked: SELECT, FROM, WITH, DESCRIBE, SUMMARIZE, SHOW, PIVOT")
            reader = self._connection.execute(sql).to_arrow_reader(_BATCH_ROWS)
        except duckdb.Error as failure:
            raise QueryRefused(str(failure)) from failure
        return Answer(reader.schema.names, _batches(reader))

    def _add(self, name: TableName, tables: Tables | None) -> list[str]:
        """Make the view of a table; the local files that it reads."""
        schema, paths = TABLES[name].schema, list[str]()
        columns = ", ".join(f'"{column}"' for column in schema.names)
        source, last = f"_{name}", _LAST_PART if name == "sessions" else ""
        files = [] if tables is None else tables.files(name)
        if tables is None or not files:
            self._connection.register(source, schema.empty_table())
        elif "://" in tables.store.address:
            self._connection.register(source, tables.dataset(name))
        else:
            # DuckDB's own reader is several times quicker than a dataset of Arrow's, above all with maps.
            paths = [f"{tables.store.address}/{name}/{file.path}" for file in files]
            partition = f"hive_partitioning = true, hive_types = {{'{PARTITION}': DATE}}"
            source = f"read_parquet({_listed(paths)}, {partition})"
        self._connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM {source} {last}")  # noqa: S608  Ours.
        return paths


def _batches(reader: pa.RecordBatchReader) -> Iterator[list[list[Any]]]:
    try:
        for batch in reader:
            yield [[_told(value, column.type) for value in column.to_pylist()] for column in batch.columns]
    except (duckdb.Error, OSError) as failure:  # Arrow hands on what DuckDB says in the middle of an answer.
        raise QueryRefused(str(failure)) from failure


def _told(value: Any, kind: pa.DataType) -> Any:
    """A value with its maps as dicts: Arrow has them as lists of pairs."""
    if value is None or not pa.types.is_nested(kind):
        return value
    if pa.types.is_map(kind):
        return {key: _told(item, kind.item_type) for key, item in value}
    if pa.types.is_struct(kind):
        return {field.name: _told(value[field.name], field.type) for field in kind}
    return [_told(item, kind.value_type) for item in value]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _listed(texts: list[str]) -> str:
    return "[" + ", ".join(map(_quoted, texts)) + "]"
