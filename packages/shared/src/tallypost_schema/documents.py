"""The two documents that are posted, upload report and event batch, and the rules beyond their types.

Takes   bytes, or structs.
Gives   structs that keep every rule, or bytes with the keys in their fixed order.
Never   looks at a declaration, a clock or a disk.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from . import limits, names, strict_json
from .errors import Invalid

Count: TypeAlias = Annotated[int, Meta(ge=0, le=limits.count_max)]
Hex32: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Struct_ = TypeVar("Struct_", bound=Struct)
Field: TypeAlias = str | bool | int | float

# Without leap seconds: neither a clock of Python nor the archive's columns have them.
_AT = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?Z", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class Program(Struct, frozen=True):
    """One executable of an application, in one version, on one kind of system."""

    program: str
    version: str
    python: str
    os: str
    arch: str


class ProgramCounts(Program, frozen=True):
    """What one program counted: counters by name, stacks by name and frames."""

    counters: dict[str, Count]
    stacks: dict[str, Count]

    def key(self) -> Program:
        """The program alone, without what it counted."""
        return Program(self.program, self.version, self.python, self.os, self.arch)


class Report(Struct, frozen=True):
    """An upload report: of one UTC day, what declaration and upload config name."""

    v: Literal[1]
    kind: Literal["report"]
    x: Annotated[float, Meta(ge=0, lt=1)]
    id: Hex32
    app: str
    day: str
    previous: str | None
    config: str | None
    programs: list[ProgramCounts]


class Event(Struct, frozen=True):
    """A declared event, or ``{}``: one that keeps its place and says nothing."""

    name: str | UnsetType = UNSET
    at: str | UnsetType = UNSET
    fields: dict[str, Field] | UnsetType = UNSET


class Batch(Struct, frozen=True):
    """Consecutive events of one session, from index `first`, of which the first `lost` are lost."""

    v: Literal[1]
    kind: Literal["events"]
    app: str
    session: Hex32
    first: Count
    lost: Count
    terminal: Count | None
    program: Program
    events: list[Event]

    @property
    def last(self) -> int:
        """The index of the last event that this batch accounts for; `first` - 1 if there is none."""
        return self.first + self.lost + len(self.events) - 1


Document: TypeAlias = Report | Batch

_COUNTER_RULE = f"{names.NAME_RULE}, at most one :bucket"
_FRAMES_RULE = f"{names.STACK_RULE}, frames module:function:+line"
_LABEL_RULE = f"1 to {limits.label_characters_max} printable characters"
_FIELD_TEXT_RULE = f"{limits.field_characters_max} printable characters at most"
_DAY_RULE = "a day as 2026-11-24"
_AT_RULE = "a UTC time as 2026-11-24T10:00:00.123Z"

# Module, function and line of a frame, without control characters and lone surrogates: as `names` has it.
_TEXT = r"[^:\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
_FRAME = re.compile(rf"{_TEXT}:{_TEXT}:\+[0-9]+")

_encoder = msgspec.json.Encoder()
_report_decoder = msgspec.json.Decoder(Report)
_batch_decoder = msgspec.json.Decoder(Batch)


def encode(document: Document) -> bytes:
    """The document's bytes: UTF-8 JSON without insignificant space, keys in their fixed order."""
    return _encoder.encode(document)


def decode_report(body: bytes) -> Report:
    """The upload report that `body` is.

    Raises:
        Malformed: not one strict JSON object.
        Invalid: an object that breaks a report's rules.
    """
    report = canonical_report(body)
    if report is None:
        return report_of(strict_json.decode(body))
    check_report(report)
    return report


def decode_batch(body: bytes) -> Batch:
    """The event batch that `body` is.

    Raises:
        Malformed: not one strict JSON object.
        Invalid: an object that breaks a batch's rules.
    """
    batch = canonical_batch(body)
    if batch is None:
        return batch_of(strict_json.decode(body))
    check_batch(batch)
    return batch


def canonical_report(body: bytes) -> Report | None:
    """The upload report of which `encode` makes exactly `body`, or None: then `decode_report` tells what `body` is.

    All that our clients post is such, and it is read in half the time. Its types are right; `check_report` tells of its
    rules.
    """
    return _canonical(body, _report_decoder)


def canonical_batch(body: bytes) -> Batch | None:
    """The event batch of which `encode` makes exactly `body`, or None; `check_batch` tells of its rules."""
    return _canonical(body, _batch_decoder)


def report_of(value: dict[str, Any]) -> Report:
    """The upload report in a decoded object; unknown keys are left out.

    Raises:
        Invalid: it breaks a report's rules.
    """
    report = _convert(value, Report)
    check_report(report)
    return report


def check_report(report: Report, counters: frozenset[str] = frozenset(), stacks: frozenset[str] = frozenset()) -> bool:
    """Whether all that a report counts is among these counters and these names of stacks, which keep their rules.

    Raises:
        Invalid: it breaks a report's rules.
    """
    if not _applications.keep((report.app,)):
        raise _refused("app", report.app, names.APPLICATION_RULE)
    if not _days.keep((report.day,)):
        raise _refused("day", report.day, _DAY_RULE)
    if report.previous is not None and not _days.keep((report.previous,)):
        raise _refused("previous", report.previous, f"{_DAY_RULE}, or null")
    if report.config is not None and not _labels.keep((report.config,)):
        raise _refused("config", report.config, f"{_LABEL_RULE}, or null")
    are_known = True
    for program in report.programs:
        _check_program(program)
        if not counters.issuperset(program.counters):
            are_known = False
            if not _counters.keep(program.counters):
                raise _refused("counters", _first(program.counters, names.is_counter), _COUNTER_RULE)
        if program.stacks:
            are_known = _check_stacks(program.stacks, stacks) and are_known
    return are_known


def batch_of(value: dict[str, Any]) -> Batch:
    """The event batch in a decoded object; unknown keys are left out.

    Raises:
        Invalid: it breaks a batch's rules.
    """
    batch = _convert(value, Batch)
    check_batch(batch)
    return batch


def check_batch(batch: Batch) -> None:
    """Nothing, if a batch is one.

    Raises:
        Invalid: it breaks a batch's rules.
    """
    if not _applications.keep((batch.app,)):
        raise _refused("app", batch.app, names.APPLICATION_RULE)
    _check_program(batch.program)
    for event in batch.events:
        _check_event(event)
    if batch.last > limits.count_max:
        raise Invalid(f"the batch's last index is {batch.last}, allowed is {limits.count_max} at most")
    if batch.terminal is not None and batch.terminal < batch.last:
        raise Invalid(f"terminal is {batch.terminal}, below the batch's own last index {batch.last}")
    if not batch.events and batch.lost == 0 and batch.terminal != batch.last:
        raise Invalid(
            "a batch without events has a lost range, or closes its session: then first is terminal + 1; "
            f"given were first {batch.first}, lost 0, terminal {batch.terminal}"
        )


def day_of(text: str) -> datetime.date | None:
    """The UTC day that `text` spells as YYYY-MM-DD, or None."""
    return _day_of(text) if len(text) == 10 else None


def session_x(session: str) -> float:
    """The number in [0, 1) by which a session's events are sampled: its first 13 hex digits by 16¹³."""
    return int(session[:13], 16) / 16**13  # 52 bits, so that the quotient is exact


def _canonical(body: bytes, decoder: msgspec.json.Decoder[Struct_]) -> Struct_ | None:
    # Bytes that come back are JSON that no two readers read differently: a key twice, space, or an unknown key would
    # be lacking. Only how many containers they hold is not known; as many as are allowed need more bytes than this.
    if len(body) > limits.containers_max:
        return None
    try:
        document = decoder.decode(body)
        return document if _encoder.encode(document) == body else None
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None


def _convert(value: object, kind: type[Struct_]) -> Struct_:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error


def _check_program(program: Program) -> None:
    if not _programs.keep((program.program,)):
        raise _refused("program", program.program, names.PROGRAM_RULE)
    if not _labels.keep((program.version, program.python, program.os, program.arch)):
        for key in ("version", "python", "os", "arch"):
            if not names.is_label(getattr(program, key)):
                raise _refused(key, getattr(program, key), _LABEL_RULE)


def _check_event(event: Event) -> None:
    if event.name is UNSET or event.at is UNSET or event.fields is UNSET:
        if event.name is UNSET and event.at is UNSET and event.fields is UNSET:
            return
        raise Invalid("an event has name, at and fields, or is {}")
    if len(event.name) > limits.name_characters_max or not _is_name(event.name):
        raise _refused("name", event.name, names.NAME_RULE)
    if _AT.fullmatch(event.at) is None or day_of(event.at[:10]) is None:
        raise _refused("at", event.at, _AT_RULE)
    if len(event.fields) > limits.event_fields_max:
        raise Invalid(f"an event has {len(event.fields)} fields, allowed are {limits.event_fields_max}")
    if not _fields.keep(event.fields):
        raise _refused("fields", _first(event.fields, names.is_field), names.FIELD_RULE)
    for key, field in event.fields.items():
        if isinstance(field, str):
            if len(field) > limits.field_characters_max or names.has_control(field):
                raise _refused(f"field {key}", field, _FIELD_TEXT_RULE)
        elif not 0 <= field <= limits.count_max:  # A comparison takes whole numbers of any length; NaN fails it.
            raise _refused(f"field {key}", str(field), f"a number from 0 to {limits.count_max}")


@lru_cache(maxsize=64)  # Few days are within the horizon, and every event has one.
def _day_of(text: str) -> datetime.date | None:
    if _DAY.fullmatch(text) is None:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def _refused(key: str, given: str, allowed: str) -> Invalid:
    return Invalid(f"{key} is {given[:80]!a}, allowed is {allowed}")


def _first(texts: Iterable[str], rule: Callable[[str], bool]) -> str:
    return next(text for text in texts if not rule(text))


class _Kept:
    """Whether texts keep a rule. Those that do are kept: a server meets the same names in every document.

    The length is looked at before one is kept, and so many are kept at most: they stay small, whoever sends them.
    """

    __slots__ = ("_answers", "_characters_max", "_kept", "_rule")

    def __init__(
        self, rule: Callable[[str], bool], characters_max: int = limits.name_characters_max, answers: int = 4096
    ) -> None:
        self._rule, self._characters_max, self._answers = rule, characters_max, answers
        self._kept: set[str] = set()

    def keep(self, texts: Collection[str]) -> bool:
        """Whether all of `texts` do."""
        if self._kept.issuperset(texts):
            return True
        if max(map(len, texts)) > self._characters_max or not all(map(self._rule, texts)):
            return False
        if len(self._kept) + len(texts) > self._answers:
            self._kept.clear()
        if len(texts) <= self._answers:
            self._kept.update(texts)
        return True


def _check_stacks(texts: Collection[str], known: frozenset[str]) -> bool:
    """Whether all have a name that is known. They are stacks by `names.is_stack`, or Invalid is raised.

    Hardly two documents have the same stacks, but their frames come again.
    """
    stack_names: list[str] = []
    frames: list[str] = []
    for text in texts:
        name, line_feed, its_frames = text.partition("\n")
        stack_names.append(name)
        if line_feed:
            frames.append(its_frames)
    all_frames = "\n".join(frames)
    are_known = known.issuperset(stack_names)
    # All frames together are as long as those of one at least, and a character is four bytes at most: hardly a text is
    # encoded to be measured.
    are_short = 4 * (len(all_frames) + limits.name_characters_max + 1) <= limits.stack_bytes_max
    if not (
        (are_known or _stack_names.keep(stack_names))
        and (not frames or _are_frames(all_frames.split("\n")))
        and (are_short or all(map(_is_short_enough, texts)))
    ):
        raise _refused("stacks", _first(texts, names.is_stack), _FRAMES_RULE)
    return are_known


def _are_frames(texts: list[str]) -> bool:
    # Hardly a frame is longer than a name may be; such a one is looked at each time.
    return _short_frames.keep(texts) or all(map(_is_frame, texts))


def _is_frame(text: str) -> bool:
    return _FRAME.fullmatch(text) is not None


def _is_short_enough(text: str) -> bool:
    return len(text.encode("utf-8", "surrogatepass")) <= limits.stack_bytes_max


_counters, _fields, _stack_names = _Kept(names.is_counter), _Kept(names.is_field), _Kept(names.is_stack_name)
_applications = _Kept(names.is_application, limits.application_characters_max)
_programs = _Kept(names.is_program, limits.program_characters_max)
_labels = _Kept(names.is_label, limits.label_characters_max)
_days = _Kept(lambda text: day_of(text) is not None, answers=64)
_short_frames = _Kept(_is_frame, answers=8192)
_is_name = lru_cache(maxsize=4096)(names.is_name)
