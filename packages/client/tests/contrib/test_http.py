from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tallypost import Telemetry, WrongUse
from tallypost.contrib.http import HttpCounters

Read = Callable[..., dict[str, int]]


@pytest.mark.parametrize(
    ("status", "raised", "bucket"),
    [(200, False, "2xx"), (404, False, "4xx"), (99, False, "other"), (None, False, "none"), (None, True, "5xx")],
)
def test_request_each_is_counted_by_class_of_status(
    status: int | None, raised: bool, bucket: str, telemetry: Telemetry, counted: Read
) -> None:
    """What raised before it was answered is answered 500 by the server."""
    HttpCounters(telemetry).count(seconds=0.5, method="GET", status=status, raised=raised)

    assert {"http/status": 1, f"http/status:{bucket}": 1} == counted("http/status")
    assert ({"http/exception": 1} if raised else {}) == counted("http/exception")


def test_request_with_a_method_of_a_strangers_making_is_counted_as_other(telemetry: Telemetry, counted: Read) -> None:
    """Any word may come as a method; only those that have a meaning are names."""
    counters = HttpCounters(telemetry)

    for method in ("POST", "post", "SECRET", None, []):
        counters.count(seconds=0.5, method=method, status=200)

    assert {"http/method": 5, "http/method:POST": 1, "http/method:other": 4} == counted("http/method")


def test_request_is_timed(telemetry: Telemetry, counted: Read) -> None:
    """In the buckets that were asked for."""
    counters = HttpCounters(telemetry, prefix="site", edges=(1.0, 2.0))

    counters.count(seconds=1.5, method="GET", status=200)

    assert {"site/seconds:<=2": 1} == counted("site/seconds")


def test_request_is_taken_by_the_first_that_counts_it_under_a_prefix(telemetry: Telemetry) -> None:
    """Until it is over; another prefix, or another application's telemetry, counts it too."""
    first, same, other = HttpCounters(telemetry), HttpCounters(telemetry), HttpCounters(telemetry, prefix="site")
    foreign: Any = HttpCounters(object())  # type: ignore[arg-type]  # Broken, and another one all the same.
    notes: dict[str, Any] = {}

    taken = [counters.takes(notes) for counters in (first, same, other, foreign)]
    for counters in (first, other, foreign):
        counters.leaves(notes)

    assert [True, False, True, True] == taken
    assert {} == notes


def test_broken_telemetry_raises_nothing(broken: Any) -> None:
    """The answer is on its way."""
    HttpCounters(broken).count(seconds=0.5, method="GET", status=200, route="/", raised=True)


def test_wrong_edges_raise_where_they_are_given(telemetry: Telemetry) -> None:
    """Edges are the author's own."""
    with pytest.raises(WrongUse):
        HttpCounters(telemetry, edges=())
