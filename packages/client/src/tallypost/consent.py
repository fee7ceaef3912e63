"""Consent: one pure function decides what a process may do, and any *off* wins.

Takes   what the constructor, the administrator, the environment and the user said.
Gives   a mode, who decided it, since when, and the mode line under which count files are made.
Never   asks, reads or writes; never says *on* without a saved yes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    Mode = Literal["on", "local", "off"]
    Source = Literal[
        "constructor", "system file", "DO_NOT_TRACK", "TALLYPOST", "CI", "test runner", "mode file", "default"
    ]

SYSTEM_FILE = "/etc/tallypost/mode"
MODES: tuple[Mode, ...] = ("on", "local", "off")
WHO = ("user", "application", "administrator")


class ModeLine:
    """What a mode file says: mode, UTC day of the change, consent version, who said it."""

    __slots__ = ("consent_version", "day", "mode", "who")

    def __init__(self, mode: Mode, day: str, consent_version: int, who: str) -> None:
        self.mode, self.day, self.consent_version, self.who = mode, day, consent_version, who

    def __str__(self) -> str:
        return f"{self.mode} {self.day} {self.consent_version} {self.who}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModeLine) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def parse_mode_line(text: str) -> ModeLine | None:
    """The mode line in a mode file's text, or None if it is anything but one whole line of the four fields."""
    fields = (text[:-1] if text.endswith("\n") else text).split(" ")
    if len(fields) != 4:
        return None
    word, day, version, who = fields
    mode = next((mode for mode in MODES if mode == word), None)
    if mode is None or who not in WHO or not _is_day(day) or not (_is_digits(version) and len(version) <= 16):
        return None
    return ModeLine(mode, day, int(version), who) if 1 <= int(version) < 2**53 else None


class Decision:
    """What a process may do: `mode`, the `source` that decided it, `since` which day, if that is known."""

    __slots__ = ("line", "mode", "since", "source")

    def __init__(self, mode: Mode, source: Source, since: str | None, line: str) -> None:
        self.mode, self.source, self.since, self.line = mode, source, since, line


def decide(
    *,
    default: str,
    system_file: str | None,
    environ: Mapping[str, str],
    test_runner: bool,
    mode_file: str | None,
    consent_version: int | None,
) -> Decision:
    """What a process may do.

    `system_file` and `mode_file` are the texts of those files, None where there is none. `consent_version` is the
    declaration's, None where it is not known: then a yes counts for any (the reporter asks again, knowing it).
    `line` of the decision is the saved mode line if the process may act on it, else words that equal no saved line.
    """
    saved = parse_mode_line(mode_file) if mode_file is not None else None
    said = environ.get("TALLYPOST", "")
    system = system_file.strip() if system_file is not None else ""

    if default == "off":
        return _imposed("off", "constructor")
    if system_file is not None and system not in ("on", "local"):
        return _imposed("off", "system file")
    if is_set(environ, "DO_NOT_TRACK"):
        return _imposed("off", "DO_NOT_TRACK")
    if said and said not in ("on", "local"):
        return _imposed("off", "TALLYPOST")
    if not said and is_set(environ, "CI"):
        return _imposed("off", "CI")
    if not said and test_runner:
        return _imposed("off", "test runner")
    if mode_file is not None and (saved is None or saved.mode == "off"):
        return Decision("off", "mode file", saved.day if saved else None, str(saved or "off"))

    if system == "local":
        return _imposed("local", "system file")
    if said == "local" or (said == "on" and saved is None):
        return _imposed("local", "TALLYPOST")
    if saved is None:
        return _imposed("local", "default")
    if saved.mode == "on" and consent_version is not None and consent_version > saved.consent_version:
        return Decision("local", "mode file", saved.day, str(saved))
    return Decision(saved.mode, "mode file", saved.day, str(saved))


def may_leave(begun_under: str, day: str, mode: ModeLine | None, consent_version: int) -> str | None:
    """Why what was counted or logged may not leave, or None if it may: it began under the present yes, after its day.

    `begun_under` is the mode line in force when it began, `day` its UTC day, `mode` the saved mode line, and
    `consent_version` that of the declaration it was made under.
    """
    if mode is None or mode.mode != "on":
        return "the mode is not on"
    if begun_under != str(mode):
        return "it began before the yes, or under another one"
    if day <= mode.day:
        return "it began on the day of the yes; what begins on the next day may leave"
    if consent_version > mode.consent_version:
        return "the declaration asks for a newer consent"
    return None


def is_set(environ: Mapping[str, str], variable: str) -> bool:
    """Whether a switch of the environment is on: any value but empty, ``0``, ``false``."""
    return environ.get(variable, "").strip().lower() not in ("", "0", "false")


def is_test_runner(environ: Mapping[str, str], main: object) -> bool:
    """Whether pytest or unittest runs this process, or started it."""
    if environ.get("PYTEST_CURRENT_TEST") or environ.get("PYTEST_VERSION"):
        return True
    package = getattr(main, "__package__", None)
    return package in ("pytest", "unittest")


def _imposed(mode: Mode, source: Source) -> Decision:
    return Decision(mode, source, None, f"{mode} - {source}")


def _is_day(text: str) -> bool:
    # By hand: this is on the recording path, where datetime is not imported.
    if len(text) != 10 or text[4] != "-" or text[7] != "-" or not _is_digits(text[:4] + text[5:7] + text[8:]):
        return False
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 28 + leap if month == 2 else 30 if month in (4, 6, 9, 11) else 31
    return year >= 1 and 1 <= month <= 12 and 1 <= day <= days


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
