from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tallypost_schema.declaration import parse
from tallypost_server.errors import Refused
from tallypost_server.ingest.accept import Accepted, Kind, accept
from tallypost_server.ingest.applications import Declared

RECEIVED = datetime.datetime(2026, 11, 24, 10, 0, 1, tzinfo=datetime.timezone.utc)


@pytest.fixture
def take(data: Any) -> Callable[..., Accepted]:
    """Accepts a body for an application that is registered."""
    declared = Declared(parse((data / "applications" / "mytool.toml").read_text()))

    def find(application: str) -> Declared:
        if application != declared.application:
            raise Refused("unknown_application", application)
        return declared

    def call(body: bytes, kind: Kind = "report") -> Accepted:
        return accept(body, kind, find=find, received=RECEIVED)

    return call


def test_accept_of_a_declared_report_stores_it_whole(
    take: Callable[..., Accepted], report: Callable[..., bytes]
) -> None:
    """Nothing is dropped of what is declared, and the hash is that of the bytes as posted."""
    body = report(counters={"cmd/export": 1, "cmd/export:pdf": 1}, stacks={"crash/KeyError\na:b:+1": 2})

    accepted = take(body + b" ")

    line = json.loads(accepted.line)
    assert json.loads(body) == line["doc"]
    assert "2026-11-24T10:00:01.000Z" == line["received"]
    assert hashlib.sha256(body + b" ").hexdigest() == line["sha256"] == accepted.sha256
    assert {} == accepted.dropped


def test_accept_of_a_report_drops_and_counts_what_is_not_declared(
    take: Callable[..., Accepted], report: Callable[..., bytes]
) -> None:
    """Names that the declaration lacks are dropped, the library's own are kept, unknown keys go."""
    body = report(
        counters={"cmd/export": 1, "cmd/export:doc": 2, "secret": 3, "tallypost/dropped-events": 4},
        stacks={"crash/KeyError": 1, "crash/Other\na:b:+1": 2},
        extra=1,
    )

    accepted = take(body)

    (program,) = json.loads(accepted.line)["doc"]["programs"]
    assert {"cmd/export": 1, "tallypost/dropped-events": 4} == program["counters"]
    assert {"crash/KeyError": 1} == program["stacks"]
    assert {"counter": 2, "stack": 1, "key": 1} == accepted.dropped
    assert b"secret" not in accepted.line
    assert b"extra" not in accepted.line


def test_accept_of_a_batch_drops_and_counts_what_is_not_declared(
    take: Callable[..., Accepted], batch: Callable[..., bytes]
) -> None:
    """An undeclared event keeps its place as {}, and fields that do not fit go."""
    at = "2026-11-24T10:00:00.123Z"
    events = [
        {"name": "export", "at": at, "fields": {"format": "pdf", "pages": 3}},
        {"name": "secret", "at": at, "fields": {}},
        {"name": "export", "at": at, "fields": {"format": "exe", "pages": 1.5, "who": "me"}, "extra": 1},
        {},
    ]

    accepted = take(batch(events=events), "events")

    expected = [events[0], {}, {"name": "export", "at": at, "fields": {}}, {}]
    assert expected == json.loads(accepted.line)["doc"]["events"]
    assert {"event": 1, "field": 3, "key": 1} == accepted.dropped


@pytest.mark.parametrize(
    ("day", "code"),
    [
        ("2026-11-02", "too_old"),
        ("2026-11-03", None),
        ("2026-11-24", None),
        ("2026-11-25", None),
        ("2026-11-26", "from_the_future"),
    ],
)
def test_accept_of_a_day_beyond_the_horizon_is_refused(
    take: Callable[..., Accepted], report: Callable[..., bytes], day: str, code: str | None
) -> None:
    """From 21 days ago to tomorrow, both included, by the server's UTC day."""
    if code is None:
        assert take(report(day=day)).line
        return

    with pytest.raises(Refused) as caught:
        take(report(day=day))

    assert (code, 422) == (caught.value.code, caught.value.status)


def test_accept_checks_the_application_before_the_day(
    take: Callable[..., Accepted], report: Callable[..., bytes]
) -> None:
    """The order of checks is promised."""
    with pytest.raises(Refused, match="unknown_application"):
        take(report(app="example.org/other", day="2020-01-01"))
    with pytest.raises(Refused, match="invalid"):
        take(report(app="example.org/other", x=1))


def test_accept_of_the_other_kind_is_invalid(
    take: Callable[..., Accepted], report: Callable[..., bytes], batch: Callable[..., bytes]
) -> None:
    """A report is no batch and a batch no report."""
    for body, kind in ((report(), "events"), (batch(), "report")):
        with pytest.raises(Refused, match="invalid"):
            take(body, kind)
