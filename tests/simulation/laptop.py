"""A laptop for some weeks: an application that logs events on working days, a daily upload, a server, and a ledger.

Takes   a seed.
Gives   an `AssertionError` if a session that may leave does not end complete, or anything leaves that may not.
Never   asks the code that it judges what should be: the ledger reads the session logs by itself, as any user might.
"""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import zstandard
from msgspec import UNSET

from tallypost import Telemetry
from tallypost.clock import day_of
from tallypost.daily import Daily, LastRun
from tallypost.errors import NoAnswer
from tallypost.state_directory import StateDirectory
from tallypost.testing import FakeClock, FakeDisk, FakeRandom
from tallypost.uploads.transport import Answer
from tallypost_schema import documents, receipts
from tallypost_schema.documents import Batch, Event

APPLICATION = "example.org/mytool"
ENDPOINT = "https://telemetry.example.org"
TEMPLATE = "/application/telemetry.toml"
ENVIRON = {"TALLYPOST": "on", "TALLYPOST_ENDPOINT": ENDPOINT}
HOUR, DAY = 3600.0, 86_400.0
MONDAY = "2026-11-23T00:00:00Z"
OLD_EXPIRES = "2026-11-27"  # The first Friday.
SAMPLED_RATE = 0.5

_EVENT = (
    '[events."{name}"]\nwhy = "How it is used"\nowner = "the makers"\nexpires = {expires}\nrate = {rate}\n{fields}\n'
)


def declared(*names: str) -> bytes:
    """A declaration of these events, and a counter."""
    parts = [f'application = "{APPLICATION}"\ncontact = "privacy@example.org"\n']
    parts.append('[counters."cmd/export"]\nwhy = "How it is used"\nowner = "the makers"\nexpires = "never"\n')
    for name in names:
        expires = OLD_EXPIRES if name == "old" else '"never"'
        rate = SAMPLED_RATE if name == "sampled" else 1.0
        fields = 'fields = { n = "count", format = ["pdf", "html"] }'
        parts.append(_EVENT.format(name=name, expires=expires, rate=rate, fields=fields))
    return "\n".join(parts).encode()


VERSIONS = (
    ("1.2.3", ("export", "old", "sampled", "leaving"), declared("export", "old", "sampled", "leaving")),
    ("1.3.0", ("export", "old", "sampled", "coming"), declared("export", "old", "sampled", "coming")),
)


class Chance(FakeRandom):
    """Chance that draws another number each time."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)  # A simulation's, which has to repeat.

    def bytes(self, count: int) -> bytes:
        """So many bytes."""
        return self._chance.randbytes(count)

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return self._chance.random()


@dataclass
class Session:
    """What the ledger has of a session: under what it was begun, and what was logged at each index."""

    mode: str
    begin: str
    logged: dict[int, dict[str, Any]] = field(default_factory=dict)

    def may_leave(self, mode: str) -> bool:
        """Whether it may, as the mode file is now."""
        return self.mode == mode and mode.startswith("on ") and self.begin[:10] > mode.split(" ")[1]


class Laptop:
    """Everything there is."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = FakeClock(MONDAY)
        self.disk = FakeDisk(clock=self.clock)
        self.directory = StateDirectory("/state", APPLICATION)
        self.random = Chance(seed)
        self.version = 0
        self.processes: list[tuple[Telemetry, int]] = []
        self.has_network = True
        self.is_well = False
        self.numbers = 0
        self.sessions: dict[str, Session] = {}
        self.stored: dict[str, dict[int, Event]] = defaultdict(dict)
        self.covered: dict[str, set[int]] = defaultdict(set)
        self.terminals: dict[str, int] = {}
        self.posts = 0
        self._ship(0)

    # ---------------------------------------------------------------- what happens

    def day(self, plan: DayPlan) -> None:
        """One day, to its midnight."""
        self.has_network = plan.has_network
        at_midnight = self.clock.now()
        if plan.ships:
            self._ship(1)
        for hour in range(9, 17) if plan.is_working else ():
            self.clock.sleep(max(0.0, at_midnight + hour * HOUR - self.clock.now()))
            if hour == 9 or self.chance.random() < 0.15:
                self._start()
            for mode in plan.modes.get(hour, ()):
                self._daily().set_mode(mode, who="user")  # type: ignore[arg-type]  # It is one.
            for process in self.processes:
                self._work(*process)
            if hour == plan.uploads_at:
                self.upload()
            if self.processes and self.chance.random() < 0.2:
                self._end(self.chance.randrange(len(self.processes)))
        while len(self.processes) > plan.suspended:
            self._end(self.chance.randrange(len(self.processes)))
        self.clock.sleep(max(0.0, at_midnight + DAY - self.clock.now()))

    def upload(self) -> None:
        """What the detached uploader does."""
        self._read_logs()
        self._daily().upload_if_due()

    def finish(self) -> None:
        """All is over and the network is there: the last sessions leave."""
        while self.processes:
            self._end(0)
        self.has_network = self.is_well = True
        for _ in range(4):
            self.clock.sleep(DAY)
            self._daily().upload(now=True)
        assert [] == self.disk.names(self.directory.pending)

    def _ship(self, version: int) -> None:
        self.version = version
        self.disk.write(TEMPLATE, VERSIONS[version][2])

    def _start(self) -> None:
        telemetry = Telemetry(
            APPLICATION,
            VERSIONS[self.version][0],
            dir="/state",
            declaration=TEMPLATE,
            uploader="manual",
            environ=ENVIRON,
            clock=self.clock,
            disk=self.disk,
        )
        self.processes.append((telemetry, self.version))

    def _work(self, telemetry: Telemetry, version: int) -> None:
        telemetry.counter("cmd/export").inc()
        before = self.numbers
        for _ in range(self.chance.randrange(5)):
            name = self.chance.choice(VERSIONS[version][1])
            if version == self.version:  # In a test run what the shipped declaration lacks would raise.
                telemetry.event(name, n=self.numbers, format=self.chance.choice(("pdf", "html")))
                self.numbers += 1
                self.clock.sleep(self.chance.choice((0.001, 1.0, 60.0)))
        self._write(telemetry)
        self._read_logs()
        logged = {one["fields"]["n"] for session in self.sessions.values() for one in session.logged.values()}
        assert set(range(before, self.numbers)) <= logged

    def _write(self, telemetry: Telemetry) -> None:
        if telemetry._events is not None:
            telemetry._events.writer.flush(0.05)  # Its thread does the same, at some instant.

    def _end(self, which: int) -> None:
        """A process ends, in one way or the other; of a killed one half a line may remain."""
        telemetry, _ = self.processes.pop(which)
        events = telemetry._events
        if events is not None and self.chance.random() < 0.4:
            session = events.writer._session
            events.writer._session = None
            if session is not None:
                session.end()  # What the kernel does for it.
                path = self.directory.session_log(session.id)
                if self.chance.random() < 0.5 and self.disk.exists(path):
                    self.disk.append(path, b'{"index":')
        telemetry.close()
        if events is not None:
            events.stop()

    def _daily(self) -> Daily:
        content = VERSIONS[self.version][2]
        return Daily(
            self.directory,
            last_run=LastRun(APPLICATION, "mytool", VERSIONS[self.version][0], ENDPOINT, "-"),
            declaration=content,
            default="local",
            environ=ENVIRON,
            clock=self.clock,
            disk=self.disk,
            random=self.random,
            transport=self,
        )

    # ---------------------------------------------------------------- the server

    def post(self, url: str, body: bytes, encoding: str | None) -> Answer:
        """Take a document as the server would; the answer may be lost, and so may the document."""
        fate = self.chance.random()
        self.clock.sleep(0.2)
        if not self.has_network or (fate < 0.1 and not self.is_well):
            raise NoAnswer("no network")
        document = zstandard.ZstdDecompressor().decompress(body, max_output_size=8 << 20)
        if url.endswith("/v1/events"):
            self._store(documents.decode_batch(document))
        else:
            documents.decode_report(document)
        self.posts += 1
        if fate < 0.25 and not self.is_well:
            raise NoAnswer("the answer was lost")
        if fate < 0.3 and not self.is_well:
            return Answer(503, receipts.encode_error("busy", "later", retry=True), {"retry-after": "3600"})
        return Answer(200, receipts.encode_receipt(receipts.hash_of(document)), {})

    def get(self, url: str, etag: str | None) -> Answer:
        """There is no config."""
        raise NoAnswer("no config here")

    # ---------------------------------------------------------------- the judge

    def _store(self, batch: Batch) -> None:
        session = self.sessions[batch.session]
        assert session.may_leave(self._mode()), "a session left that may not"
        if batch.terminal is not None:
            assert batch.terminal == self.terminals.setdefault(batch.session, batch.terminal)
            assert max(session.logged) == batch.terminal
        self.covered[batch.session] |= set(range(batch.first, batch.last + 1))
        for place, event in enumerate(batch.events):
            index = batch.first + batch.lost + place
            assert event == self.stored[batch.session].setdefault(index, event), "twice, with another content"
            self._require_as_logged(batch.session, event, session.logged[index])

    def _require_as_logged(self, session: str, event: Event, logged: dict[str, Any]) -> None:
        """What was logged, or nothing, where that has expired or was not sampled."""
        sampled = int(session[:13], 16) / 16**13 < SAMPLED_RATE
        is_withheld = logged["name"] == "sampled" and not sampled
        if logged["name"] == "old":
            assert event.name is UNSET or logged["at"] < OLD_EXPIRES
            # A batch that was cut in time may come later.
            is_withheld = event.name is UNSET and day_of(self.clock.now()) >= OLD_EXPIRES
        if is_withheld:
            assert Event() == event
        else:
            assert (logged["name"], logged["at"], logged["fields"]) == (event.name, event.at, event.fields)

    def _mode(self) -> str:
        if not self.disk.exists(self.directory.mode):
            return "none"
        return self.disk.read(self.directory.mode).decode().strip()

    def _read_logs(self) -> None:
        """What the logs have now, by no code of the library's."""
        for name in self.disk.names(self.directory.events):
            head, *lines = self.disk.read(os.path.join(self.directory.events, name)).splitlines()
            header = json.loads(head)
            session = self.sessions.setdefault(header["session"], Session(header["mode"], header["begin"]))
            for line in lines:
                if line.endswith(b"}}"):
                    one = json.loads(line)
                    assert one == session.logged.setdefault(one["index"], one)

    def leaving(self) -> dict[str, Session]:
        """The sessions that may leave, as the mode file is now."""
        mode = self._mode()
        return {name: session for name, session in self.sessions.items() if session.may_leave(mode) and session.logged}

    def require_complete(self) -> None:
        """Each session that may leave is whole on the server; each other one is the user's own, and nobody else's."""
        for name, session in self.leaving().items():
            assert max(session.logged) == self.terminals[name]
            assert set(range(self.terminals[name] + 1)) == self.covered[name]
            assert set(self.stored[name]) == self.covered[name], "nothing was lost here"
        logs = {name.partition(".")[0] for name in self.disk.names(self.directory.events)}
        assert not logs & set(self.leaving())
        numbers = [one["fields"]["n"] for session in self.sessions.values() for one in session.logged.values()]
        assert sorted(numbers) == list(range(self.numbers)), "each event has one index, in one session"


@dataclass(frozen=True)
class DayPlan:
    """What is to happen on a day."""

    is_working: bool
    has_network: bool = True
    ships: bool = False
    uploads_at: int = 12
    suspended: int = 0
    modes: dict[int, tuple[str, ...]] = field(default_factory=dict)


def live(seed: int, weeks: int = 2) -> Laptop:
    """Some weeks of a laptop, from the Monday on whose afternoon its user says yes."""
    laptop = Laptop(seed)
    chance = laptop.chance
    ships_on = chance.randrange(1, 7 * weeks)
    says_no_on = chance.choice((None, *range(2, 7 * weeks - 5)))  # Something of the second yes shall leave, too.
    for day in range(7 * weeks):
        modes: dict[int, tuple[str, ...]] = {15: ("on",)} if day == 0 else {}
        if day == says_no_on:
            modes = {chance.randrange(9, 13): ("local",), chance.randrange(13, 17): ("on",)}
        laptop.day(
            DayPlan(
                is_working=day % 7 < 5,
                has_network=chance.random() < 0.75,
                ships=day == ships_on,
                uploads_at=chance.randrange(9, 17),
                suspended=chance.choice((0, 0, 1, 2)),
                modes=modes,
            )
        )
    laptop.finish()
    return laptop
