"""What a program's code counts, as far as the code alone tells.

Takes   the content of its Python files, and of those in which pytest's settings stand.
Gives   `Uses`: names, buckets, edges and fields, each with its place; ``*`` stands for what only a run knows.
Never   reads a file; never runs or imports what it reads; never takes a name for unused that might be counted.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from tallypost_schema import names

Kind: TypeAlias = Literal["counter", "histogram", "stack", "event"]

# For whatever is known only when the program runs. No name and no bucket has such a letter.
ANY = "*"
# More spellings than this one expression has only where something multiplies; then it is taken for unknown.
_SPELLINGS_MAX = 200


@dataclass(frozen=True)
class Use:
    """A name that the code counts: ``cmd/export``, or ``cmd/*``. `given` are an event's fields, with their literals."""

    kind: Kind
    name: str
    place: str
    edges: tuple[float, ...] | None = None
    given: Mapping[str, object] = field(default_factory=dict)
    by_integration: bool = False


@dataclass(frozen=True)
class BucketUse:
    """A bucket that the code counts, and of which counter; ``*`` is any of them."""

    counter: str
    bucket: str
    place: str
    by_integration: bool = False


@dataclass
class Uses:
    """All that was found, in the order of the files; `unreadable` has a reason for each file that could not be read."""

    names: list[Use] = field(default_factory=list)
    buckets: list[BucketUse] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


class Unknown:
    """Stands for a value of an event's field that is no literal."""


UNKNOWN = Unknown()


class Integration(NamedTuple):
    """What a module of ``tallypost.contrib`` counts, behind its prefix."""

    prefix: str
    counters: tuple[str, ...]
    seconds_edges: tuple[float, ...] | None = None


_HTTP = Integration("http", ("route", "method", "status", "exception"), (0.001, 0.01, 0.1, 1.0, 10.0))
_RUNS = Integration("cli", ("command", "option", "exit"))
INTEGRATIONS = {
    "argparse": Integration("cli", ("command", "option")),
    "click": _RUNS,
    "typer": _RUNS,
    "logging": Integration("log", ("level", f"logger/{ANY}")),
    "asgi": _HTTP,
    "wsgi": _HTTP,
    "flask": _HTTP,
    "django": _HTTP,
    "pytest": Integration("pytest", ("outcome",), (0.01, 0.1, 1.0, 10.0)),
}
_INTEGRATION = re.compile(r"\btallypost\.contrib\.(\w+)")
_PERCENT, _BRACES = re.compile(r"%[^a-zA-Z%]*[a-zA-Z]"), re.compile(r"\{[^{}]*\}")
_ANYS = re.compile(r"\*{2,}")
_PYTEST_PREFIX = re.compile(r"^\s*tallypost_prefix\s*=\s*[\"']?([\w/-]+)", re.MULTILINE)

_METHODS: dict[str, Kind] = {"counter": "counter", "histogram": "histogram", "stack": "stack", "event": "event"}
# They count under ``name/<kind of exception>``.
_EXCEPTION_METHODS = ("count_exceptions", "install_crash_counter")
_IS_NAME = {"stack": names.is_stack_name, "counter": names.is_name, "histogram": names.is_name, "event": names.is_name}


def uses_in(files: Mapping[str, bytes]) -> Uses:
    """What the files count, by their paths; what does not end in ``.py`` is taken for pytest's settings."""
    uses = Uses()
    trees: dict[str, ast.Module] = {}
    for path, content in files.items():
        if not path.endswith(".py"):
            uses.names += _in_settings(path, content.decode("utf-8", "replace"))
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # About the code's style: not asked for here.
                trees[path] = ast.parse(content)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            uses.unreadable[path] = str(error) or type(error).__name__
    everywhere = Bindings()
    modules = {path: Bindings() for path in trees}
    for path, tree in trees.items():
        for name, bound in _bound_in(tree):
            everywhere.add(name, bound)
            modules[path].add(name, bound)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                everywhere.classes.setdefault(node.name, []).append(node)
    for path, tree in trees.items():
        _Reader(path, modules[path], everywhere, uses).read(tree)
    uses.buckets += [
        BucketUse(use.name, ANY, use.place, by_integration=True)
        for use in uses.names
        if use.by_integration and use.kind == "counter"
    ]
    return uses


# -------------------------------------------------------------------- what identifiers are bound to


class Bound(NamedTuple):
    """What an identifier is given somewhere: an expression, one element of it, or (None) nobody knows what."""

    value: ast.expr | None
    is_element: bool = False


class Bindings:
    """All that identifiers are given: variables by their names, attributes by theirs, wherever they hang."""

    def __init__(self) -> None:
        self._bound: dict[str, list[Bound]] = {}
        self.classes: dict[str, list[ast.ClassDef]] = {}

    def add(self, name: str, bound: Bound) -> None:
        """Note what an identifier is given in one place."""
        self._bound.setdefault(name, []).append(bound)

    def of(self, name: str) -> list[Bound]:
        """What it is given in all places."""
        return self._bound.get(name, [])


# Whatever else brings a name along.
_NAMING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


def _bound_in(tree: ast.Module) -> Iterator[tuple[str, Bound]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _targets(target, Bound(node.value))
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
            if node.value is not None:
                yield from _targets(node.target, Bound(node.value))
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            yield from _targets(node.target, Bound(node.iter, is_element=True))
        elif isinstance(node, ast.AugAssign):
            yield from _targets(node.target, Bound(None))
        elif isinstance(node, ast.withitem):
            if node.optional_vars is not None:
                yield from _targets(node.optional_vars, Bound(None))
        elif isinstance(node, ast.arg):
            yield node.arg, Bound(None)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.asname not in (None, alias.name):
                    yield str(alias.asname), Bound(ast.Name(alias.name, ast.Load()))
        elif isinstance(node, _NAMING) and node.name is not None:
            yield node.name, Bound(None)


def _targets(target: ast.expr, bound: Bound) -> Iterator[tuple[str, Bound]]:
    if isinstance(target, (ast.Name, ast.Attribute)):
        yield _identifier(target), bound
    elif isinstance(target, (ast.Tuple, ast.List)):
        parts: list[Bound] = [Bound(None)] * len(target.elts)
        values = bound.value
        if not bound.is_element and isinstance(values, (ast.Tuple, ast.List)) and len(values.elts) == len(parts):
            parts = [Bound(value) for value in values.elts]
        for element, part in zip(target.elts, parts, strict=True):
            yield from _targets(element, part)
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value, Bound(None))


def _identifier(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


# -------------------------------------------------------------------- one file


class _Reader:
    """Finds the uses in one file."""

    def __init__(self, path: str, module: Bindings, everywhere: Bindings, uses: Uses) -> None:
        self._path, self._module, self._everywhere, self._uses = path, module, everywhere, uses
        self._known: dict[tuple[str, type, str], set[str]] = {}

    def read(self, tree: ast.Module) -> None:
        """Add what the file counts to the uses."""
        try:
            self._read(tree)
        except RecursionError:  # Sums of thousands of texts.
            self._uses.unreadable[self._path] = "nested too deep"

    def _read(self, tree: ast.Module) -> None:
        integrations: dict[str, str] = {}
        prefixes: set[str] = set()
        edges: list[ast.expr] = []
        for node in ast.walk(tree):
            for module in _integrations_of(node):
                integrations.setdefault(module, self._place(node))
            if isinstance(node, ast.Call):
                self._call(node)
                prefixes.update(*(self._spellings(word.value) for word in node.keywords if word.arg == "prefix"))
                edges += [word.value for word in node.keywords if word.arg == "edges" and not _is_method(node.func)]
                # Handed on instead of called: what it is called with is not seen.
                for handed in (*node.args, *(word.value for word in node.keywords)):
                    self._method_handed_on(handed)
            elif isinstance(node, ast.Assign):
                self._method_handed_on(node.value)
            elif isinstance(node, ast.ClassDef):  # Django's middleware takes its settings from a subclass.
                for name, bound in _bound_in(ast.Module(node.body, [])):
                    if name == "prefix" and bound.value is not None:
                        prefixes |= self._spellings(bound.value)
                    elif name == "edges" and bound.value is not None:
                        edges.append(bound.value)
        for module, place in integrations.items():
            self._uses.names += _of_integration(
                INTEGRATIONS[module], place, prefixes, [self._edges(value) for value in edges]
            )

    def _call(self, call: ast.Call) -> None:
        if not isinstance(call.func, ast.Attribute):
            return
        method = call.func.attr
        if method in _METHODS:
            kind = _METHODS[method]
            edges = _argument(call, 1, "edges")
            for name in self._names(call, kind):
                self._uses.names.append(
                    Use(
                        kind,
                        name,
                        self._place(call),
                        edges=self._edges(edges) if kind == "histogram" and edges is not None else None,
                        given=_fields(call) if kind == "event" else {},
                    )
                )
        elif method in _EXCEPTION_METHODS:
            prefix = _argument(call, 0, "name")
            for begin in self._spellings(prefix) if prefix is not None else {"crash"}:
                self._uses.names.append(Use("stack", f"{begin}/{ANY}", self._place(call)))
        elif method == "inc":
            bucket = _argument(call, 1, "bucket")
            if bucket is not None and not (isinstance(bucket, ast.Constant) and bucket.value is None):
                for counter in self._counters(call.func.value):
                    for spelled in self._spellings(bucket):
                        self._uses.buckets.append(BucketUse(counter, spelled, self._place(call)))

    def _method_handed_on(self, value: ast.expr) -> None:
        if isinstance(value, ast.Attribute) and value.attr in _METHODS:
            self._uses.names.append(Use(_METHODS[value.attr], ANY, self._place(value)))

    def _names(self, call: ast.Call, kind: Kind) -> set[str]:
        """The names that a call is about; none if it is some other library's."""
        # An event's is given by position alone: a field may be called so.
        name = _argument(call, 0, "name" if kind != "event" else None)
        if name is None or (isinstance(name, ast.Constant) and not isinstance(name.value, str)):
            return set()
        if isinstance(name, (ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Lambda, ast.ListComp, ast.GeneratorExp)):
            return set()
        spelled = self._events(name) if kind == "event" else self._spellings(name)
        return {text for text in spelled if _IS_NAME[kind](text.replace(ANY, "a"))}

    def _events(self, node: ast.expr) -> set[str]:
        """The names of the events that a text, or an instance of a dataclass, may be."""
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            classes = self._everywhere.classes.get(_identifier(node.func), [])
            return set().union(*map(self._of_class, classes)) if classes else {ANY}
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._of_identifier(
                "events",
                node,
                lambda bound: self._bound_spellings(bound) if bound.is_element else self._bound_events(bound.value),
            )
        return self._spellings(node)

    def _bound_events(self, value: ast.expr | None) -> set[str]:
        return {ANY} if value is None else self._events(value)

    def _of_class(self, event: ast.ClassDef) -> set[str]:
        given = [bound.value for name, bound in _bound_in(ast.Module(event.body, [])) if name == "event_name"]
        if given:
            return set().union(*({ANY} if value is None else self._spellings(value) for value in given))
        words = re.sub("[A-Z]", lambda letter: f"-{letter.group().lower()}", event.name)
        # A class that it is made of may say otherwise.
        return {ANY} if event.bases else {words.lstrip("-")}

    def _counters(self, node: ast.expr) -> set[str]:
        """The names of the counters that an expression may be."""
        if isinstance(node, ast.Call) and _is_method(node.func, "counter"):
            return self._names(node, "counter")
        if isinstance(node, ast.Subscript):
            return self._counters(node.value)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._of_identifier("counters", node, self._bound_counters)
        return {ANY}

    def _bound_counters(self, bound: Bound) -> set[str]:
        value = bound.value
        if value is None:
            return {ANY}
        if isinstance(value, (ast.Name, ast.Attribute)):
            return self._counters(value)
        if isinstance(value, ast.Constant) and value.value is None:
            return set()
        # A counter, or counters in a dictionary, a list, a comprehension.
        calls = [part for part in ast.walk(value) if isinstance(part, ast.Call) and _is_method(part.func, "counter")]
        return set().union(*(self._names(call, "counter") for call in calls)) if calls else {ANY}

    def _spellings(self, node: ast.expr) -> set[str]:
        """All that a text may be, with ``*`` for the parts that are not known."""
        found = self._spelled(node)
        return found if len(found) <= _SPELLINGS_MAX else {ANY}

    def _spelled(self, node: ast.expr) -> set[str]:
        if isinstance(node, ast.Constant):
            return {node.value} if isinstance(node.value, str) else {ANY}
        if isinstance(node, ast.JoinedStr):
            return self._joined(node.values)
        if isinstance(node, ast.FormattedValue):
            return self._spellings(node.value) if node.conversion == -1 and node.format_spec is None else {ANY}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._joined([node.left, node.right])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            return {_PERCENT.sub(ANY, text) for text in self._spellings(node.left)}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            return {_BRACES.sub(ANY, text) for text in self._spellings(node.func.value)}
        if isinstance(node, ast.IfExp):
            return self._spellings(node.body) | self._spellings(node.orelse)
        if isinstance(node, ast.BoolOp):
            return set().union(*map(self._spellings, node.values))
        if isinstance(node, ast.NamedExpr):
            return self._spellings(node.value)
        if isinstance(node, ast.Subscript):
            return self._elements(node.value, keys=False)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._of_identifier("spellings", node, self._bound_spellings)
        return {ANY}

    def _bound_spellings(self, bound: Bound) -> set[str]:
        if bound.value is None:
            return {ANY}
        return self._elements(bound.value, keys=True) if bound.is_element else self._spellings(bound.value)

    def _joined(self, parts: list[ast.expr]) -> set[str]:
        found = {""}
        for part in parts:
            spelled = self._spellings(part)
            if len(found) * len(spelled) > _SPELLINGS_MAX:
                spelled = {ANY}
            found = {begin + end for begin, end in itertools.product(found, spelled)}
        return {_ANYS.sub(ANY, text) for text in found}

    def _elements(self, node: ast.expr, *, keys: bool) -> set[str]:
        """All that an element of a list, tuple, set or dictionary may be; of the last a key, or a value."""
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._of_identifier(
                "keys" if keys else "values",
                node,
                lambda bound: (
                    {ANY} if bound.value is None or bound.is_element else self._elements(bound.value, keys=keys)
                ),
            )
        held: list[ast.expr | None] = [None]
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            held = list(node.elts)
        elif isinstance(node, ast.Dict):
            held = list(node.keys) if keys else list(node.values)
        return set().union(*({ANY} if one is None else self._spellings(one) for one in held))

    def _of_identifier(self, what: str, node: ast.Name | ast.Attribute, read: Callable[[Bound], set[str]]) -> set[str]:
        """What is read from all that an identifier is bound to; ``*`` if it is bound to nothing here, or to itself."""
        key = (what, type(node), _identifier(node))
        if key not in self._known:
            self._known[key] = {ANY}
            bindings = self._bindings(node)
            if bindings:
                self._known[key] = set().union(*map(read, bindings))
        return self._known[key]

    def _edges(self, node: ast.expr) -> tuple[float, ...] | None:
        """The edges that an expression is, if that is certain."""
        if isinstance(node, (ast.Name, ast.Attribute)):
            bindings = self._bindings(node)
            if len(bindings) != 1 or bindings[0].value is None or bindings[0].is_element:
                return None
            node = bindings[0].value
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
        if not isinstance(value, (tuple, list)) or not all(type(edge) in (int, float) for edge in value):
            return None
        return tuple(value)

    def _bindings(self, node: ast.Name | ast.Attribute) -> list[Bound]:
        """What it is given in this file; of what comes from elsewhere, and of attributes, what it is given anywhere."""
        name = _identifier(node)
        here = self._module.of(name) if isinstance(node, ast.Name) else []
        return here or self._everywhere.of(name)

    def _place(self, node: ast.AST) -> str:
        return f"{self._path}:{getattr(node, 'lineno', 1)}"


def _is_method(function: ast.expr, name: str | None = None) -> bool:
    if not isinstance(function, ast.Attribute):
        return False
    return function.attr == name if name is not None else function.attr in _METHODS


def _argument(call: ast.Call, position: int, keyword: str | None) -> ast.expr | None:
    """An argument given by position or by keyword; one that nobody knows where a ``*`` or ``**`` may hold it."""
    for word in call.keywords:
        if word.arg is not None and word.arg == keyword:
            return word.value
    given = call.args[: position + 1]
    unpacked = [argument for argument in given if isinstance(argument, ast.Starred)]
    if unpacked or (keyword is not None and len(given) <= position and any(word.arg is None for word in call.keywords)):
        return ast.Starred(ast.Constant(None), ast.Load())
    return given[position] if len(given) > position else None


def _fields(call: ast.Call) -> dict[str, object]:
    fields: dict[str, object] = {}
    for word in call.keywords:
        value = word.value.value if isinstance(word.value, ast.Constant) else UNKNOWN
        if word.arg is not None and value is not None:  # A field that is None is left out.
            fields[word.arg] = value
    return fields


# -------------------------------------------------------------------- integrations


def _integrations_of(node: ast.AST) -> Iterator[str]:
    """The modules of ``tallypost.contrib`` that a node brings in: imported, or named in a text as Django does."""
    texts: list[str] = []
    if isinstance(node, ast.Import):
        texts = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        texts = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        texts = [node.value]
    for text in texts:
        yield from (module for module in _INTEGRATION.findall(text) if module in INTEGRATIONS)


def _of_integration(
    integration: Integration, place: str, prefixes: set[str], edges: list[tuple[float, ...] | None]
) -> Iterator[Use]:
    """What it counts, behind its own prefix and behind each that the same file gives."""
    for prefix in sorted({integration.prefix, *prefixes}):
        for counter in integration.counters:
            yield Use("counter", f"{prefix}/{counter}", place, by_integration=True)
        if integration.seconds_edges is not None:
            for given in edges or [integration.seconds_edges]:
                yield Use("histogram", f"{prefix}/seconds", place, edges=given, by_integration=True)


def _in_settings(path: str, text: str) -> Iterator[Use]:
    prefixes = set(_PYTEST_PREFIX.findall(text))
    if prefixes or "pytest" in _INTEGRATION.findall(text):
        yield from _of_integration(INTEGRATIONS["pytest"], path, prefixes, [])
