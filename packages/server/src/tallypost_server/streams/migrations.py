"""The schema's versions: a new database is made as it is now, an older one is brought here step by step.

Takes   a connection in a transaction.
Gives   the tables, and how many lanes there are.
Never   touches a database of a newer version.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import CoordinatorNewer
from . import queries as q
from . import schema
from . import work as w


def _reports_tell_their_entry_and_tasks_their_deaths(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE reports ADD COLUMN entry BIGINT",
        "UPDATE reports SET entry = (SELECT entries.id FROM entries WHERE entries.kind = 'report'"
        " AND entries.stream = reports.id AND entries.app = reports.app) WHERE NOT archived",
        "ALTER TABLE reports DROP COLUMN archived",
        "DROP INDEX entries_of_stream",
        "CREATE INDEX batches_of_stream ON entries (stream, app) WHERE kind = 'events'",
        "ALTER TABLE tasks ADD COLUMN deaths INTEGER DEFAULT 0 NOT NULL",
    ):
        connection.exec_driver_sql(statement)


# Each brings the schema from the version that it stands for to the next one.
STEPS: dict[int, Callable[[Connection], None]] = {1: _reports_tell_their_entry_and_tasks_their_deaths}


def migrate(connection: Connection, *, lanes: int) -> int:
    """Make or renew the tables; return how many lanes there are, which is set when they are made.

    Raises:
        CoordinatorNewer: a later version of this program made them.
    """
    if not sa.inspect(connection).has_table("facts"):
        schema.metadata.create_all(connection)
        q.keep_fact(connection, "version", str(schema.VERSION))
        q.keep_fact(connection, "lanes", str(lanes))
        for name in ("scan", *(f"lane-{lane}" for lane in range(lanes))):
            w.add_lease(connection, name)
        return lanes
    version = int(q.fact(connection, "version") or 0)
    if version > schema.VERSION:
        raise CoordinatorNewer(version, schema.VERSION)
    while version < schema.VERSION:
        STEPS[version](connection)
        version += 1
        q.keep_fact(connection, "version", str(version))
    return int(q.fact(connection, "lanes") or lanes)


def make_anew(connection: Connection, *, lanes: int) -> None:
    """Drop all that is known and make the tables again; they stay those of the same data folder."""
    node = q.fact(connection, "node")
    schema.metadata.drop_all(connection)
    migrate(connection, lanes=lanes)
    if node is not None:
        q.keep_fact(connection, "node", node)
