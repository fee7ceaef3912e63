"""``load-test URL``: what a server does under load, with documents like those of its users.

Takes   a URL, declarations, bounds.
Gives   rates, latencies, answers and errors on standard output; exit 1 unless each document got its receipt.
Never   is part of `serve`; never posts what a client would not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallypost_schema import declaration as declarations
from tallypost_schema.errors import DeclarationInvalid

from ..clock import SystemClock
from ..disk import OsDisk
from ..errors import CannotLoad
from ..load.address import RULE, Address, address_of
from ..settings import Settings
from .numbers import above_0, whole

if TYPE_CHECKING:
    from ..load.poster import Bounds
    from ..load.result import Result

HELP = (
    "Post documents as clients would, and print how many a second were stored, how long the answers took, and what "
    "went wrong. They are stored: point it at a server that is there to be tested."
)
EXAMPLE = "tallypost-server load-test http://127.0.0.1:8080 --declaration telemetry.toml --connections 32 --seconds 10"
SETTINGS: frozenset[str] = frozenset({"applications"})
_SECONDS = 10.0
_KINDS: dict[str, tuple[Any, ...]] = {"reports": ("report",), "events": ("events",), "both": ("report", "events")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, what, how much."""
    parser.add_argument("address", type=_address, metavar="URL", help=f"Where the server is: {RULE}.")
    parser.add_argument(
        "--declaration",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="A telemetry.toml that the server knows; the documents are made of what it names. It may be given more "
        "than once. Without it: all of the applications folder.",
    )
    parser.add_argument(
        "--connections",
        type=whole,
        default=32,
        metavar="N",
        help="So many connections, each with one request at a time (32).",
    )
    parser.add_argument("--seconds", type=above_0, default=None, metavar="S", help="Post for so long (10).")
    parser.add_argument(
        "--count",
        type=whole,
        default=None,
        metavar="N",
        help="Post so many documents at most; without --seconds, however long it takes.",
    )
    parser.add_argument(
        "--rate",
        type=above_0,
        default=None,
        metavar="N",
        help="Post so many a second; without it, as many as are answered. Latencies then begin when a request was due.",
    )
    parser.add_argument("--kind", choices=_KINDS, default="both", help="What is posted (both).")
    parser.add_argument(
        "--encoding", choices=("zstd", "gzip", "identity"), default="zstd", help="How bodies are encoded (zstd)."
    )
    parser.add_argument(
        "--answer-seconds", type=above_0, default=30.0, metavar="S", help="Give up on an answer after so long (30)."
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=None,
        metavar="N",
        help="Draw the same documents again; ids too, so the server knows them for repeats.",
    )


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Post, and print what came of it."""
    import uvloop  # Other commands start faster without the event loop and the parser.

    from ..load.documents import Documents
    from ..load.poster import Bounds, post

    clock = SystemClock()
    seed = int(secrets.token_hex(8), 16) if arguments.seed is None else arguments.seed
    documents = Documents(
        _declarations(settings, arguments.declaration),
        at=clock.now(),
        draw=random.Random(seed),  # noqa: S311  The ids need to be distinct, not secret.
        kinds=_KINDS[arguments.kind],
    )
    seconds = arguments.seconds or (_SECONDS if arguments.count is None else math.inf)
    bounds = Bounds(arguments.connections, seconds, arguments.count, arguments.rate, arguments.answer_seconds)

    async def load() -> Result:
        told_to_end = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, told_to_end.set)
        return await post(
            arguments.address,
            documents,
            arguments.encoding,
            bounds,
            clock=clock,
            processor_seconds=time.process_time,
            told_to_end=told_to_end,
        )

    result = uvloop.run(load())
    if arguments.json:
        print(json.dumps(facts_of(result, bounds)))
    else:
        print("\n".join(table_of(result, bounds)))
    return 0 if result.all_stored else 1


def facts_of(result: Result, bounds: Bounds) -> dict[str, Any]:
    """What is printed with ``--json``."""
    stored, seconds = sum(result.stored.values()), result.seconds
    percentiles = {name: result.latencies.percentile(share) for name, share in _SHARES.items()}
    return {
        "seconds": round(seconds, 3),
        "connections": bounds.connections,
        "rate": bounds.rate,
        "posted": sum(result.posted.values()),
        "stored": stored,
        "per_second": round(stored / seconds, 1),
        "kinds": {
            kind: {
                "posted": posted,
                "stored": result.stored[kind],
                "per_second": round(result.stored[kind] / seconds, 1),
            }
            for kind, posted in result.posted.items()
        },
        "bytes_per_second": round(result.bytes_posted / seconds),
        "latency_ms": {
            name: None if value is None else round(value * 1e3, 3)
            for name, value in {**percentiles, "max": result.latencies.max if result.latencies.count else None}.items()
        },
        "answers": {str(status): count for status, count in sorted(result.answers.items())},
        "codes": dict(sorted(result.codes.items())),
        "errors": dict(sorted(result.errors.items())),
        "receipts": {"right": result.receipts_right, "wrong": result.receipts_wrong},
        "generator_busy": round(result.busy, 3),
    }


def table_of(result: Result, bounds: Bounds) -> list[str]:
    """What is printed without it."""
    facts = facts_of(result, bounds)
    told = "as many as are answered" if bounds.rate is None else f"{bounds.rate:g} a second"
    rows = [
        ("load", f"{facts['connections']} connections, {told}, {facts['seconds']:.1f} s"),
        ("stored", f"{facts['stored']} of {facts['posted']}, {facts['per_second']:.0f} a second"),
    ]
    names = {"report": "  reports", "events": "  batches"}
    rows += [
        (names[kind], f"{one['stored']} of {one['posted']}, {one['per_second']:.0f} a second")
        for kind, one in facts["kinds"].items()
    ]
    rows.append(("posted", f"{facts['bytes_per_second'] / 1e6:.2f} MB a second, as encoded"))
    rows.append(
        (
            "latency",
            ", ".join(f"{name} {value:.2f} ms" for name, value in facts["latency_ms"].items() if value is not None)
            or "no answer",
        )
    )
    rows.append(("answers", _listed(facts["answers"])))
    if facts["codes"]:
        rows.append(("codes", _listed(facts["codes"])))
    rows.append(("errors", _listed(facts["errors"])))
    rows.append(("receipts", f"{facts['receipts']['right']} right, {facts['receipts']['wrong']} wrong"))
    busy = facts["generator_busy"]
    warning = "; it was the bottleneck, run it on a core of its own" if busy > _BUSY_MAX else ""
    rows.append(("generator", f"{busy:.0%} of one core{warning}"))
    return [f"{name:<10}{text}" for name, text in rows]


_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
# From here on it is not the server that is measured.
_BUSY_MAX = 0.95


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in counts.items()) or "none"


def _declarations(settings: Settings, files: list[Path]) -> list[declarations.Declaration]:
    """What the documents are made of: the files named, else those of the applications folder that are whole."""
    disk, folder = OsDisk(), settings.applications
    paths = files or [folder / name for name in disk.names(folder) if name.endswith(".toml")]
    read = [_declaration(disk, path, needed=bool(files)) for path in paths]
    return [declaration for declaration in read if declaration is not None]


def _declaration(disk: OsDisk, path: Path, *, needed: bool) -> declarations.Declaration | None:
    try:
        return declarations.parse(disk.read(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError, DeclarationInvalid) as failure:
        if needed:
            raise CannotLoad(f"{path} is no declaration: {failure}") from failure
        print(f"tallypost-server: {path} is left out: {failure}", file=sys.stderr)
        return None


def _address(text: str) -> Address:
    return _parsed(address_of, text)


def _parsed(parse: Callable[[str], Address], text: str) -> Address:
    try:
        return parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!a} given, allowed is {RULE}") from None
