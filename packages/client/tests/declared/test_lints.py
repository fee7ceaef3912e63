from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost import limits
from tallypost.declared.lints import LEVELS, RULES, Lint, lint
from tallypost_schema import declaration
from tallypost_schema.declaration import Declaration

from .conftest import ENTRY, HEAD, ROOT, TODAY, repeatable, table

Declared = Callable[..., Declaration]

# A declaration of some size, as a tool with commands, a site and a library might have it: nothing but siblings.
REAL_COUNTERS = """
run exit option cmd/export cmd/import cmd/list cmd/lint cmd/link cmd/unlink cmd/log cmd/login cmd/logout cmd/add
cmd/remote cmd/remove cmd/move cmd/rename cmd/reset cmd/preset cmd/install cmd/uninstall cmd/load cmd/reload cmd/unload
cmd/upload cmd/download cmd/pack cmd/unpack cmd/push cmd/pull cmd/start cmd/restart cmd/stat cmd/state cmd/status
cmd/test cmd/text cmd/sync cmd/async cmd/encode cmd/decode cmd/encrypt cmd/decrypt cmd/insert cmd/invert cmd/send
cmd/new cmd/news cmd/pass cmd/past cmd/paste cmd/not cmd/note cmd/plan cmd/plane cmd/process cmd/progress cmd/min
cmd/db/migrate cmd/db/dump cmd/v1 cmd/v2 cmd/v11 http/1 http/2 files/changed files/unchanged files/failed
files/opened-read files/opened-write files/opened scheme/http scheme/https scheme/ftp scheme/ftps cache/hit cache/miss
theme/light theme/dark plugin/format plugin/former plugin/formatter editor/vim editor/vi editor/gvim region/us
mail/imap mail/imaps mail/smtp mail/smtps
"""
REAL_HISTOGRAMS = ["export/seconds", "import/seconds", "run/seconds", "file/bytes", "request-seconds", "run/files"]
REAL_STACKS = ["crash/KeyError", "crash/IndexError", "crash/OSError", "crash/IOError", "export/KeyError"]
REAL_EVENTS = ["export", "import", "run", "cmd/export"]


def codes(found: list[Lint]) -> list[tuple[str, str]]:
    return [(one.code, one.key) for one in found]


def test_lint_of_a_real_looking_declaration_finds_nothing(declared: Declared) -> None:
    """Plain siblings are no duplicates, however near their words are; seconds and bytes are a histogram's to have."""
    tables = {
        "counters": REAL_COUNTERS.split(),
        "histograms": REAL_HISTOGRAMS,
        "stacks": REAL_STACKS,
        "events": REAL_EVENTS,
    }

    found = lint(declared(*((kind, name) for kind, names in tables.items() for name in names)), today=TODAY)

    assert [] == codes(found)


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/**/telemetry.toml")), ids=lambda path: path.parent.name)
def test_lint_of_an_example_finds_nothing(path: object) -> None:
    """What is shown to others as a model is one."""
    text = path.read_text("utf-8")  # type: ignore[attr-defined]  # Whatever the fixture is, it is a path.

    assert [] == codes(lint(declaration.parse(text), today=TODAY))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cmd/export", "cmd/exports"),
        ("cmd/exports", "cmd/export"),
        ("cmd/export", "cmd-export"),
        ("cmd/db-migrate", "cmd/db/migrate"),
        ("cmd/checkout", "cmd/check-out"),
        ("file/opened", "files/opened"),
        ("cmd/query", "cmd/queries"),
        ("cache/box", "cache/boxes"),
        ("cache/hit", "caches/hits"),
        ("exit/status", "exit/statuses"),
        ("cmd/process", "cmd/processes"),
        ("cmd/movie", "cmd/movies"),
    ],
)
def test_lint_of_names_that_differ_in_separators_or_a_plural_finds_near_duplicates(
    declared: Declared, first: str, second: str
) -> None:
    """The second is told, and which it is near to."""
    (found,) = lint(declared(("counters", first), ("counters", second)), today=TODAY)

    assert ("near-duplicate", f'counters."{second}"') == (found.code, found.key)
    assert f'counters."{first}"' in found.sentence


def test_lint_looks_for_near_duplicates_where_names_are_seen_together(declared: Declared) -> None:
    """A counter beside a histogram, and stacks in any spelling; an event has its name for itself."""
    found = lint(
        declared(
            ("counters", "exports/run"),
            ("histograms", "export/run"),
            ("stacks", "crash/KeyError"),
            ("stacks", "crash/Keyerror"),
            ("events", "export/runs"),
        ),
        today=TODAY,
    )

    assert [
        ("near-duplicate", 'histograms."export/run"'),
        ("near-duplicate", 'stacks."crash/Keyerror"'),
    ] == codes(found)


def test_lint_without_a_contact_finds_that(declared: Declared) -> None:
    """A declaration is one without it, but users need somebody to ask."""
    assert [("no-contact", "contact")] == codes(lint(declared(head='application = "a"\n'), today=TODAY))


@pytest.mark.parametrize(
    ("days", "code"),
    [
        (-400, "expired"),
        (0, "expired"),
        (1, None),
        (365, None),
        (limits.expires_days_ahead_max, None),
        (limits.expires_days_ahead_max + 1, "far-expiry"),
    ],
)
def test_lint_of_an_expiry_goes_by_the_day(declared: Declared, days: int, code: str | None) -> None:
    """Past is an error, more than three years ahead a warning; the last day is the first on which nothing leaves."""
    day = (TODAY + datetime.timedelta(days=days)).isoformat()

    found = lint(declared(("counters", "run", "", ENTRY.replace('"never"', day))), today=TODAY)

    assert ([code] if code else []) == [one.code for one in found]


@pytest.mark.parametrize(
    ("kind", "name", "is_told"),
    [
        ("counters", "export-ms", True),
        ("counters", "size/kb", True),
        ("counters", "export/seconds", True),
        ("counters", "ms", True),
        ("counters", "forms", False),
        ("counters", "ms/export", False),
        ("histograms", "export/seconds", False),
        ("histograms", "export-seconds", False),
        ("histograms", "file/bytes", False),
        ("histograms", "export/ms", True),
        ("histograms", "file-mib", True),
        ("events", "export-ms", True),
        ("stacks", "slow/Export-ms", True),
    ],
)
def test_lint_of_a_unit_in_a_name_allows_a_histograms_seconds_and_bytes(
    declared: Declared, kind: str, name: str, is_told: bool
) -> None:
    """A unit is the last word of a name; a histogram must say what it measures, in units without a prefix."""
    found = lint(declared((kind, name)), today=TODAY)

    assert ([("unit-in-name", f'{kind}."{name}"')] if is_told else []) == codes(found)


@pytest.mark.parametrize(
    ("field", "is_told"),
    [
        ('wait_ms = "count"', True),
        ('wait_seconds = "count"', True),
        ('wait_seconds = "seconds"', False),
        ('bytes = "bytes"', False),
        ('kb = ["few", "many"]', True),
        ('pages = "count"', False),
    ],
)
def test_lint_of_a_unit_in_a_field_allows_that_of_its_kind(declared: Declared, field: str, is_told: bool) -> None:
    """A field's kind says the unit; another one in its name is a second truth."""
    found = lint(declared(("events", "export", f"fields = {{ {field} }}")), today=TODAY)

    expected = [("unit-in-name", f'events."export".fields.{field.split(" ")[0]}')]
    assert (expected if is_told else []) == codes(found)


@pytest.mark.parametrize(
    ("why", "is_told"),
    [
        ("w", True),
        ("usage stats", True),
        ("  for metrics  ", True),
        ("Which are used?", False),
        ("Which commands are used", False),
        ("どの形式を残すか", False),
        ("哪些", True),
    ],
)
def test_lint_of_a_why_tells_one_that_is_no_reason(declared: Declared, why: str, is_told: bool) -> None:
    """Fewer letters than a sentence has; in a script of words they count for more."""
    found = lint(declared(("counters", "run", "", ENTRY.replace("Which commands are used", why))), today=TODAY)

    assert ([("short-why", 'counters."run".why')] if is_told else []) == codes(found)


@pytest.mark.parametrize(
    ("packages", "is_told"), [("[]", True), ('["mytool.io"]', False), ('["mytool.io", "mytool"]', False)]
)
def test_lint_of_a_stack_of_which_no_frame_leaves_tells_it(declared: Declared, packages: str, is_told: bool) -> None:
    """Frames go by the first part of their module, so a package with a dot in it is nobody's."""
    found = lint(declared(("stacks", "crash/KeyError", f"packages = {packages}")), today=TODAY)

    assert ([("no-packages", 'stacks."crash/KeyError".packages')] if is_told else []) == codes(found)


names = st.lists(st.sampled_from(["cmd", "s", "es", "export", "exports", "ms", "news", "ies"]), min_size=1, max_size=4)


@repeatable
@given(st.lists(st.tuples(names, st.sampled_from("/-")), max_size=6), st.dates())
def test_lint_of_any_names_gives_sentences_that_begin_with_their_key(
    names: list[tuple[list[str], str]], today: datetime.date
) -> None:
    """Whatever the names, each finding has a rule, and a sentence on one line that begins with where it stands."""
    spelled = {separator.join(words) for words, separator in names}
    parsed = declaration.parse(HEAD + "".join(table("counters", name) for name in sorted(spelled)))

    found = lint(parsed, today=today)

    assert all(one.code in RULES and one.sentence.startswith(one.key) and "\n" not in one.sentence for one in found)


def test_lint_fails_by_its_level() -> None:
    """An error always, a warning if the check is strict, a note never."""
    by_level = {RULES[code].level: Lint(code, "key", "is so") for code in RULES}

    fails = [(by_level[level].fails(strict=False), by_level[level].fails(strict=True)) for level in LEVELS]

    assert [(True, True), (False, True), (False, False)] == fails
