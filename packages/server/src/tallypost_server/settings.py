"""The settings: each declared once, with its own sentence, whichever of four places it is set in.

Takes   flags, variables ``TALLYPOST_SERVER_…``, a TOML file; the first of them that has a setting decides.
Gives   `Settings`, and where each came from.
Never   goes on past a name that it does not know: a misspelt setting must not be a default in disguise.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from .errors import SettingsInvalid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLE_PREFIX = "TALLYPOST_SERVER_"
# How the address of a database begins that is no file.
POSTGRESQL = "postgresql+psycopg://"
_PASSWORD = re.compile(r"(?<=://)(?P<user>[^/@\s]*?:)[^/\s]*(?=@)|(?P<name>[?&]password=)[^&\s]*")
# So many years are for ever.
_DAYS_MAX = 36_500


HotPath: TypeAlias = Literal["auto", "on", "off"]
LogFormat: TypeAlias = Literal["text", "json"]


class Listen(NamedTuple):
    """Where the server listens: a host and port, or the path of a socket."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class KeepDays(NamedTuple):
    """For how many days rows of the archive are kept, behind the day of their partition; 0: for ever."""

    all: int = 0
    of: tuple[tuple[str, int], ...] = ()
    """Of single applications."""

    def __str__(self) -> str:
        return ",".join([str(self.all), *(f"{app}={days}" for app, days in self.of)])

    @property
    def any(self) -> bool:
        """Whether anything goes at all."""
        return bool(self.all or any(days for _, days in self.of))

    def over_on(self, app: str, day: datetime.date) -> datetime.date | None:
        """The first day on which rows of a day are over; None if they are kept for ever."""
        days = dict(self.of).get(app, self.all)
        return day + datetime.timedelta(days=days + 1) if days else None

    def is_over(self, app: str, day: datetime.date, today: datetime.date) -> bool:
        """Whether rows of a day are over."""
        over = self.over_on(app, day)
        return over is not None and over <= today

    def may_be_over(self, day: datetime.date, today: datetime.date) -> bool:
        """Whether rows of a day are over for any application."""
        return any(self.is_over(app, day, today) for app in ("", *dict(self.of)))


class Setting(NamedTuple):
    """A declared setting: its key in the file, how it is read, what holds without it, how it is shown in help."""

    name: str
    parse: Callable[[object], object]
    default: object
    given_as: str
    sentence: str

    @property
    def flag(self) -> str:
        """Its flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its variable."""
        return VARIABLE_PREFIX + self.name.upper()


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings in force. `sources` tells for each where it came from."""

    data: Path
    listen: Listen
    applications: Path
    seal_bytes: int
    seal_seconds: float
    reserve_bytes: int
    archive: str
    coordinator: str
    archive_delay: float
    archive_max_delay: float
    archive_batch_seconds: float
    scan_seconds: float
    keep_days: KeepDays
    no_archive: bool
    hot_path: HotPath
    rate_per_address: int
    trusted_hops: int
    workers: int
    log_format: LogFormat
    sources: Mapping[str, str]

    def shown(self) -> dict[str, dict[str, Any]]:
        """Each setting with its value and its source, as ``config --check`` prints them."""
        values = {setting.name: getattr(self, setting.name) for setting in DECLARED}
        return {
            name: {
                "value": value if isinstance(value, (int, float)) else without_password(str(value)),
                "source": self.sources[name],
            }
            for name, value in values.items()
        }


def _path(given: object) -> Path:
    if not isinstance(given, (str, Path)) or not str(given):
        raise ValueError("the path of a folder")
    return Path(given)


def _listen(given: object) -> Listen:
    rule = "HOST:PORT (127.0.0.1:8080, [::1]:8080) or unix:PATH"
    if not isinstance(given, str):
        raise ValueError(rule)
    if given.startswith("unix:"):
        if given == "unix:":
            raise ValueError(rule)
        return Listen("", 0, given.removeprefix("unix:"))
    host, colon, port = given.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(rule)
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(rule)
    return Listen(host, int(port), "")


def _bytes(given: object) -> int:
    rule = "a whole number of bytes, from 1 on"
    number = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given
    if type(number) is not int or not 1 <= number <= 2**53 - 1:
        raise ValueError(rule)
    return number


def _reserve(given: object) -> int:
    return 0 if given in (0, "0") and given is not False else _bytes(given)


def _seconds(given: object) -> float:
    rule = "a number of seconds above 0"
    try:
        number = float(given) if isinstance(given, (str, int, float)) and not isinstance(given, bool) else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number < 2**31:
        raise ValueError(rule)
    return number


def _pause(given: object) -> float:
    return 0.0 if given in (0, "0", "0.0") and given is not False else _seconds(given)


def _place(given: object) -> str:
    rule = "the path of a folder, or s3://BUCKET/PREFIX"
    if not isinstance(given, (str, Path)) or not str(given):
        raise ValueError(rule)
    scheme, separator, bucket = str(given).partition("://")
    if separator and (scheme != "s3" or not bucket.strip("/")):  # Else it would be taken for a folder.
        raise ValueError(rule)
    return str(given)


def _database(given: object) -> str:
    rule = f"the path of a file, or {POSTGRESQL}USER@HOST/DATABASE"
    if not isinstance(given, (str, Path)) or not str(given):
        raise ValueError(rule)
    if "://" in str(given) and not str(given).startswith(POSTGRESQL):  # Else it would be taken for a file.
        raise ValueError(rule)
    return str(given)


def without_password(text: str) -> str:
    """An address, or a text with one, as others may see it."""
    return _PASSWORD.sub(lambda found: f"{found['user'] or found['name']}***", text)


def _keep_days(given: object) -> KeepDays:
    rule = (
        "a number of days, 0 for ever, and of single applications others: 365,example.org/mytool=90; in a file also "
        'a table: { all = 365, "example.org/mytool" = 90 }'
    )
    if isinstance(given, str):
        pairs = [part.rpartition("=")[::2] for part in given.split(",")]
        found: dict[str, object] = {app.strip() or "all": days.strip() for app, days in pairs}
        if len(found) != len(pairs):
            raise ValueError(rule)
    else:
        found = dict(given) if isinstance(given, Mapping) else {"all": given}
    try:
        days = {app: _whole(number) for app, number in found.items()}
    except ValueError:
        raise ValueError(rule) from None
    if any(number > _DAYS_MAX or (app != "all" and "/" not in app) for app, number in days.items()):
        raise ValueError(rule)
    return KeepDays(days.pop("all", 0), tuple(sorted(days.items())))


def _flag(given: object) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    value = words.get(given.lower()) if isinstance(given, str) else given
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _whole(given: object) -> int:
    number = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given
    if type(number) is not int or not 0 <= number < 2**31:
        raise ValueError("a whole number, from 0 on")
    return number


def _workers(given: object) -> int:
    number = _whole(given)
    if not 1 <= number <= 64:
        raise ValueError("a whole number, from 1 to 64")
    return number


def _log_format(given: object) -> LogFormat:
    words: dict[object, LogFormat] = {"text": "text", "json": "json"}
    if not isinstance(given, str) or given not in words:
        raise ValueError("text or json")
    return words[given]


def _hot_path(given: object) -> HotPath:
    words: dict[object, HotPath] = {"auto": "auto", "on": "on", "off": "off"}
    if not isinstance(given, str) or given not in words:
        raise ValueError("auto, on or off")
    return words[given]


DECLARED: tuple[Setting, ...] = (
    Setting("data", _path, "./tallypost-data", "DIR", "The folder in which everything lies that the server stores."),
    Setting(
        "listen",
        _listen,
        "127.0.0.1:8080",
        "HOST:PORT",
        "Where requests are taken: HOST:PORT (port 0 takes a free one) or unix:PATH.",
    ),
    Setting(
        "applications",
        _path,
        None,
        "DIR",
        "The folder with the telemetry.toml of each application, under any name ending in .toml; "
        "by default the folder applications in the data folder.",
    ),
    Setting("seal_bytes", _bytes, 10 << 20, "N", "A segment is sealed when it has so many bytes of lines."),
    Setting("seal_seconds", _seconds, 60.0, "S", "A segment is sealed so many seconds after its first line."),
    Setting(
        "reserve_bytes",
        _reserve,
        64 << 20,
        "N",
        "So many bytes of the disk stay free for sealing; below, documents are answered 503 no_space.",
    ),
    Setting(
        "archive",
        _place,
        None,
        "PLACE",
        "Where the tables lie: a folder, or s3://BUCKET/PREFIX; by default the folder archive in the data folder.",
    ),
    Setting(
        "coordinator",
        _database,
        None,
        "DATABASE",
        "What knows of each session what has come: a file, or postgresql+psycopg://USER@HOST/DATABASE; by default "
        "coordinator.sqlite in the data folder.",
    ),
    Setting(
        "archive_delay",
        _pause,
        300.0,
        "S",
        "A complete session is archived so many seconds after its last entry.",
    ),
    Setting(
        "archive_max_delay",
        _pause,
        604_800.0,
        "S",
        "What waits for so many seconds in a session that is not complete is archived with gaps.",
    ),
    Setting(
        "archive_batch_seconds",
        _pause,
        900.0,
        "S",
        "What is due waits for so many seconds for more, so that files are large; archive --once waits for none.",
    ),
    Setting(
        "scan_seconds", _seconds, 60.0, "S", "How often an archivist looks for sealed segments and for what is due."
    ),
    Setting(
        "keep_days",
        _keep_days,
        0,
        "N",
        "For how many days the archive keeps what it has, of single applications for how many others: "
        "365,example.org/mytool=90; 0: for ever.",
    ),
    Setting(
        "no_archive",
        _flag,
        False,
        "",
        "Only ingest: sealed segments stay where they are, for an archivist that is started otherwise.",
    ),
    Setting(
        "hot_path",
        _hot_path,
        "auto",
        "WORD",
        "Whether documents are taken before the ASGI cycle, which answers the same and costs less: on, off, "
        "or auto: where uvicorn's version is one that this was tested with.",
    ),
    Setting(
        "rate_per_address",
        _whole,
        0,
        "N",
        "From one address so many documents are taken in a minute by each worker, more are answered 503 busy; "
        "0: any number.",
    ),
    Setting(
        "trusted_hops",
        _whole,
        0,
        "N",
        "How many proxies in front of the server are yours: the sender is the one that the outermost of them has "
        "named in X-Forwarded-For, or in Forwarded; 0: who connects is the sender.",
    ),
    Setting(
        "workers",
        _workers,
        1,
        "N",
        "How many processes take documents, each with a segment of its own; as many as there are cores to spare.",
    ),
    Setting("log_format", _log_format, "text", "WORD", "How an entry of the log is written: text or json."),
)
# Those that follow another setting.
IN_DATA = {"applications": "applications", "archive": "archive", "coordinator": "coordinator.sqlite"}
ARCHIVAL = frozenset(
    (
        "archive",
        "coordinator",
        "archive_delay",
        "archive_max_delay",
        "archive_batch_seconds",
        "scan_seconds",
        "keep_days",
    )
)
_BY_NAME = {setting.name: setting for setting in DECLARED}
# Which file to read is no setting of the file itself.
CONFIG_VARIABLE = VARIABLE_PREFIX + "CONFIG"


def load(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None) -> Settings:
    """The settings in force.

    Raises:
        SettingsInvalid: with a sentence for each problem of all places.
    """
    problems: list[str] = []
    variables = {}
    for variable, text in environment.items():
        if not variable.startswith(VARIABLE_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = variable.removeprefix(VARIABLE_PREFIX).lower()
        if name in _BY_NAME and variable == _BY_NAME[name].variable:
            variables[name] = text
        else:
            problems.append(f"the variable {variable} is no setting; {_allowed(CONFIG_VARIABLE, 'variable')}")
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    keys = _read(config, problems) if config is not None else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in DECLARED:
        name = setting.name
        if name in flags:
            given, source = flags[name], setting.flag
        elif name in variables:
            given, source = variables[name], setting.variable
        elif name in keys:
            given, source = keys[name], str(config)
        else:
            given, source = setting.default, "default"
        if given is None:
            given = values["data"] / IN_DATA[name]
        sources[name] = source
        try:
            values[name] = setting.parse(given)
        except ValueError as failure:
            problems.append(f"{name} ({source}) is {without_password(ascii(given)):.80}, allowed is {failure}")
            values[name] = Path()  # Never used: only the folders that follow it need something here.
    if values["rate_per_address"] and not values["trusted_hops"] and getattr(values["listen"], "path", ""):
        problems.append(
            f"rate_per_address ({sources['rate_per_address']}) is set, but who sends through a socket in the file "
            "system is told by a proxy alone: set trusted_hops"
        )
    if problems:
        raise SettingsInvalid(problems)
    return Settings(**values, sources=sources)


def _read(config: Path, problems: list[str]) -> dict[str, object]:
    try:
        keys = tomllib.loads(config.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        problems.append(f"the settings file {config} cannot be read: {failure}")
        return {}
    problems += [f"{config}: {key!a} is no setting; {_allowed('', 'name')}" for key in keys if key not in _BY_NAME]
    return {key: value for key, value in keys.items() if key in _BY_NAME}


def _allowed(first: str, which: str) -> str:
    return "allowed are " + ", ".join([*([first] if first else []), *(getattr(known, which) for known in DECLARED)])
