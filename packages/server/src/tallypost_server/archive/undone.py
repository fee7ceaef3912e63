"""What a power cut left of a table's log: entries and checkpoints that do not hold what they tell.

Takes   the objects of a table's log, and the last version that was told to be durable.
Gives   which of them are to be undone, with the reason for each.
Never   names what was told to be durable: if that is damaged, it is an error, and a person decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ArchiveDamaged
from .columns import TableName
from .store import ObjectStore

LOG = "_delta_log"
LAST_CHECKPOINT = "_last_checkpoint"
# Beside the log, not in it: the highest version that was told to be durable. Readers pass over such names.
SETTLED = "_settled"
# Our commits tell of how many actions they consist: a part that ends with a line would pass for a whole entry.
ACTIONS = "actions"


class Damage(NamedTuple):
    """An object of a log that is to be undone."""

    name: str
    reason: str


def version_of(entry: str) -> int:
    """The version that an entry of the log makes; -1 of what is no entry."""
    stem, _, ending = entry.partition(".")
    return int(stem) if ending == "json" and _is_number(stem) else -1


def checkpoint_of(entry: str) -> int:
    """The version of which this is a checkpoint, or a part of one; -1 of what is none."""
    stem, _, ending = entry.partition(".")
    whole = ending.startswith("checkpoint.") and ending.endswith("parquet") and _is_number(stem)
    return int(stem) if whole else -1


def settled_version(store: ObjectStore, table: TableName) -> int:
    """The highest version that was told to be durable; -1 if none was.

    Raises:
        ArchiveDamaged: it cannot be read.
    """
    try:
        return int(store.get(f"{table}/{SETTLED}"))
    except FileNotFoundError:
        return -1
    except ValueError as failure:
        raise ArchiveDamaged(table, f"{SETTLED} is no number") from failure


def damages(store: ObjectStore, table: TableName) -> list[Damage]:
    """What is to be undone of a table's log, in the order in which it is to be taken away.

    Raises:
        ArchiveDamaged: what was told to be durable is gone.
    """
    names = store.names(f"{table}/{LOG}")
    settled = settled_version(store, table)
    checkpoints: dict[int, bool] = {}
    found: list[Damage] = []
    for name in names:
        if (version := checkpoint_of(name)) >= 0:
            whole = _is_parquet(store.get(f"{table}/{LOG}/{name}"))
            checkpoints[version] = whole and checkpoints.get(version, True)
            if not whole:
                found.append(Damage(name, "it is torn"))
    base = max((version for version, whole in checkpoints.items() if whole), default=-1)
    if LAST_CHECKPOINT in names and not checkpoints.get(_named_in(store.get(f"{table}/{LOG}/{LAST_CHECKPOINT}"))):
        found.append(Damage(LAST_CHECKPOINT, "it is torn, or leads to no checkpoint that is whole"))
    entries = {version_of(name): name for name in names if version_of(name) >= 0}
    # A checkpoint is made of what is durable, and nothing goes before it is durable itself.
    durable = max([settled, *checkpoints])
    gone = [version for version in range(base + 1, durable + 1) if version not in entries]
    if gone:
        raise ArchiveDamaged(table, f"version {gone[0]} of its log is gone")
    bad = _first_bad(store, table, entries, max(base, settled) + 1)
    if bad is not None:
        first, reason = bad
        # The last first: a crash in between leaves the one that is bad, and the next start goes on.
        undone = sorted((version for version in entries if version >= first), reverse=True)
        reasons = {first: reason}
        found += [Damage(entries[version], reasons.get(version, f"it follows version {first}")) for version in undone]
    return found


def _first_bad(store: ObjectStore, table: TableName, entries: Mapping[int, str], first: int) -> tuple[int, str] | None:
    """The first version from there on that does not hold what it tells, and why."""
    last = max(entries, default=-1)
    torn = None
    actions: dict[int, list[dict[str, Any]]] = {}
    for version in range(first, last + 1):
        if version not in entries:
            torn = version, "it is missing"
            break
        read = _actions(store.get(f"{table}/{LOG}/{entries[version]}"), version)
        if read is None:
            torn = version, "it is empty or torn"
            break
        actions[version] = read
    # What a later version removes may be gone already.
    removed = {each["remove"]["path"]: version for version in actions for each in actions[version] if "remove" in each}
    for version, its in actions.items():
        for added in [each["add"] for each in its if "add" in each]:
            if removed.get(added["path"], -1) <= version and not _is_whole(store, table, added):
                return version, f"its file {added['path']} is missing, torn, or of another size"
    return torn


def _actions(data: bytes, version: int) -> list[dict[str, Any]] | None:
    """An entry's actions; None if it is not whole."""
    try:
        actions = [json.loads(line) for line in data.split(b"\n")]
    except ValueError:
        return None
    if not all(isinstance(action, dict) for action in actions):
        return None
    told = next((action["commitInfo"].get(ACTIONS) for action in actions if "commitInfo" in action), None)
    if told is not None and len(actions) != int(told):
        return None
    if version == 0 and not any("metaData" in action for action in actions):  # The library's own, which tells nothing.
        return None
    return actions


def _is_whole(store: ObjectStore, table: TableName, added: Mapping[str, Any]) -> bool:
    path = f"{table}/{added['path']}"
    try:
        return store.size(path) == added["size"] and _is_parquet(store.get(path))
    except FileNotFoundError:
        return False


def _is_parquet(data: bytes) -> bool:
    """Whether all of a file can be read."""
    try:
        pq.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError):
        return False
    return True


def _named_in(last_checkpoint: bytes) -> int:
    """The version that it leads to; -1 if it cannot be read."""
    try:
        return int(json.loads(last_checkpoint)["version"])
    except (ValueError, KeyError, TypeError):
        return -1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
