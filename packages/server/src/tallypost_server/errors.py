"""What can go wrong on the server, grouped by the moment it happens.

ServerError
├── CannotStart              while starting
│   ├── SettingsInvalid      a flag, variable or key that is unknown or does not fit
│   ├── FolderLocked         another server works on this data folder
│   ├── RepairRunning        another command repairs this data folder
│   ├── CannotListen         the address is taken, or not ours
│   ├── FolderMissing        a folder that must be there is not
│   ├── WrongUse             arguments that do not go together
│   └── ExtraMissing         a package that only this command needs is not installed
├── Declined                 while a request is answered: has the code of its answer
│   ├── Refused              the document's own fault, or the request's; has a message for the sender
│   ├── ApplicationUnreadable  its declaration is damaged, and none was read before
│   ├── NotTaking            starting or stopping
│   ├── TooMuchWaiting       more came than is kept in memory
│   ├── TooManyFromOne       one sender is over its rate
│   ├── NoSpace              the disk is full, or filled to the reserve
│   └── CommitFailed         the disk refused a group
├── SealFailed               while sealing: the open segment stays and is sealed later
├── NoTallypost              while posting: what answers is no server of ours
├── StillBusy                while posting: the server took nothing for too long
├── SegmentDamaged           while reading: from some place on a sealed segment cannot be read
├── CannotArchive            while archiving
│   ├── CoordinatorUnusable  its database refuses, or is damaged
│   ├── CoordinatorForeign   its database is another data folder's
│   ├── CoordinatorNewer     its database is of a later version
│   ├── ArchiveUnusable      the tables' store refuses, or is damaged
│   ├── ArchiveForeign       the tables are another data folder's
│   ├── ArchiveDamaged       what was durable in a table is there no more
│   ├── LeaseLost            another archivist took over; nothing was settled
│   ├── SegmentLost          a registered segment is gone or damaged
│   ├── NumberSpent          the task is to be split, not written
│   ├── MarkTaken            a table has the task's number with another task's id
│   ├── Deadly               archivists die with the task: it is to be split, or to wait behind others
│   └── DataRefused          a row cannot be archived, however often it is tried
├── QueryRefused             while reading the archive: DuckDB does not take the statement, or it does more than read
├── NotErasedYet             while erasing: others did not let it happen in time
├── KeptDamaged              while reading: a file of the quarantine is none
├── UnknownStream            while reading: no segment has it
└── CannotLoad               while posting a load
    ├── NothingDeclared      no declaration names what documents could be made of
    └── NoServer             not one connection could be made
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tallypost_schema.outcomes import CODES, ErrorCode

from . import limits


def place_of(failure: BaseException) -> str:
    """What an unforeseen error is and where it came from, without its words: they may quote a document."""
    place = failure.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else ""
    return type(failure).__name__ + where


class ServerError(Exception):
    """Whatever this server raises of its own."""


class CannotStart(ServerError):
    """The server, or another command, does not start; its words say what to change."""


class SettingsInvalid(CannotStart):
    """Settings that are unknown or do not fit; `problems` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class FolderLocked(CannotStart):
    """Another server works on the data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"another tallypost-server serves {folder}: stop it, or choose another folder with --data")


class RepairRunning(CannotStart):
    """Another command repairs the data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"another tallypost-server verify --repair is at work on {folder}: let it end first")


class CannotListen(CannotStart):
    """The address is taken, or this machine does not have it."""

    def __init__(self, address: str, failure: OSError) -> None:
        self.address, self.failure = address, failure
        super().__init__(f"cannot listen on {address}: {failure.strerror or failure}; choose another with --listen")


class FolderMissing(CannotStart):
    """A folder that must be there is not."""

    def __init__(self, what: str, folder: Path) -> None:
        self.what, self.folder = what, folder
        super().__init__(f"{what} {folder} is not there")


class WrongUse(CannotStart):
    """Arguments that the grammar lets through and that mean nothing."""


class ExtraMissing(CannotStart):
    """A package that only this command needs is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        self.what, self.package, self.extra = what, package, extra
        super().__init__(f"{what} needs {package}: pip install 'tallypost-server[{extra}]'")


class Declined(ServerError):
    """A request gets no receipt. `code` names the answer; `retry` says whether the same bytes may come again."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code: ErrorCode = code
        self.message = message
        super().__init__(f"{code}: {message}")

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return CODES[self.code].status

    @property
    def retry_after_seconds(self) -> int:
        """The least time until the sender may come again, for an answer that tells one."""
        return limits.retry_after_seconds[self.code]

    @property
    def retry(self) -> bool:
        """Whether the same bytes may be sent again."""
        return CODES[self.code].retry


class Refused(Declined):
    """The request or its document breaks a rule. Nothing of it is stored, except perhaps in the quarantine."""


class ApplicationUnreadable(Declined):
    """The declaration of `application` is damaged and no older one was read.

    It is no refusal: a client deletes what is refused, and the makers did register this application.
    """

    def __init__(self, application: str) -> None:
        self.application = application
        super().__init__("busy", f"the declaration of {application} cannot be read here just now; send again later")


class NotTaking(Declined):
    """The server is starting or stopping."""


class TooMuchWaiting(Declined):
    """More came than is kept in memory. Nothing of this one was kept."""

    def __init__(self, what: str, *, given: int, allowed: int) -> None:
        self.what, self.given, self.allowed = what, given, allowed
        super().__init__("busy", f"{given} {what} would wait, allowed are {allowed}; send again later")


class TooManyFromOne(Declined):
    """One sender is over its rate; it may send again later."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        super().__init__("busy", f"from one address {per_minute} a minute are taken; send again later")

    @property
    def retry_after_seconds(self) -> int:
        """Of this minute nothing more is taken."""
        return limits.retry_after_rate_seconds


class NoSpace(Declined):
    """The disk is full, or filled to the reserve. Nothing was acknowledged; it goes on once there is room."""

    def __init__(self, *, free: int, reserve: int) -> None:
        self.free, self.reserve = free, reserve
        super().__init__("no_space", f"the disk has {free} bytes free and keeps {reserve}; send again later")


class CommitFailed(Declined):
    """The disk refused a group. None of it was acknowledged; the open segment is closed, the next group gets a new one.

    The same bytes may be sent again: a repeat is recognised by stream and index.
    """

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure
        super().__init__("storage_failed", "the disk did not take the document; send again later")


class SealFailed(ServerError):
    """A segment was not sealed. Its open file stays as it is, and sealing is tried again."""

    def __init__(self, stem: str, reason: str) -> None:
        self.stem, self.reason = stem, reason
        super().__init__(f"{stem} was not sealed: {reason}")


class NoTallypost(ServerError):
    """What answers is not what was looked for: a proxy, another program, a wrong path. Nothing more was posted."""

    def __init__(self, path: str, status: int) -> None:
        self.path, self.status = path, status
        super().__init__(f"{path} was answered {status}, and not as a tallypost-server does: look at --to")


class StillBusy(ServerError):
    """The server stored and refused nothing for as long as was allowed."""

    retry = True  # What has a receipt already is recognised when it comes again.

    def __init__(self, seconds: float, why: str) -> None:
        self.seconds, self.why = seconds, why
        super().__init__(f"the server took nothing for {seconds:g} s ({why}); try again later, or with more --patience")


class SegmentDamaged(ServerError):
    """A sealed segment cannot be read from about `offset` on. The lines before it can."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset, self.reason = offset, reason
        super().__init__(f"damaged at about byte {offset}: {reason}")


class CannotArchive(ServerError):
    """Something is not archived. Its segments stay, and nothing is lost."""


class CoordinatorUnusable(CannotArchive):
    """The coordinator's database refuses. It can be removed: it is made anew from segments and archive."""

    def __init__(self, url: str, failure: Exception) -> None:
        self.url, self.failure = url, failure
        super().__init__(
            f"the coordinator {url} cannot be used: {failure}; if it is damaged, remove it while nothing runs: "
            "it is made anew from segments and archive"
        )


class CoordinatorForeign(CannotArchive):
    """The database keeps what came into another data folder."""

    def __init__(self, url: str, data: Path) -> None:
        self.url, self.data = url, data
        super().__init__(
            f"the coordinator {url} is of another data folder than {data}: each needs a database, and an archive, of "
            "its own; if it is the same folder and its file node was lost, remove the coordinator while nothing runs"
        )


class CoordinatorNewer(CannotArchive):
    """A later version of this program made the coordinator's tables."""

    def __init__(self, given: int, known: int) -> None:
        self.given, self.known = given, known
        super().__init__(
            f"the coordinator is of version {given}, this program knows {known}: install a later one, or remove the "
            "coordinator while nothing runs: it is made anew from segments and archive"
        )


class ArchiveUnusable(CannotArchive):
    """The tables' store refuses, or what lies there is no archive of ours. It is tried again."""

    def __init__(self, where: str, failure: BaseException) -> None:
        self.where, self.failure = where, failure
        super().__init__(f"the archive {where} cannot be used: {failure}")


class ArchiveForeign(CannotArchive):
    """The tables keep what came into another data folder."""

    def __init__(self, where: str, data: Path) -> None:
        self.where, self.data = where, data
        super().__init__(
            f"the archive {where} is of another data folder than {data}: each needs an archive of its own; if it is "
            "the same folder and its file node was lost, or if that one is no more, remove node from the archive"
        )


class ArchiveDamaged(CannotArchive):
    """What was durable in a table is not there any more. Nothing of it is undone by a program."""

    def __init__(self, table: str, reason: str) -> None:
        self.table, self.reason = table, reason
        super().__init__(
            f"the table {table} is damaged, and by no power cut: {reason}; put its folder back as it was last kept"
        )


class LeaseLost(CannotArchive):
    """Another archivist took over what this one worked on. Whatever this one wrote, the other one finds."""

    def __init__(self, name: str, holder: str) -> None:
        self.name, self.holder = name, holder
        super().__init__(f"the lease {name} is no longer held by {holder}")


class MarkTaken(CannotArchive):
    """A table has a number that the coordinator gave to another task, or a higher one: one of the two is not of now."""

    def __init__(self, table: str, lane: int, *, found: int, given: int) -> None:
        self.table, self.lane, self.found, self.given = table, lane, found, given
        super().__init__(
            f"the table {table} has {found} of lane {lane}, where {given} was to be written: the coordinator is not "
            "that of this archive, or older; remove it while nothing runs: it is made anew from segments and archive"
        )


class SegmentLost(CannotArchive):
    """A segment has not what was registered. What it held is forgotten; a repair brings in what can be read of it."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"{name} was registered and cannot be archived from: {reason}")


class NumberSpent(CannotArchive):
    """A task's number was spent, so that nobody writes with it: the task is to be split."""

    def __init__(self, table: str, lane: int, number: int) -> None:
        self.table, self.lane, self.number = table, lane, number
        super().__init__(f"the number {number} of lane {lane} was spent in the table {table}")


class Deadly(CannotArchive):
    """Archivists that worked on a task were not heard of again. Maybe it is too large for the memory."""

    def __init__(self, rows: int, deaths: int) -> None:
        self.rows, self.deaths = rows, deaths
        super().__init__(
            f"{deaths} archivists have died with a task of {rows} rows, which is tried again behind others"
        )


class DataRefused(CannotArchive):
    """A stream's rows cannot be made or written, for a reason of their own."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the archive does not take it: {reason}")


class QueryRefused(ServerError):
    """A statement is not answered, or not to its end."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the query is not answered: {reason}")


class NotErasedYet(ServerError):
    """A stream is not erased everywhere yet. It is marked: nothing more of it is stored."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the stream is marked, and not erased everywhere yet: {why}; run it again")


class KeptDamaged(ServerError):
    """A file of the quarantine is damaged, or was never one."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"quarantine/{name} is damaged: {reason}")


class UnknownStream(ServerError):
    """No segment has a document of this stream."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        super().__init__(f"no segment has a document of stream {stream[:80]!a}")


class CannotLoad(ServerError):
    """A load is not posted; its words say what to change."""


class NothingDeclared(CannotLoad):
    """There is no declaration, or none names anything of these kinds that has not expired."""

    def __init__(self, applications: Collection[str], kinds: Collection[str]) -> None:
        self.applications, self.kinds = applications, kinds
        what = " and ".join(sorted(kinds))
        where = ", ".join(applications) or "no declaration"
        super().__init__(f"nothing to make documents of ({what}): looked at {where}; name one with --declaration")


class NoServer(CannotLoad):
    """Not one connection could be made."""

    def __init__(self, address: str, failure: BaseException) -> None:
        self.address, self.failure = address, failure
        super().__init__(f"no connection to {address}: {str(failure) or type(failure).__name__}")
