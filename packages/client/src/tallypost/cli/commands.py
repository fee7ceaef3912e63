"""What each command prints: results on standard output, everything else on standard error.

Takes   the daily work of one application.
Gives   an exit status.
Never   decides anything.
"""

from __future__ import annotations

import datetime
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

from .. import losses
from ..clock import day_of
from ..daily import Daily
from . import table
from .events import show_events
from .watch import watch_changes, watch_terminal

if TYPE_CHECKING:
    from ..consent import Mode
    from ..events.overview import ShownEvent
    from ..seams import Clock

COMMANDS = {
    "status": ("the mode, what decided it, where the files are, what waits, what was lost", "tallypost status --json"),
    "on": ("say yes: what is counted from tomorrow on may be posted", "tallypost --app example.org/mytool on"),
    "local": ("count for yourself alone: nothing is posted", "tallypost local"),
    "off": ("say no: nothing is counted, nothing is posted", "tallypost off"),
    "show": ("what has been counted, today included", "tallypost show --days 3 export/"),
    "report": ("make the local reports of the days that are over, now", "tallypost report"),
    "preview": ("print the exact bytes of each document that would be posted next", "tallypost preview"),
    "upload": ("report, and post what may leave, now", "tallypost upload"),
    "forget": ("remove everything of the application from this machine; an off is kept", "tallypost forget"),
    "check": ("look for mistakes in a telemetry.toml", "tallypost check telemetry.toml --source src"),
    "docs": ("write the page for users from a telemetry.toml", "tallypost docs telemetry.toml --output telemetry.html"),
}

# As many documents are named in a line for people.
SHOWN_MAX = 3

_SOURCES = {
    "constructor": "the application switched it off",
    "system file": "this machine's administrator (/etc/tallypost/mode)",
    "DO_NOT_TRACK": "the variable DO_NOT_TRACK",
    "TALLYPOST": "the variable TALLYPOST",
    "CI": "the variable CI",
    "test runner": "a test runner",
    "mode file": "the saved answer",
    "default": "nobody yet: this is the default",
}


def status(daily: Daily, *, as_json: bool) -> int:
    """The facts, or a page of sentences."""
    facts = daily.status()
    if as_json:
        print(json.dumps(facts))
        return 0
    print(f"{facts['application']}: {facts['mode']}")
    print(f"  decided by   {_SOURCES[facts['source']]}" + (f", since {facts['since']}" if facts["since"] else ""))
    print(f"  files        {facts['dir']}")
    print(f"  reports      {facts['reports']} local")
    print(f"  waiting      {_waiting(facts)}")
    print(f"  sent         {facts['sent']}" + (f", the last {facts['last_sent']}" if facts["last_sent"] else ""))
    print(f"  refused      {facts['refused']}{_last_refused(facts['last_refused'])}")
    print(f"  endpoint     {facts['endpoint'] or 'none known'}")
    if facts["next_try"]:
        why = f": {facts['next_try_why']}" if facts["next_try_why"] else ""
        print(f"  next try     not before {facts['next_try']}{why}")
    for reason, n in facts["losses"].items():
        print(f"  lost         {n} {reason}: {losses.SENTENCES.get(reason, 'see the documentation')}")
    return 0


def _waiting(facts: dict[str, Any]) -> str:
    waiting = facts["waiting"]
    if not waiting:
        return "no document"
    tried = [f"{one['document']} ({one['failures']} tries failed)" for one in waiting if one["failures"]]
    names = tried or [one["document"] for one in waiting]
    more = f", and {len(waiting) - SHOWN_MAX} more" if len(waiting) > SHOWN_MAX else ""
    return f"{len(waiting)} document(s): {', '.join(names[:SHOWN_MAX])}{more}"


def _last_refused(refused: dict[str, str] | None) -> str:
    if refused is None:
        return ""
    return f", the last {refused['document']}: {refused['reason']} ({refused['message']})"


def on(daily: Daily, *, as_json: bool) -> int:
    """Save a yes."""
    return _set_mode(daily, "on", as_json)


def local(daily: Daily, *, as_json: bool) -> int:
    """Save that counting is for the user alone."""
    return _set_mode(daily, "local", as_json)


def off(daily: Daily, *, as_json: bool) -> int:
    """Save a no."""
    return _set_mode(daily, "off", as_json)


def show(
    daily: Daily, *, as_json: bool, clock: Clock, name: str = "", days: int | None = None, every: float | None = None
) -> int:
    """Counts by name and day; with `every` again and again, so many seconds apart."""
    application = daily.directory.application

    def draw(width: int | None = None) -> list[str]:
        today = day_of(clock.now())
        facts = table.chosen(daily.show(), name=name)
        if as_json:
            window = table.last_days(today, days) if days is not None else None
            return [json.dumps(table.chosen(facts, days=window))]
        return table.lines(facts, today=today, days=days, width=width)

    # A terminal is as wide as it is; what goes into a file or a pipe is not shortened.
    is_terminal = sys.stdout.isatty() and not as_json
    if every is not None and is_terminal:
        size = shutil.get_terminal_size
        watch_terminal(draw, title=application, seconds=every, clock=clock, out=sys.stdout, size=size)
        return 0
    if every is not None:
        # The empty line tells one table from the next; a line of JSON needs none.
        watch_changes(draw if as_json else lambda: [*draw(), ""], seconds=every, clock=clock, out=sys.stdout)
        return 0
    drawn = draw(shutil.get_terminal_size().columns if is_terminal else None)
    for line in drawn:
        print(line)
    if not drawn:
        print(_nothing(daily.show(), name, day_of(clock.now()), days), file=sys.stderr)
    return 0


def events(daily: Daily, *, as_json: bool, clock: Clock, name: str, days: int | None, follow: bool) -> int:
    """Events, a line each; with `follow` each new one too."""
    today = day_of(clock.now())
    window = table.last_days(today, days) if days is not None else None

    def is_chosen(event: ShownEvent) -> bool:
        # What comes while this follows is of today or later, and was asked for.
        in_window = window is None or (event.at is not None and (event.at[:10] in window or event.at[:10] > today))
        return in_window and name in (event.name or "")

    n = show_events(daily.events, as_json=as_json, chosen=is_chosen, follow=follow, clock=clock, out=sys.stdout)
    if n == 0:
        print("No such event has been logged.", file=sys.stderr)
    return 0


def _nothing(facts: dict[str, Any], name: str, today: str, days: int | None) -> str:
    """Why the table is empty, and what would show more."""
    counted = [day["day"] for day in table.chosen(facts, name=name)["days"]]
    what = f'Nothing whose name contains "{name}"' if name else "Nothing"
    if not counted:
        return f"{what} has been counted."
    oldest = datetime.date.fromisoformat(today) - datetime.date.fromisoformat(counted[0])
    if oldest.days < 0:
        return f"{what} has been counted but on days to come, first {counted[0]}: a clock was wrong; --json shows it."
    since = "today" if days == 1 else f"in the last {days or table.DAYS} days"
    return f"{what} has been counted {since}; --days {oldest.days + 1} shows more."


def report(daily: Daily, *, as_json: bool) -> int:
    """Phases one and two."""
    made = daily.report()
    if as_json:
        print(json.dumps({"made": made}))
        return 0
    for day in made:
        print(daily.directory.local_report(day))
    if not made:
        print("No day that is over was without a report.", file=sys.stderr)
    return 0


def preview(daily: Daily, *, as_json: bool) -> int:
    """The exact bytes, one document a line."""
    shown = daily.preview()
    for document in shown.documents:
        sys.stdout.buffer.write(document + b"\n")
    sys.stdout.buffer.flush()
    if shown.word is not None:
        print(f"tallypost: {shown.word}", file=sys.stderr)
    elif not shown.documents:
        print("tallypost: nothing would be posted", file=sys.stderr)
    return 0


def upload(daily: Daily, *, as_json: bool) -> int:
    """All three phases, in the foreground."""
    result = daily.upload(progress=lambda sentence: print(f"tallypost: {sentence}", file=sys.stderr))
    if as_json:
        print(json.dumps({"sent": result.sent, "nothing_left": result.nothing_left, "sentence": result.sentence}))
    else:
        print(result.sentence)
    return 0 if result.nothing_left else 3


def forget(daily: Daily, *, as_json: bool) -> int:
    """Remove everything, but keep an off."""
    daily.forget()
    _say(
        as_json, {"forgotten": daily.directory.path}, f"Removed all of {daily.directory.application} from this machine."
    )
    return 0


def _set_mode(daily: Daily, mode: Mode, as_json: bool) -> int:
    withdrawn = daily.set_mode(mode, who="user")
    decided = daily.decide()
    application = daily.directory.application
    sentence = {
        "on": f"{application}: on. What is counted from tomorrow (UTC) on may be posted; `tallypost preview` shows it.",
        "local": f"{application}: local. Counts stay on this machine.",
        "off": f"{application}: off. Nothing is counted and nothing is posted.",
    }[mode]
    if withdrawn:
        sentence += f" {len(withdrawn)} document(s) that waited will not be sent."
    if mode != "on":
        sentence += " A post that is under way at this moment (10 s at most) may still arrive."
    if decided.mode != mode:
        sentence += f" In this environment the mode is {decided.mode}: decided by {_SOURCES[decided.source]}."
    _say(as_json, {"mode": decided.mode, "saved": mode, "withdrawn": withdrawn}, sentence)
    return 0


def _say(as_json: bool, facts: dict[str, Any], sentence: str) -> None:
    print(json.dumps(facts) if as_json else sentence)
