"""The whole way through, on a real application: `python scripts/demo.py`, or `make demo`.

Takes   an environment with Tallypost, its server and black (`make setup` makes it); `--dir` for another folder.
Gives   a demo folder to look around in; exit code 0 only if each claim on the way was checked and holds.
Never   touches the user's own telemetry or settings; never leaves a process behind, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import http.client
import importlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "black"
DECLARATION = EXAMPLE / "black_with_telemetry" / "telemetry.toml"
APPLICATION = "example.org/black"

COLUMNS = 100
READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30
COMMAND_SECONDS_MAX = 120
# Known by this file, a folder is a demo's and may be replaced.
MARK = "made-by-demo.txt"

# Packages of the standard library, which nobody formats with black: something to do, and a few seconds at most.
PACKAGES = ("json", "html", "collections", "wsgiref", "email.mime")
# A value of an option, and names of files: in no file of the telemetry may they be found.
VALUE = "customer-records"
BROKEN = "half_written.py"

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of black: what it formats, and with which options."""

    target: str
    options: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the options, without their values."""
        return [word.removeprefix("--") for word in self.options if word.startswith("--")]

    def __str__(self) -> str:
        return shlex.join(["black", *self.options, self.target])


# How many days ago, and what was run on that day, all at once. The yes is said on the day in the middle.
BEFORE_THE_YES = {
    7: [
        Run("json", ("--check",)),
        Run("html", ("--check", "--quiet")),
        Run("mime", ("--diff", "--quiet")),
        Run("collections", ("--check", "--line-length", "100")),
    ],
    6: [Run("json"), Run("html", ("--quiet",)), Run("mime"), Run("collections", ("--workers", "1"))],
    5: [Run("json", ("--check",)), Run("wsgiref", ("--check", "--fast")), Run(BROKEN), Run("html", ("--check",))],
}
DAY_OF_THE_YES = 4
AFTER_THE_YES = {
    4: [Run("json", ("--check",)), Run("wsgiref", ("--extend-exclude", VALUE)), Run(BROKEN, ("--quiet",))],
    3: [
        Run("json", ("--line-length", "79")),
        Run("html", ("--check", "--verbose")),
        Run("mime", ("--check", "--skip-string-normalization")),
        Run("collections", ("--check", "--target-version", "py310")),
    ],
    2: [Run("json", ("--diff", "--quiet")), Run("wsgiref", ("--check", "--extend-exclude", VALUE)), Run(BROKEN)],
    1: [
        Run("json", ("--line-length", "100")),
        Run("html", ("--quiet",)),
        Run("mime", ("--no-such-option",)),
        Run(BROKEN, ("--check",)),
    ],
    0: [Run("json", ("--check",))],
}


class Failed(Exception):
    """A claim does not hold, or something outside stands in the way; the message says which, and what was found."""


# ---------------------------------------------------------------- saying


def put(*lines: str) -> None:
    """Lines as they are; at once, so that progress is seen where output is piped."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A paragraph, wrapped."""
    put(*textwrap.wrap(text, COLUMNS, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False))


def show(text: str, *, hanging: int = 0, lines_max: int = 100) -> None:
    """Output of a command, or a file; what is too long for a line goes on in the next one, `hanging` further in."""
    lines = text.rstrip("\n").split("\n")
    for line in lines[:lines_max]:
        wrapped = textwrap.wrap(
            line, COLUMNS - 5, subsequent_indent=" " * hanging, drop_whitespace=bool(hanging), break_on_hyphens=False
        )
        put(*(f"   | {part.rstrip()}" for part in wrapped or [""]))
    if len(lines) > lines_max:
        put(f"   | ... and {len(lines) - lines_max} more lines")


def check(holds: object, claim: str, found: object = "") -> None:
    """Go on if the claim holds.

    Raises:
        Failed: it does not.
    """
    if not holds:
        raise Failed(f"This does not hold: {claim}" + (f"\nFound: {found}" if found != "" else ""))
    lines = textwrap.wrap(claim, COLUMNS - 6)
    put(f"   ok {lines[0]}", *(f"      {line}" for line in lines[1:]))


# ---------------------------------------------------------------- processes


class Processes:
    """All that the demo starts; each in a group of its own, so that what it starts in turn ends with it."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, command: Sequence[str | Path], environment: dict[str, str], **streams: Any
    ) -> subprocess.Popen[str]:
        """Start a command."""
        # The number of a group that has ended may be given to strangers: it is not kept longer than need be.
        self._started = [one for one in self._started if one.poll() is None or _group_lives(one.pid)]
        process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            **streams,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """End whatever still runs, and wait until it has."""
        for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + seconds
            for process in self._started:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)
            for process in self._started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
            if not any(_group_lives(process.pid) for process in self._started):
                return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def environment_of(folder: Path, endpoint: str) -> dict[str, str]:
    """The demo's environment: this one without anything that decides about telemetry, or stands in the way of it."""
    refused = ("TALLYPOST", "PYTEST_", "BLACK_", "GITHUB_")
    named = ("CI", "DO_NOT_TRACK", "PYTHONPATH", "PYTHONHOME")
    kept = {
        name: value
        for name, value in os.environ.items()
        # The server is on this machine: no proxy on the way.
        if not name.startswith(refused) and name not in named and not name.lower().endswith("_proxy")
    }
    return kept | {
        "PYTHONPATH": str(EXAMPLE),
        "PYTHONUTF8": "1",
        "BLACK_CACHE_DIR": str(folder / "black-cache"),
        "TALLYPOST_DIR": str(folder / "user"),
        "TALLYPOST_ENDPOINT": endpoint,
    }


# ---------------------------------------------------------------- the demo


class Demo:
    """The way through, a method a step; what one step finds the next ones use."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        self.project, self.output = folder / "project", folder / "black-output"
        self.data = folder / "server"
        self.state = folder / "user" / Path(*APPLICATION.split("/"))
        # Every command runs under a clock that was fixed here: midnight may pass while the demo runs.
        self.today = datetime.datetime.now(tz=datetime.timezone.utc).date()
        self.environment: dict[str, str] = {}
        self.server: subprocess.Popen[str] | None = None
        # What black was asked to do and how it ended, by day: kept apart, to compare with what Tallypost counted.
        self.tally: dict[str, Counter[str]] = {}
        self.reports: dict[str, Json] = {}
        self.previewed: list[bytes] = []
        self.segments: list[Path] = []

    def run(self) -> None:
        """All steps."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("An empty folder, a server, and some code to format", self.prepare),
            ("A user formats code for three days; nobody was asked for anything yet", self.count_before),
            ("What would be sent, had the user said yes", self.preview_before),
            ("The user says yes", self.say_yes),
            ("Four more days, and today", self.count_after),
            ("The days that are over become reports, and it is decided what may leave", self.report),
            ("The reports leave", self.upload),
            ("The server stops, and what it stored is compared with what was sent", self.compare),
            ("Nothing but what was declared has left", self.look_for_secrets),
            ("The makers have it archived, and ask", self.archive),
        ]
        for number, (title, step) in enumerate(steps, 1):
            put("", f"{number}/{len(steps)}  {title}", "")
            step()

    # ------------------------------------------------------------ the steps

    def prepare(self) -> None:
        """A fresh folder, the server in it, and copies of a few packages."""
        make_afresh(self.folder)
        for package in PACKAGES:
            source = Path(str(importlib.import_module(package).__file__)).parent
            target = self.project / package.rpartition(".")[2]
            shutil.copytree(
                source, target, ignore=lambda _, names: [name for name in names if not name.endswith(".py")]
            )
        (self.project / BROKEN).write_text("def half(:\n", encoding="utf-8")
        # Makes this folder a project of its own to black, which would else look into those around it.
        (self.project / "pyproject.toml").write_text("[tool.black]\n", encoding="utf-8")
        self.output.mkdir()
        say(
            "An application is known to a server by its telemetry.toml, which its users have too: all that may ever "
            "leave their machines, with the reasons. It is copied into the server's folder `applications`:"
        )
        applications = self.data / "applications"
        applications.mkdir(parents=True)
        shutil.copyfile(DECLARATION, applications / "black.toml")
        show(_one_table(DECLARATION.read_text("utf-8"), '[counters."files/changed"]'))
        endpoint = self.start_server()
        self.environment = environment_of(self.folder, endpoint)
        config = json.loads(self.get(endpoint, f"/v1/config/{APPLICATION}"))
        check("option" in config["counters"], f"the server at {endpoint} is ready and knows {APPLICATION}", config)

    def count_before(self) -> None:
        """Days in mode local."""
        status = self.status()
        check(
            status["mode"] == "local", "nobody has decided anything: counted for the user alone (mode `local`)", status
        )
        say(
            "The program is black, a code formatter, which counts with Tallypost (examples/black). Each day several "
            "processes run at once and count into files of their own. The clock is set to days of the past week. "
            "Each command is shown with its exit code and what black says:"
        )
        for ago, runs in BEFORE_THE_YES.items():
            self.format(ago, runs)
        self.compare_with_tally()
        say("Part of what `tallypost show` says, on this machine and without asking anybody:")
        show(self.tallypost("show", day=self.day(DAY_OF_THE_YES), hour=9).stdout, lines_max=15)
        check(self.stored() == 0, "the server has got nothing")

    def preview_before(self) -> None:
        """What would leave."""
        done = self.tallypost("preview", day=self.day(DAY_OF_THE_YES), hour=10)
        say(f"`tallypost preview` prints a document for each of the {len(BEFORE_THE_YES)} days. The first of them:")
        documents = done.stdout.splitlines()
        show(documents[0])
        say("and says on standard error:")
        show(done.stderr)
        check([json.loads(line)["day"] for line in documents] == self.days(BEFORE_THE_YES), "a document a day")
        check("local" in done.stderr, "it says that this is no more than a preview")
        check(not self.names("uploads/pending"), "no document waits to be posted")

    def say_yes(self) -> None:
        """The user's answer."""
        say("On the fourth day, at noon:")
        show("$ tallypost on\n" + self.tallypost("on", day=self.day(DAY_OF_THE_YES), hour=12).stdout)
        line = (self.state / "mode").read_text("utf-8")
        say(
            "This is all that is kept of it, in the file `mode`: what, when, to which version of the question, by whom."
        )
        show(line)
        check(line == f"on {self.day(DAY_OF_THE_YES)} 1 user\n", "the answer is saved", line)

    def count_after(self) -> None:
        """Days in mode on."""
        for ago, runs in AFTER_THE_YES.items():
            self.format(ago, runs)
        self.compare_with_tally()
        check(self.stored() == 0, "still the server has got nothing: days are reported when they are over")

    def report(self) -> None:
        """The local reports, and what each says about leaving."""
        say("`tallypost report` adds up the days that are over. An application does that once a day by itself.")
        show("$ tallypost report\n" + self.tallypost("report").stdout.replace(f"{self.state}/", ""))
        for path in sorted((self.state / "reports").glob("local.*.json")):
            report = json.loads(path.read_bytes())
            self.reports[report["day"]] = report
        expected = self.days({**BEFORE_THE_YES, **AFTER_THE_YES})
        say("What each report says of itself, under `upload`:")
        show(f"{'day':<12}{'runs':>4}  {'leaves':<9}why")
        for day in expected[:-1]:
            upload = self.reports[day]["upload"]
            show(
                f"{day:<12}{self.tally[day]['run']:>4}  {'yes' if upload['leaves'] else 'no':<9}{upload['why']}",
                hanging=27,
            )
        show(f"{expected[-1]:<12}{self.tally[expected[-1]]['run']:>4}  {'not yet':<9}the day is not over")
        check(list(self.reports) == expected[:-1], "there is one report a day, and none for today", list(self.reports))
        check(
            all(self.counted(report["programs"]) == self.tally[day] for day, report in self.reports.items()),
            "each report has all that was run on its day",
        )
        leaving = [day for day, report in self.reports.items() if report["upload"]["leaves"]]
        check(leaving == self.leaving_days(), "only days after the day of the yes may leave", leaving)
        say("Now `tallypost preview` prints what will be posted: these very bytes.")
        self.previewed = self.tallypost("preview").stdout.encode().splitlines()
        for document in self.previewed:
            show(f"{document.decode()[: COLUMNS - 10]} ...")
        days = [json.loads(document)["day"] for document in self.previewed]
        check(days == self.leaving_days(), "they are the documents of these days", days)

    def upload(self) -> None:
        """Posting."""
        done = self.tallypost("upload")
        show(f"$ tallypost upload\n{done.stdout}")
        sent = [(self.state / "uploads/sent" / f"{day}.json").read_bytes() for day in self.leaving_days()]
        check(self.names("uploads/sent") == [f"{day}.json" for day in self.leaving_days()], "all of them were sent")
        check(sent == self.previewed, "what was sent is, byte for byte, what preview had shown")
        check(not self.names("uploads/pending") and not self.names("uploads/refused"), "none waits, none was refused")
        check(self.stored() > 0, "the server has them on its disk")
        say("Sent again, there is nothing to send:")
        again = self.tallypost("upload")
        show(f"$ tallypost upload\n{again.stdout}")
        check("Posted 0" in again.stdout, "a second upload posts nothing", again.stdout)

    def compare(self) -> None:
        """What was stored."""
        self.stop_server()
        check(self.server is not None and self.server.returncode == 0, "the server was told to end and ended with 0")
        self.segments = sorted((self.data / "segments").glob("*.jsonl.zst"))
        check(self.segments, "it has sealed its open segment", list((self.data / "segments").iterdir()))
        lines: dict[str, Json] = {}
        for segment in self.segments:
            held = segment.read_bytes()
            manifest = json.loads(segment.with_name(f"{segment.name}.manifest.json").read_bytes())
            found = [json.loads(line) for line in decompressed(held).splitlines()]
            lines |= {line["doc"]["day"]: line for line in found}
            say(f"Segment {segment.name}, decompressed; its first line:")
            show(json.dumps(found[0], separators=(",", ":")))
            check(manifest["rows"] == len(found), f"the manifest beside it knows its {len(found)} lines", manifest)
            check(manifest["sha256"] == hashlib.sha256(held).hexdigest(), "and the SHA-256 of the file", manifest)
        check(sorted(lines) == self.leaving_days(), "the days that were sent are stored, and no other", sorted(lines))
        say(
            "The SHA-256 of each document, three times over: the file in uploads/sent, the receipt, the segment's line."
        )
        show(f"{'day':<13}{'uploads/sent':<20}{'receipt':<20}segment")
        for day, line in lines.items():
            path = self.state / "uploads/sent" / f"{day}.json"
            hashes = [
                hashlib.sha256(path.read_bytes()).hexdigest(),
                *(json.loads(receipt.read_bytes())["stored"] for receipt in path.parent.glob(f"{day}*.receipt.json")),
                line["sha256"],
            ]
            show(f"{day:<13}" + "".join(f"{one[:16]:<20}" for one in hashes))
            if len(hashes) != 3 or len(set(hashes)) != 1:
                raise Failed(f"These should be three equal hashes of {day}: {hashes}")
            if line["doc"] != json.loads(path.read_bytes()):
                raise Failed(f"The document of {day} was stored otherwise than it was sent: {line['doc']}")
        check(True, "all are equal, and so are the contents")

    def look_for_secrets(self) -> None:
        """What must be nowhere."""
        words = [VALUE, BROKEN, "wsgiref", str(self.folder)]
        found = [
            f"{word} in {path}"
            for root in (self.folder / "user", self.data)
            for path in root.rglob("*")
            if path.is_file()
            for content in [path.read_bytes()]
            for word in words
            if word.encode() in (decompressed(content) if path.suffix == ".zst" else content)
        ]
        say(
            f"Black was given the option --extend-exclude with the value `{VALUE}`, and files such as `{BROKEN}`. "
            "All that Tallypost and the server have written is searched for them."
        )
        check(not found, "no value, no file name and no folder is in any of them", found)
        documents = [json.loads(document) for document in self.previewed]
        names = {
            name.partition(":")[0] for one in documents for program in one["programs"] for name in program["counters"]
        }
        declared = set(_declared_names(DECLARATION.read_text("utf-8")))
        check(names <= declared, f"all that left is declared: {', '.join(sorted(names))}", names - declared)

    def archive(self) -> None:
        """What the makers see."""
        say("`serve` archives in a child process, some minutes after something came; here it is done at once:")
        self.on_server("archive", "--once")
        check(not list((self.data / "segments").glob("*.zst")), "what the segments held is archived, and they are gone")
        sent = Counter[tuple[str, str]]()
        for name in self.names("uploads/sent"):
            report = json.loads((self.state / "uploads/sent" / name).read_bytes())
            for program in report["programs"]:
                for counter, n in program["counters"].items():
                    sent[(report["day"], counter)] += n
        question = "SELECT day, name, sum(value) AS total FROM counters GROUP BY ALL ORDER BY ALL"
        show(f"$ tallypost-server query '{question}'")
        show(self.on_server("query", question), lines_max=12)
        rows = [json.loads(line) for line in self.on_server("query", "--json", question).splitlines()]
        found = {(row["day"], row["name"]): row["total"] for row in rows}
        check(found == dict(sent), f"these are the {len(sent)} sums of what was sent, each day's", found)

    # ------------------------------------------------------------ what the steps are made of

    def on_server(self, *words: str) -> str:
        """What a command says that the makers run on the server's folder."""
        program = Path(sys.executable).with_name("tallypost-server")
        return self.completed([program, "--data", self.data, *words]).stdout

    def day(self, ago: int) -> str:
        """The day so many days ago."""
        return (self.today - datetime.timedelta(days=ago)).isoformat()

    def days(self, plan: dict[int, list[Run]]) -> list[str]:
        """The days of a plan, in their order."""
        return sorted(self.day(ago) for ago in plan)

    def leaving_days(self) -> list[str]:
        """The days of which something may leave: over, and after that of the yes."""
        return [day for day in self.days(AFTER_THE_YES) if self.day(DAY_OF_THE_YES) < day < self.day(0)]

    def under_clock(self, day: str, hour: int, command: Sequence[str]) -> list[str | Path]:
        """A command under another clock."""
        return [sys.executable, "-m", "tallypost.testing", "--at", f"{day}T{hour:02}:00:00Z", "--", *command]

    def format(self, ago: int, runs: list[Run]) -> None:
        """One day: all runs at once, and the tally of what they were told and how they ended."""
        day = self.day(ago)
        tally = self.tally.setdefault(day, Counter())
        put(f"   {day}{', today' if ago == 0 else ''}")
        started = []
        for place, run in enumerate(runs):
            command = ["python", "-m", "black_with_telemetry", *run.options, str(self.project / run.target)]
            path = self.output / f"{day}-{place}.txt"
            with path.open("w", encoding="utf-8") as output:
                process = self.processes.start(
                    self.under_clock(day, 15, command),
                    self.environment,
                    # Not the project: Python would take what lies there for the modules of those names.
                    cwd=self.folder,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            started.append((run, path, process))
        for run, path, process in started:
            code = process.wait(COMMAND_SECONDS_MAX)
            show(f"{run!s:<56}{code:>3}  {summary_of(path) if code in (0, 1, 123) else ''}")
            if code not in (0, 1, 2, 123) or "Traceback" in path.read_text("utf-8"):
                raise Failed(f"{run} ended with {code} and wrote:\n{path.read_text('utf-8')[-2000:]}")
            tally.update(["run", "exit", f"exit:{code}"])
            if code != 2:  # Black does not look at the other options of a wrong command line.
                for name in run.names:
                    tally.update(["option", f"option:{name}"])

    def compare_with_tally(self) -> None:
        """What `show` has must be what was run, day by day.

        Raises:
            Failed: it is not.
        """
        shown = json.loads(self.tallypost("show", "--json").stdout)
        counted = {day["day"]: self.counted(day["programs"]) for day in shown["days"]}
        check(
            counted == self.tally,
            f"{sum(tally['run'] for tally in self.tally.values())} runs on {len(self.tally)} days: "
            "each run, option and exit code was counted, on its day, once",
            f"{counted}, expected {self.tally}",
        )
        durations = sum(
            n
            for day in shown["days"]
            for program in day["programs"]
            for name, n in program["counters"].items()
            if name.startswith("run/seconds:")
        )
        check(
            durations == sum(tally["run"] for tally in self.tally.values()), "and the duration of each run", durations
        )

    def counted(self, programs: list[Json]) -> Counter[str]:
        """Of what was counted, the part that can be foretold: neither durations nor what black finds in files."""
        found: Counter[str] = Counter()
        for program in programs:
            for name, n in program["counters"].items():
                if name.partition(":")[0] in ("run", "option", "exit"):
                    found[name] += n
        return found

    def tallypost(self, *words: str, day: str | None = None, hour: int = 16) -> subprocess.CompletedProcess[str]:
        """Run the user's command on a day; today if none is given."""
        return self.completed(self.under_clock(day or self.day(0), hour, ["tallypost", "--app", APPLICATION, *words]))

    def completed(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            Failed: it did not end with 0.
        """
        process = self.processes.start(
            command, self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, errors = process.communicate(timeout=COMMAND_SECONDS_MAX)
        if process.returncode != 0:
            words = shlex.join(str(word) for word in command)
            raise Failed(f"{words} ended with {process.returncode}:\n{output}{errors}")
        return subprocess.CompletedProcess(command, 0, output, errors)

    def status(self) -> Json:
        """The facts of ``tallypost status``."""
        return dict(json.loads(self.tallypost("status", "--json").stdout))

    def names(self, folder: str) -> list[str]:
        """The documents in a folder of the state directory."""
        path = self.state / folder
        names = [one.name for one in path.glob("*.json")] if path.is_dir() else []
        return sorted(name for name in names if not name.endswith((".receipt.json", ".reason.json")))

    def stored(self) -> int:
        """The number of segments that the server has, open and sealed; it makes the first with the first document."""
        segments = json.loads(self.on_server("--json", "status"))["segments"]
        return int(segments["open"]) + int(segments["sealed"])

    def start_server(self) -> str:
        """Start the server; its address, once it can store."""
        for _ in range(3):
            port = free_port()
            endpoint = f"http://127.0.0.1:{port}"
            program = Path(sys.executable).with_name("tallypost-server")
            words = ["--data", str(self.data), "serve", "--listen", f"127.0.0.1:{port}"]
            show(f"$ tallypost-server --data {os.path.relpath(self.data)} serve --listen 127.0.0.1:{port}")
            with (self.folder / "server.log").open("a", encoding="utf-8") as log:
                self.server = self.processes.start(
                    [program, *words], environment_of(self.folder, endpoint), cwd=self.folder, stdout=log, stderr=log
                )
            deadline = time.monotonic() + READY_SECONDS_MAX
            while time.monotonic() < deadline and self.server.poll() is None:
                with contextlib.suppress(OSError, http.client.HTTPException, Failed):
                    self.get(endpoint, "/readyz")
                    return endpoint
                time.sleep(0.05)
            if self.server.poll() is None:
                break
            # Somebody else may have taken the port in between: once more, with another.
        log_text = (self.folder / "server.log").read_text("utf-8")
        raise Failed(f"The server was not ready within {READY_SECONDS_MAX} s. Its log ends with:\n{log_text[-2000:]}")

    def stop_server(self) -> None:
        """Have the server finish what it has begun, seal, and end."""
        assert self.server is not None, "started before"
        self.server.send_signal(signal.SIGTERM)
        try:
            self.server.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"The server did not end within {STOP_SECONDS_MAX} s of SIGTERM.") from late

    def get(self, endpoint: str, path: str) -> bytes:
        """The body of an answer of the server.

        Raises:
            Failed: it is no 200.
        """
        connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise Failed(f"GET {path} was answered {answer.status}: {body[:500]!r}")
        return body

    # ------------------------------------------------------------ the end

    def look_around(self) -> None:
        """Where everything lies, and how to go on."""
        folder = shlex.quote(os.path.relpath(self.folder))
        state = f"{folder}/user/{APPLICATION}"
        day = self.leaving_days()[-1]
        identity = self.reports[day]["id"]
        binaries = shlex.quote(os.path.relpath(Path(sys.executable).parent))
        put(
            f"""
Where everything lies

   {state}/reports/local.{day}.json
                                     all that was counted on that day; never sent
   {state}/uploads/sent/{day}.json
                                     what was sent; beside it the server's receipt
   {folder}/server/archive/
                                     what the server stored, as Delta Lake tables
   {folder}/server.log, {folder}/black-output/
                                     what the programs wrote

Look around

   export TALLYPOST_DIR={folder}/user
   {binaries}/tallypost status
   {binaries}/tallypost show
   {binaries}/tallypost off           and the next run of black counts nothing
   {binaries}/tallypost-server --data {folder}/server status
   {binaries}/tallypost-server --data {folder}/server show {identity}
   {binaries}/tallypost-server --data {folder}/server query "FROM reports"

Read next

   examples/black/README.md          how a program that nobody here wrote came to count
   README.md and docs/               the promises, and how to run a server"""
        )


# ---------------------------------------------------------------- small things


def make_afresh(folder: Path) -> None:
    """An empty folder; an earlier demo's is replaced.

    Raises:
        Failed: there is something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise Failed(f"{folder} is not an earlier demo's folder, so it stays; name another one with --dir.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("Made by scripts/demo.py, which replaces this folder when it runs again.\n", "utf-8")


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def decompressed(held: bytes) -> bytes:
    """The lines of a segment, which may have several frames."""
    import zstandard  # Installed with client and server; all else here is the standard library's.

    return bytes(zstandard.ZstdDecompressor().stream_reader(held, read_across_frames=True).read())


def summary_of(path: Path) -> str:
    """The first half of the line in which black says what it did; empty if there is none."""
    last = (path.read_text("utf-8").strip().splitlines() or [""])[-1]
    return last.partition(",")[0].rstrip(".") if last.split(" ")[0].isdigit() and "file" in last else ""


def _one_table(declaration: str, head: str) -> str:
    """A table of a TOML file, as it stands there."""
    return head + declaration.partition(head)[2].partition("\n\n")[0]


def _declared_names(declaration: str) -> Iterator[str]:
    """The names that have a table; and what the library counts of itself, which ships with it, is not among them."""
    for line in declaration.splitlines():
        if line.startswith(("[counters.", "[histograms.")):
            yield line.split('"')[1]


def stop(number: int, frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that everything is ended on the way out."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 if every claim holds, 1 if one does not, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(
        description="The whole way through: from a count to a line in the server's storage."
    )
    parser.add_argument("--dir", type=Path, default=ROOT / "demo", help="where all of it happens (./demo)")
    given = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # SIGINT too: a shell that starts this in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    begun = time.monotonic()
    processes = Processes()
    demo = Demo(given.dir.resolve(), processes)
    put("Tallypost, the whole way through: what a user's program counts, and how it comes to a server.")
    try:
        demo.run()
    except Failed as failed:
        sys.stderr.write(f"\n{failed}\n")
        return 1
    except subprocess.TimeoutExpired as late:
        sys.stderr.write(f"\nThis took more than {late.timeout:.0f} s: {late.cmd}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; everything that was started is ended.\n")
        return 130
    finally:
        # Who presses Ctrl-C twice still gets a clean machine.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        processes.end()
    demo.look_around()
    put("", f"All claims hold. This took {time.monotonic() - begun:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
