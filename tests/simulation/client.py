"""The state machine: hypothesis chooses what happens in a world, and shrinks what went wrong.

Takes   chance.
Gives   worlds in which anything happens, in any order, at any number of processes.
Never   judges: `World` does.
"""

from __future__ import annotations

import ast
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import hypothesis
import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import tallypost

from .declared import CONFIGS, DECLARATIONS
from .server import OUTCOMES
from .world import OPERATIONS, PROGRAMS, Action, Where, World

Story: TypeAlias = "list[tuple[Action, list[tuple[Where, Action]]]]"
Actions: TypeAlias = "st.SearchStrategy[Action]"

SOURCES = Path(tallypost.__file__).parent


def fault_points() -> dict[str, str]:
    """Each named fault point of the client, ``{}`` where a part of its name is decided later, with its module."""
    found = {}
    for source in sorted(SOURCES.rglob("*.py")):
        if "testing" in source.relative_to(SOURCES).parts[0]:
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reach":
                (name,) = node.args
                if isinstance(name, ast.Constant):
                    found[name.value] = source.name
                elif isinstance(name, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in name.values]
                    found["".join(map(str, parts))] = source.name
    return found


def point_names() -> list[str]:
    """The same with the names that the parts decided later can be."""
    names = set()
    for point in fault_points():
        names |= {point.replace("{}", folder) for folder in ("sent", "refused")}
    return sorted(names)


WHICH = st.integers(0, 3)
# The first few are what a declaration names: most of what is counted should have a way to leave.
OPERATION = st.one_of(st.integers(0, 2), st.integers(0, len(OPERATIONS) - 1))
COUNT: Actions = st.tuples(st.just("count"), WHICH, OPERATION, st.sampled_from((1, 1, 2, 7)))
REPORT: Actions = st.just(("report",))
UPLOAD: Actions = st.tuples(st.just("upload"), st.booleans(), st.lists(st.sampled_from(OUTCOMES), max_size=4))
MODES = st.sampled_from(("on", "on", "local", "off"))
MODE: Actions = st.tuples(st.just("mode"), MODES, st.sampled_from(("user", "administrator")))
APPLICATION_MODE: Actions = st.tuples(st.just("application_mode"), WHICH, MODES)
DAMAGE: Actions = st.tuples(
    st.just("damage_mode"), st.sampled_from(("", "on", "off\n", "on 2026-11-20 1 user\nx", "on 2026-11-20 1 nobody"))
)
END: Actions = st.tuples(st.just("end"), WHICH, st.sampled_from(("kill", "close", "go on")))
SHIP: Actions = st.tuples(
    st.just("ship"), st.sampled_from((*range(len(DECLARATIONS)), *range(len(DECLARATIONS)), None))
)
CONFIGURE: Actions = st.tuples(st.just("configure"), st.sampled_from((None, *CONFIGS)))
PASS: Actions = st.tuples(st.just("move"), st.sampled_from((1, 60, 290, 3600, 20_000, 43_200)))
JUMP: Actions = st.tuples(
    st.just("move"),
    st.one_of(
        st.sampled_from((86_400, 86_400, 2 * 86_400, -86_400, -3600, -2 * 86_400)),
        st.integers(-30, 45).map(lambda days: days * 86_400),
    ),
)
FILL: Actions = st.tuples(st.just("fill"), st.booleans())
ANYTHING_ELSE = st.one_of(
    UPLOAD, UPLOAD, REPORT, MODE, MODE, COUNT, COUNT, END, APPLICATION_MODE, JUMP, PASS, CONFIGURE, FILL, DAMAGE
)
CRASH: Action = ("crash",)


def _within(calls: int) -> st.SearchStrategy[Where]:
    """A call among so many, or a fault point."""
    return st.one_of(st.integers(1, calls), st.tuples(st.sampled_from(point_names()), st.integers(1, 3)))


# What is interrupted, and where: some more calls than it makes with a document or two to do.
IN_A_REPORT = st.tuples(REPORT, _within(40))
IN_AN_UPLOAD = st.tuples(UPLOAD, _within(120))
IN_SMALL_THINGS = st.one_of(
    st.tuples(MODE, _within(10)), st.tuples(COUNT, _within(30)), st.tuples(APPLICATION_MODE, _within(12))
)


class ClientMachine(RuleBasedStateMachine):
    """A world in which anything happens."""

    statistics: ClassVar[Counter[str]] = Counter()
    rules: ClassVar[Counter[str]] = Counter()
    broken: ClassVar[tuple[Story, bool, str] | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.is_broken = False

    def do(self, *actions: Action, during: Sequence[tuple[Where, Action]] = ()) -> None:
        """One step: things that happen one after the other; `during` happens in the middle of the last."""
        ClientMachine.rules[sys._getframe(1).f_code.co_name] += 1
        try:
            for action in actions[:-1]:
                self.world.step(action)
            self.world.step(actions[-1], during)
        except BaseException:
            self.is_broken = True
            self.tell()
            raise

    def tell(self) -> None:
        """Keep the story of what went wrong for whoever asks."""
        problem = sys.exc_info()[1]
        if isinstance(problem, Exception):
            ClientMachine.broken = (self.world.story, self.world.trusted, _place(problem))

    @initialize(trusted=st.sampled_from((True, True, True, False)), says_yes=st.sampled_from((True, True, False)))
    def begin(self, trusted: bool, says_yes: bool) -> None:
        self.world.close()
        self.world = World(trusted=trusted)
        self.do(("start", 0), *([("mode", "on"), ("move", 86_400)] if says_yes else []))

    @precondition(lambda self: len(self.world.processes) < 4)
    @rule(program=st.integers(0, len(PROGRAMS) - 1))
    def start(self, program: int) -> None:
        self.do(("start", program))

    @rule(action=COUNT)
    def count(self, action: Action) -> None:
        self.do(action)

    @rule(action=END)
    def end(self, action: Action) -> None:
        self.do(action)

    @rule(action=UPLOAD)
    def upload(self, action: Action) -> None:
        self.do(action)

    @rule(action=st.one_of(REPORT, REPORT, st.just(("preview",))))
    def report(self, action: Action) -> None:
        self.do(action)

    @rule(action=st.one_of(MODE, MODE, APPLICATION_MODE, DAMAGE))
    def mode(self, action: Action) -> None:
        self.do(action)

    @rule(action=st.one_of(SHIP, CONFIGURE))
    def makers(self, action: Action) -> None:
        self.do(action)

    @rule(action=st.one_of(PASS, PASS, JUMP))
    def time(self, action: Action) -> None:
        self.do(action)

    @rule(action=ANYTHING_ELSE, lasts=st.sampled_from((False, False, True)))
    def full(self, action: Action, lasts: bool) -> None:
        self.do(("fill", True), action, *([] if lasts else [("fill", False)]))

    @rule(
        days=st.sampled_from((1, 2, 3, 3, 20, 40)),
        which=WHICH,
        operation=OPERATION,
        does=st.sampled_from(("nothing", "report", "upload")),
    )
    def days(self, days: int, which: int, operation: int, does: str) -> None:
        self.do(("work_days", days, which, operation, does))

    @rule(inside=st.one_of(IN_A_REPORT, IN_AN_UPLOAD, IN_SMALL_THINGS), ready=st.booleans())
    def crash(self, inside: tuple[Action, Where], ready: bool) -> None:
        action, where = inside
        self.do(("ready", ready), action, during=[(where, CRASH)])

    @rule(inside=IN_A_REPORT, other=ANYTHING_ELSE, ready=st.booleans())
    def during_a_report(self, inside: tuple[Action, Where], other: Action, ready: bool) -> None:
        action, where = inside
        self.do(("ready", ready), action, during=[(where, other)])

    @rule(inside=IN_AN_UPLOAD, other=ANYTHING_ELSE, ready=st.booleans())
    def during_an_upload(self, inside: tuple[Action, Where], other: Action, ready: bool) -> None:
        action, where = inside
        self.do(("ready", ready), action, during=[(where, other)])

    @rule(inside=IN_SMALL_THINGS, other=st.one_of(UPLOAD, REPORT, COUNT, MODE, END), ready=st.booleans())
    def during_small_things(self, inside: tuple[Action, Where], other: Action, ready: bool) -> None:
        action, where = inside
        self.do(("ready", ready), action, during=[(where, other)])

    @rule(
        inside=st.one_of(IN_A_REPORT, IN_AN_UPLOAD),
        other=st.one_of(UPLOAD, REPORT, MODE, COUNT),
        later=st.integers(1, 12),
        ready=st.booleans(),
    )
    def during_and_crash(self, inside: tuple[Action, Where], other: Action, later: int, ready: bool) -> None:
        action, where = inside
        at = where if isinstance(where, int) else 12
        self.do(("ready", ready), action, during=[(where, other), (at + later, CRASH)])

    @precondition(lambda self: self.world.reports)
    @rule(sure=st.integers(0, 4))
    def forget(self, sure: int) -> None:
        if sure == 4:
            self.do(("forget",))

    def teardown(self) -> None:
        try:
            if not self.is_broken:
                self.world.finish()
        except BaseException:
            self.tell()
            raise
        finally:
            ClientMachine.statistics.update(self.world.statistics)
            self.world.close()


def simulate(*, examples: int, steps: int, seed: int | None = None) -> None:
    """Run so many worlds of so many steps each; without a seed the same ones each time.

    Raises:
        AssertionError: something does not hold; its notes are the story up to there, made short.
    """
    machine: Any = ClientMachine
    if seed is not None:
        machine = hypothesis.seed(seed)(type("ClientMachine", (ClientMachine,), {}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=seed is None,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            # Its own shortening takes minutes with worlds as large as these; `shortened` takes seconds.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def replay(story: Story, *, trusted: bool = True) -> None:
    """Have a story happen again, to its end."""
    world = World(trusted=trusted)
    try:
        for action, during in story:
            world.step(action, during)
        world.finish()
    finally:
        world.close()


def shortened(story: Story, *, trusted: bool, problem: str) -> Story:
    """The same story without what it does not need to end with the same problem."""
    piece = len(story) // 2
    while piece > 0:
        at = 0
        while at < len(story):
            shorter = story[:at] + story[at + piece :]
            if _problem(shorter, trusted) == problem:
                story = shorter
            else:
                at += piece
        piece //= 2
    return story


def _problem(story: Story, trusted: bool) -> str | None:
    try:
        replay(story, trusted=trusted)
    except Exception as problem:
        return _place(problem)
    return None


def _place(problem: BaseException) -> str:
    """Where it was raised: the same problem has other numbers each time."""
    frames = traceback.extract_tb(problem.__traceback__)
    return f"{type(problem).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
