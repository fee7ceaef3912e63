from __future__ import annotations

import inspect
import re

from tallypost_schema import limits, names


def bounds() -> dict[str, int]:
    return {key: value for key, value in vars(limits).items() if isinstance(value, int) and not key.startswith("_")}


def test_limits_each_is_a_positive_whole_number() -> None:
    """A bound is never zero, and never a float that compares in surprising ways."""
    values = bounds().values()

    assert [] == [value for value in values if type(value) is not int or value < 1]


def test_limits_each_has_its_reason_above_it() -> None:
    """A bound follows a comment, its own or that of the bounds it stands with."""
    paragraphs = inspect.getsource(limits).split("\n\n")

    without = [p for p in paragraphs if re.search(r"^[a-z_]+ = ", p, re.MULTILINE) and not p.startswith("#")]

    assert [] == without


def test_limits_name_ends_with_its_unit_or_qualifier() -> None:
    """The qualifier stands last, so that bounds of one thing sort together."""
    odd = [name for name in bounds() if not name.endswith("_max")]

    assert ["horizon_days"] == odd


def test_limits_relations_between_them_hold() -> None:
    """What must fit into something else does."""
    assert limits.wire_bytes_max < limits.decoded_bytes_max
    assert limits.decoded_bytes_max <= limits.zstd_window_bytes_max
    assert limits.name_characters_max < limits.stack_bytes_max < limits.wire_bytes_max
    assert limits.ahead_days_max < limits.horizon_days
    assert limits.nesting_max < limits.containers_max
    assert limits.count_max == int(float(limits.count_max))
    assert limits.count_max + 2 != int(float(limits.count_max + 2))


def test_limits_containers_let_every_batch_of_events_pass() -> None:
    """The shortest event has two objects; as many as fit into a document's bytes are within the bound."""
    shortest = b'{"name":"a","at":"2026-11-24T10:00:00Z","fields":{}},'

    most = 2 * (limits.decoded_bytes_max // len(shortest))

    assert most < limits.containers_max


def test_limits_stack_bytes_hold_the_frames_that_may_be_declared() -> None:
    """A stack of the most frames that may be declared, each of ordinary length, is within the grammar."""
    frame = "\nmytool.commands.export:Exporter.write_all_pages:+123"

    assert names.is_stack("crash/KeyError" + frame * limits.stack_frames_max)
