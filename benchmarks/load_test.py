"""What ``tallypost-server load-test`` costs a document, beside the server that it loads and beside slower ways to post.

Takes   our server on one core; on another, in turn: load-test, a head read by asyncio's streams, httpx.
Gives   processor time a document, the load's as a share of the server's: below 1 it is the server that is measured.
Never   lets a way look cheaper by doing less: each compresses, and compares each receipt with the document's hash.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .harness import CannotMeasure, Comparison, Goal, Measured, Plan, in_turn, json_of_child
from .ingest import OURS, Server, two_cores, write_declaration

CONNECTIONS = 32
LOAD_TEST, STREAMS, HTTPX = "load-test", "streams", "httpx"
ROUNDS, SECONDS = 5, 2.0
QUICK_ROUNDS, QUICK_SECONDS = 2, 0.5


def measure(plan: Plan) -> Measured:
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if plan.quick else (ROUNDS, SECONDS)
    write_declaration(plan.scratch)
    server_core, load_core = two_cores()
    samples: dict[str, list[dict[str, float]]] = {LOAD_TEST: [], STREAMS: [], HTTPX: []}
    with Server.started(OURS, plan.scratch / "data", plan.scratch, server_core) as server:
        for _, way in in_turn(tuple(samples), rounds):
            with server.awake():
                before = server.processor_seconds()
                sample: dict[str, float] = json_of_child(
                    "-m", f"{__package__}.load_test", way, str(server.port), str(plan.scratch), str(seconds),
                    core=load_core,
                )  # fmt: skip
                after = server.processor_seconds()
            if before is None or after is None:
                raise CannotMeasure("this system does not tell what another process has used of a processor")
            sample["server_us"] = (after - before) / sample["stored"] * 1e6
            sample["server_busy"] = (after - before) / sample["seconds"]
            samples[way].append(sample)
    return Measured(compare(samples), facts_of(samples, server_core))


def compare(samples: dict[str, list[dict[str, float]]]) -> list[Comparison]:
    def pairs(way: str, field: str, other: str, other_field: str) -> list[tuple[float, float]]:
        return [(one[field], two[other_field]) for one, two in zip(samples[way], samples[other], strict=True)]

    return [
        Comparison(
            "load_test",
            LOAD_TEST,
            "the server",
            "us",
            pairs(LOAD_TEST, "us", LOAD_TEST, "server_us"),
            goal=Goal("at most", 0.5),
        ),
        Comparison("load_test/streams", LOAD_TEST, STREAMS, "us", pairs(LOAD_TEST, "us", STREAMS, "us")),
        Comparison("load_test/httpx", LOAD_TEST, HTTPX, "us", pairs(LOAD_TEST, "us", HTTPX, "us")),
    ]


def facts_of(samples: dict[str, list[dict[str, float]]], server_core: int | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for way, rounds in samples.items():
        median = {field: statistics.median(one[field] for one in rounds) for field in rounds[0]}
        load = f"{median['us']:.0f} us processor each, its core {median['busy']:.0%} busy"
        server = f"the server {median['server_us']:.0f} us each, {median['server_busy']:.0%} of a core"
        facts[way] = f"{median['stored'] / median['seconds']:.0f} documents/s, {load}; {server}"
    facts["a core for the server, another for the load"] = server_core is not None
    return facts


# ---------------------------------------------------------------- the ways, each in a process of its own


def documents_in(folder: Path) -> Any:
    from tallypost_schema import declaration
    from tallypost_server.clock import SystemClock
    from tallypost_server.load.documents import Documents

    declared = declaration.parse((folder / "applications" / "bench.toml").read_text("utf-8"))
    return Documents([declared], at=SystemClock().now(), draw=random.Random(), kinds=("report",))


async def by_load_test(port: int, documents: Any, seconds: float) -> int:
    from tallypost_server.clock import SystemClock
    from tallypost_server.load.address import address_of
    from tallypost_server.load.poster import Bounds, post

    result = await post(
        address_of(f"http://127.0.0.1:{port}"),
        documents,
        "zstd",
        Bounds(CONNECTIONS, seconds),
        clock=SystemClock(),
        processor_seconds=time.process_time,
    )
    assert result.all_stored
    return result.receipts_right


async def by_streams(port: int, documents: Any, seconds: float) -> int:
    bodies, end = compressed(documents), time.monotonic() + seconds

    async def post_until_the_end() -> int:
        stored = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            is_receipt, body = next(bodies)
            writer.write(
                b"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Encoding: zstd\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            assert is_receipt(await reader.readexactly(length))
            stored += 1
        writer.close()
        return stored

    return sum(await asyncio.gather(*(post_until_the_end() for _ in range(CONNECTIONS))))


async def by_httpx(port: int, documents: Any, seconds: float) -> int:
    import httpx

    bodies, end = compressed(documents), time.monotonic() + seconds
    heads = {"content-type": "application/json", "content-encoding": "zstd"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

        async def post_until_the_end() -> int:
            stored = 0
            while time.monotonic() < end:
                is_receipt, body = next(bodies)
                assert is_receipt((await client.post("/v1/reports", content=body, headers=heads)).content)
                stored += 1
            return stored

        return sum(await asyncio.gather(*(post_until_the_end() for _ in range(CONNECTIONS))))


def compressed(documents: Any) -> Iterator[tuple[Callable[[bytes], bool], bytes]]:
    import zstandard

    from tallypost_schema import receipts

    compress = zstandard.ZstdCompressor(level=3).compress
    for _, document in documents:
        yield lambda answer, document=document: receipts.is_receipt_of(answer, document), compress(document)  # type: ignore[misc]


def main(arguments: Sequence[str]) -> None:
    import uvloop

    way, port, folder, seconds = arguments
    documents = documents_in(Path(folder))
    ways = {LOAD_TEST: by_load_test, STREAMS: by_streams, HTTPX: by_httpx}
    processor, begun = time.process_time(), time.monotonic()
    stored = uvloop.run(ways[way](int(port), documents, float(seconds)))
    used, taken = time.process_time() - processor, time.monotonic() - begun
    print(json.dumps({"stored": stored, "seconds": taken, "us": used / stored * 1e6, "busy": used / taken}))


if __name__ == "__main__":
    main(sys.argv[1:])
