from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tallypost_schema import receipts, upload_config
from tallypost_server.app import App
from tallypost_server.errors import Refused
from tallypost_server.testing import FakeClock, FaultyDisk

pytestmark = pytest.mark.anyio
Running = Callable[..., AbstractAsyncContextManager[tuple[App, Any]]]


@pytest.mark.parametrize("name", ["example.org/mytool", "example.org%2Fmytool"])
async def test_config_of_a_registered_application_is_what_it_declares(running: Running, name: str) -> None:
    """The name is taken as it is or percent-encoded; what has expired is left out."""
    async with running() as (_, client):
        answer = await client.get(f"/v1/config/{name}")

    config = upload_config.decode(answer.content)
    assert 200 == answer.status_code
    assert ["version", "counters", "histograms", "stacks", "events", "paused"] == list(json.loads(answer.content))
    assert {"cmd/export": 1.0} == {key: rate for key, rate in config.counters.items() if key.startswith("cmd/")}
    assert 1.0 == config.counters["tallypost/dropped-events"]
    assert f'"{config.version}"' == answer.headers["etag"]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_config_that_is_known_is_not_sent_again(running: Running, form: str) -> None:
    """If-None-Match with its tag gets 304 and no body."""
    async with running() as (_, client):
        tag = (await client.get("/v1/config/example.org/mytool")).headers["etag"]
        answer = await client.get("/v1/config/example.org/mytool", headers={"if-none-match": form.format(tag)})
        other = await client.get("/v1/config/example.org/mytool", headers={"if-none-match": '"other"'})

    assert (304, b"", tag) == (answer.status_code, answer.content, answer.headers["etag"])
    assert 200 == other.status_code


async def test_config_of_an_unknown_application_is_refused(running: Running) -> None:
    """Whoever is not registered learns it, for good."""
    async with running() as (_, client):
        for name in ("example.org/other", "", "%00", "a//b"):
            answer = await client.get(f"/v1/config/{name}")
            error = receipts.error_in(answer.content)
            assert error is not None
            assert (403, "unknown_application", False) == (answer.status_code, error.code, error.retry)


async def test_config_follows_the_day(running: Running, clock: FakeClock) -> None:
    """What expires at midnight is asked for no more after it."""
    clock.advance(-86400)
    async with running() as (_, client):
        before = (await client.get("/v1/config/example.org/mytool")).json()
        clock.advance(86400)
        after = (await client.get("/v1/config/example.org/mytool")).json()

    assert "cmd/old" in before["counters"]
    assert "cmd/old" not in after["counters"]
    assert before["version"] != after["version"]


async def test_config_works_on_a_full_disk(running: Running, disk: FaultyDisk) -> None:
    """Asking needs no room."""
    disk.free = 0
    async with running() as (_, client):
        assert 200 == (await client.get("/v1/config/example.org/mytool")).status_code


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/report", "/v1/reports/", "/healthz/", "/v1/config", "/%00"])
async def test_another_path_is_not_found(running: Running, path: str) -> None:
    """What is not served has the error body as well."""
    async with running() as (_, client):
        answer = await client.get(path)

    error = receipts.error_in(answer.content)
    assert error is not None
    assert (404, "not_found", False) == (answer.status_code, error.code, error.retry)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/metrics", "/v1/config/example.org/mytool"])
async def test_another_method_is_not_allowed(running: Running, path: str) -> None:
    """What is read is not posted to."""
    async with running() as (_, client):
        answer = await client.post(path)

    error = receipts.error_in(answer.content)
    assert error is not None
    assert (405, "method_not_allowed") == (answer.status_code, error.code)
    assert "GET" in answer.headers["allow"]


async def test_version_tells_what_runs(running: Running) -> None:
    """Build facts."""
    async with running() as (_, client):
        facts = (await client.get("/version")).json()

    assert {"name", "version", "schema", "python"} == facts.keys()


async def test_readyz_after_a_failed_commit_asks_the_disk(
    running: Running, disk: FaultyDisk, report: Callable[..., bytes]
) -> None:
    """A disk that still refuses makes the server not ready, one that took a probe makes it ready again."""
    async with running() as (_, client):
        disk.fail("sync", times=2)
        assert 503 == (await client.post_report(report())).status_code

        assert [503, 200] == [(await client.get("/readyz")).status_code for _ in range(2)]


async def test_an_error_that_nobody_foresaw_is_503(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Starlette's 500 does not reach anybody, and nothing is raised into uvicorn."""
    async with running() as (app, client):
        app._applications.find = None  # type: ignore[assignment,method-assign]

        answer = await client.get("/v1/config/example.org/mytool")

    error = receipts.error_in(answer.content)
    assert error is not None
    assert (503, True) == (answer.status_code, error.retry)
    assert "TypeError at web.py" in caplog.text


def test_refused_has_the_status_of_its_code() -> None:
    """Codes and statuses are those of the shared table."""
    assert (422, False) == (Refused("too_old", "").status, Refused("too_old", "").retry)
