"""The upload config: what the server asks for now. It can only narrow.

Takes   bytes, or a declaration and a day.
Gives   names with their rates.
Never   lets out what the declaration does not name: a name that is missing here has rate 0.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from . import names, strict_json
from .declaration import Declaration, Entry
from .errors import Invalid

Rate: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Rates: TypeAlias = dict[str, Rate]


class UploadConfig(Struct, frozen=True):
    """Rates by name; while `paused` clients post nothing and keep their documents."""

    version: str
    counters: Rates
    histograms: Rates
    stacks: Rates
    events: Rates
    paused: bool = False


def decode(body: bytes) -> UploadConfig:
    """The upload config that `body` is.

    Raises:
        Malformed: not one strict JSON object.
        Invalid: an object that breaks a config's rules.
    """
    try:
        config = msgspec.convert(strict_json.decode(body), UploadConfig)
    except msgspec.ValidationError as error:
        raise Invalid(f"upload config: {error}") from error
    if not names.is_label(config.version):
        raise Invalid(f"upload config: version is {config.version[:80]!a}, allowed is 1 to 64 printable characters")
    return config


def encode(config: UploadConfig) -> bytes:
    """The config's bytes."""
    return msgspec.json.encode(config)


def asked_for(declaration: Declaration, today: datetime.date, *, paused: bool = False) -> UploadConfig:
    """What a declaration asks for on a day: all that has not expired, at its declared rate.

    The version is short text that changes when the answer does.
    """
    unnamed = UploadConfig(
        version="",
        counters=_rates(declaration.counters, today),
        histograms=_rates(declaration.histograms, today),
        stacks=_rates(declaration.stacks, today),
        events=_rates(declaration.events, today),
        paused=paused,
    )
    return msgspec.structs.replace(unnamed, version=hashlib.sha256(encode(unnamed)).hexdigest()[:12])


def _rates(table: Mapping[str, Entry], today: datetime.date) -> Rates:
    return {name: entry.rate for name, entry in sorted(table.items()) if not entry.expired(today)}
