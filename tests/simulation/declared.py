"""The declarations that the simulated application ships, one after the other, and which of its counts may leave.

Takes   a name that was counted, a declaration, an upload config, a report's x and a day.
Gives   the name under which that count may leave, or None: worked out anew, from the promises alone.
Never   calls the code that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from tallypost_schema.upload_config import UploadConfig

APPLICATION = "example.org/mytool"
OWN = ("tallypost/dropped-names", "tallypost/dropped-buckets", "tallypost/dropped-values")


@dataclass(frozen=True)
class Declared:
    """What a declaration says of a name."""

    expires: str = "never"
    rate: float = 1.0
    buckets: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class Declaration:
    """A whole declaration."""

    consent_version: int
    names: dict[str, Declared]

    def text(self) -> bytes:
        """The ``telemetry.toml``."""
        lines = [
            f'application = "{APPLICATION}"',
            'contact = "privacy@example.org"',
            f"consent_version = {self.consent_version}",
        ]
        for name, said in self.names.items():
            lines += [
                f'[{"histograms" if said.edges else "counters"}."{name}"]',
                'why = "How it is used"',
                'owner = "the makers"',
                f"rate = {said.rate}",
                f"expires = {said.expires if said.expires[0].isdigit() else chr(34) + said.expires + chr(34)}",
            ]
            lines += [f"buckets = {list(said.buckets)!r}".replace("'", '"')] if said.buckets else []
            lines += [f"edges = {list(said.edges)!r}"] if said.edges else []
        return "\n".join(lines).encode() + b"\n"

    def key(self) -> str:
        """By what a count file knows it."""
        text = self.text()
        return f"{crc32(text):08x}-{len(text)}"


_ALWAYS = {
    "cmd/export": Declared(buckets=("pdf", "other")),
    "cmd/sampled": Declared(rate=0.5),
    "export/seconds": Declared(edges=(0.1, 1.0)),
}
FIRST = Declaration(1, {**_ALWAYS, "cmd/import": Declared(buckets=("csv",)), "cmd/old": Declared(expires="2026-11-26")})
SECOND = Declaration(1, {**_ALWAYS, "cmd/new": Declared(), "cmd/old": Declared(expires="2026-12-20")})
ASKS_AGAIN = Declaration(2, {**_ALWAYS, "cmd/new": Declared(), "cmd/more": Declared(buckets=("other",))})
DECLARATIONS = (FIRST, SECOND, ASKS_AGAIN)
BY_KEY = {each.key(): each for each in DECLARATIONS}


def leaves_as(
    name: str, declaration: Declaration | None, config: UploadConfig | None, x: float, day: str
) -> str | None:
    """The name under which a count may leave, or None."""
    if declaration is None:
        return None
    plain, colon, bucket = name.partition(":")
    said = Declared() if plain in OWN else declaration.names.get(plain)
    if said is None or (said.expires != "never" and day >= said.expires):
        return None
    rate = said.rate
    if config is not None:
        rate = min(rate, (config.histograms if said.edges else config.counters).get(plain, 0.0))
    if x >= rate:
        return None
    if said.edges:
        return name if bucket in ("<=0.1", "<=1", ">1") else None
    if not colon or bucket in said.buckets:
        return name
    return f"{plain}:other" if "other" in said.buckets else None


_ASKED = {name: 1.0 for declaration in DECLARATIONS for name in declaration.names if name != "export/seconds"}
_ALL = {**_ASKED, **dict.fromkeys(OWN, 1.0)}
# What a server may ask for; the version tells them apart. The last asks for more than any declaration names.
CONFIGS = {
    "all": UploadConfig("all", _ALL, {"export/seconds": 1.0}, {}, {}),
    "few": UploadConfig("few", {"cmd/export": 1.0}, {}, {}, {}),
    "some": UploadConfig("some", dict.fromkeys(_ALL, 0.4), {"export/seconds": 0.7}, {}, {}),
    "pause": UploadConfig("pause", _ALL, {"export/seconds": 1.0}, {}, {}, paused=True),
    "wide": UploadConfig("wide", {**_ALL, "secret/thing": 1.0}, {"export/seconds": 1.0}, {}, {}),
}
