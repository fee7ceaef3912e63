from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tallypost_schema import declaration as declarations
from tallypost_schema.outcomes import CODES
from tallypost_server.app import App
from tallypost_server.load.documents import Documents
from tallypost_server.openapi import description
from tallypost_server.testing import FaultyDisk

pytestmark = pytest.mark.anyio
Running = Callable[..., AbstractAsyncContextManager[tuple[App, Any]]]
Document = Callable[..., bytes]
PAGE = Path(__file__).parents[3] / "docs" / "server" / "http.md"
POSTED = ("/v1/reports", "/v1/events")


async def test_description_is_served_as_it_lies_in_the_package(running: Running) -> None:
    """Whoever asks the server has the description of this very version."""
    async with running() as (_, client):
        answer = await client.get("/openapi.json")

    assert (200, description()) == (answer.status_code, answer.content)
    assert "application/json" == answer.headers["content-type"]


async def test_each_documented_answer_occurs(
    running: Running, report: Document, batch: Document, disk: FaultyDisk, data: Path, described: Any
) -> None:
    """Every status and code of the description is brought about; the client fails on one that is not in it.

    What the description has of heads that do not come is `BoundedHead`'s, below ASGI, and has tests of its own.
    """
    described.seen.clear()
    for path, document in zip(POSTED, (report, batch), strict=True):
        await _provoke_posts(running, path, document, disk)
    async with running() as (_, client):
        for days in (-30, 30):
            day = (datetime.date(2026, 11, 24) + datetime.timedelta(days=days)).isoformat()
            await client.post_report(report(day=day))
        config = await client.get("/v1/config/example.org/mytool")
        await client.get("/v1/config/example.org/mytool", headers={"if-none-match": config.headers["etag"]})
        await client.get("/v1/config/example.org/other")
        for path in ("/healthz", "/readyz", "/version", "/metrics", "/openapi.json"):
            await client.get(path)
    (data / "applications" / "damaged.toml").write_text('application = "example.org/damaged"\nnonsense')
    async with running() as (app, client):
        await client.get("/v1/config/example.org/damaged")
        app._metrics.ready.ask = app._applications.find = None  # type: ignore[assignment,method-assign]
        app._metrics.applications.ask = lambda: 1 // 0
        await client.get("/v1/config/example.org/mytool")
        await client.get("/metrics")

    assert set() == described.documented() - described.seen
    assert set() == described.seen - described.documented()


async def _provoke_posts(running: Running, path: str, document: Document, disk: FaultyDisk) -> None:
    """Each answer that one of the two paths can give, of what does not depend on the kind."""
    async with running(started=False) as (app, client):
        for _ in ("starting", "stopping"):
            await client.post_to(path, document())
            await client.get("/readyz")
            app.begin_stop()
    async with running(waiting_bytes_max=10) as (_, client):  # busy
        await client.post_to(path, document())
    async with running(body_seconds_max=0.01) as (_, client):

        async def never() -> AsyncIterator[bytes]:
            yield document()[:10]
            await asyncio.sleep(5)

        await client.post(path, content=never(), headers={"content-type": "application/json"})  # too_slow
    async with running(reserve_bytes=1000) as (_, client):
        await client.post_to(path, document())
        await client.post_to(path, b"{")
        await client.post_to(path, b"{}")
        await client.post_to(path, document(app="example.org/other"))
        await client.post_to(path, b" " * (1 << 21))
        await client.post_to(path, document(), content_type="")
        await client.post_to(path, document(), "br")
        disk.free = 999
        await client.post_to(path, document())
        await client.get("/readyz")
        disk.free = None
        disk.fail("write", times=2)
        await client.post_to(path, document())
        disk.fail("sync", times=2)
        await client.get("/readyz")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_method_without_an_operation_is_not_allowed_and_hears_which_are(
    running: Running, described: Any, method: str
) -> None:
    """`Allow` names what the description has, no more and no less."""
    async with running() as (_, client):
        for path, operations in described.document["paths"].items():
            known = {name.upper() for name in operations}
            known |= {"HEAD"} if "GET" in known else set()
            if method in known:
                continue
            answer = await client.request(method, path.replace("{application}", "example.org/mytool"))
            assert 405 == answer.status_code
            assert known == set(answer.headers["allow"].split(", "))


async def test_description_has_the_codes_that_the_table_has(described: Any) -> None:
    """Each code stands with its own status, and none is missing but those of any path and any method."""
    pairs = {(status, code) for _, _, status, code in described.documented() if code is not None}

    assert {(told.status, code) for code, told in CODES.items()} - pairs == {
        (404, "not_found"),
        (405, "method_not_allowed"),
    }
    assert all(CODES[code].status == status for status, code in pairs)


async def test_description_is_whole(described: Any) -> None:
    """References lead somewhere, operations have names of their own, and parameters of a path stand in it."""
    text = description().decode()
    assert text == json.dumps(described.document, indent=2, ensure_ascii=False) + "\n"
    assert "3.1.0" == described.document["openapi"]
    for where in {line.split('"')[3] for line in text.splitlines() if '"$ref"' in line}:
        place = described.document
        for key in where.removeprefix("#/").split("/"):
            place = place[key]
    for schema in described.document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    operations = [
        (path, operation) for path, methods in described.document["paths"].items() for operation in methods.values()
    ]
    assert len(operations) == len({operation["operationId"] for _, operation in operations})
    for path, operation in operations:
        told = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
        assert told == [part[1:-1] for part in path.split("/") if part.startswith("{")]


async def test_page_has_the_paths_that_the_description_has(described: Any) -> None:
    """People and tools are told the same."""
    rows = re.findall(r"^\| `(/[^`]*)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)

    assert [
        (path.replace("{application}", "<application>"), method.upper())
        for path, methods in described.document["paths"].items()
        for method in methods
    ] == rows


async def test_documents_that_clients_make_are_as_described(described: Any) -> None:
    """Both kinds, with all that a declaration can name."""
    common = 'why = "x"\nowner = "x"\nexpires = "never"\n'
    text = (
        f'application = "example.org/mytool"\n[counters."cmd/export"]\n{common}buckets = ["pdf"]\n'
        f'[histograms."export/seconds"]\n{common}edges = [0.1, 1]\n[stacks."crash/KeyError"]\n{common}\n'
        f'[events.export]\n{common}fields = {{ format = ["pdf"], pages = "count", took = "seconds", first = "flag" }}\n'
    )
    at = datetime.datetime(2026, 11, 24, tzinfo=datetime.timezone.utc)
    documents = Documents([declarations.parse(text)], at=at, draw=random.Random(1), models=100)

    for kind, body in itertools.islice(documents, 100):
        described.validate(f"#/components/schemas/{'Report' if kind == 'report' else 'Batch'}", json.loads(body))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("Error", {"error": {"code": "busy", "message": "x"}}),
        ("Receipt", {"stored": "0" * 63}),
        ("Hex32", "0F" * 16),
        ("CounterName", "a:b:c"),
        ("CounterName", "A"),
        ("Stack", "a\nno frame"),
        ("Application", "a/../b"),
        ("Count", -1),
        ("Count", 2**53),
    ],
)
async def test_description_says_no_to_what_the_server_refuses(described: Any, schema: str, value: object) -> None:
    """It is no description of anything at all."""
    with pytest.raises(jsonschema.ValidationError):
        described.validate(f"#/components/schemas/{schema}", value)
