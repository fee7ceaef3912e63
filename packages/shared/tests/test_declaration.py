from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost_schema import declaration, limits, names
from tallypost_schema.declaration import Counter, Declaration, Event, Histogram, Stack
from tallypost_schema.errors import DeclarationInvalid

HEAD = 'application = "example.org/mytool"\ncontact = "privacy@example.org"\n'
WHY = 'why = "w"\nowner = "o"\nexpires = "never"\n'
# The example of the promised interface, with the keys that it says are needed in every table.
PROMISED = """
application = "example.org/mytool"
contact = "privacy@example.org"
about = "https://example.org/telemetry"
consent_version = 1

[counters."cmd/export"]
why = "Which formats are worth keeping"
owner = "export team"
buckets = ["pdf", "html"]            # optional; a bucket that is not named here does not leave
expires = 2027-06-01                 # a date or "never"
rate = 1.0                           # optional

[histograms."export/seconds"]        # why, owner, expires, rate as above
why = "w"
owner = "o"
expires = "never"
edges = [0.1, 1, 10]

[stacks."crash/KeyError"]
why = "w"
owner = "o"
expires = "never"
depth = 8
packages = ["mytool"]                # frames of other packages are left out

[events.export]
why = "w"
owner = "o"
expires = "never"
fields = { format = ["pdf", "html"], pages = "count" }   # a set of words, "count", "seconds", "bytes", "flag"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(DeclarationInvalid) as refusal:
        declaration.parse(text)
    return refusal.value.problems


def test_parse_of_the_promised_example_gives_all_of_it() -> None:
    """Every key of the example is read as what it says."""
    declared = declaration.parse(PROMISED)

    expected = Declaration(
        application="example.org/mytool",
        contact="privacy@example.org",
        about="https://example.org/telemetry",
        consent_version=1,
        counters={
            "cmd/export": Counter(
                "Which formats are worth keeping", "export team", datetime.date(2027, 6, 1), 1.0, ("pdf", "html")
            )
        },
        histograms={"export/seconds": Histogram("w", "o", None, 1.0, (0.1, 1.0, 10.0))},
        stacks={"crash/KeyError": Stack("w", "o", None, 1.0, 8, ("mytool",))},
        events={"export": Event("w", "o", None, 1.0, {"format": ("pdf", "html"), "pages": "count"})},
    )
    assert expected == declared


def test_parse_of_the_least_declaration_takes_it() -> None:
    """An application and a contact are enough: then nothing leaves."""
    declared = declaration.parse(HEAD)

    assert frozenset() == declared.counter_names
    assert 1 == declared.consent_version
    assert declared.about is None


@pytest.mark.parametrize(
    ("text", "key", "given_", "allowed"),
    [
        ('contact = "c"', "application", "missing", "some text"),
        ('application = "A"\ncontact = "c"', "application", "'A'", "parts of a-z"),
        ('application = 1979-05-27\ncontact = "c"', "application", "datetime.date(1979", "some text"),
        ('application = "a"\ncontact = " "', "contact", "' '", "some text"),
        (HEAD + "about = 1", "about", "1", "some text"),
        (HEAD + "consent_version = 0", "consent_version", "0", "a whole number from 1 on"),
        (HEAD + "consent_version = true", "consent_version", "True", "a whole number from 1 on"),
        (HEAD + "consent_version = 1.0", "consent_version", "1.0", "a whole number from 1 on"),
        (HEAD + "consent_version = 0x" + "f" * 8000, "consent_version", "too large to show", "a whole number"),
        (HEAD + "contacts = 1", "contacts", "is not a key", "allowed are application, contact"),
        (HEAD + '"a b\\n" = 1', '"a b\\n"', "is not a key", "allowed are application, contact"),
        (HEAD + "counters = 1", "counters", "1", '[counters."cmd/export"]'),
        (HEAD + "counters.a = 1", 'counters."a"', "1", "a table with why, owner and expires"),
        (HEAD + '[counters."Cmd"]\n' + WHY, 'counters."Cmd"', "'Cmd'", "words of a-z"),
        (HEAD + '[counters."a:b"]\n' + WHY, 'counters."a:b"', "'a:b'", "words of a-z"),
        (HEAD + '[counters."a\\n"]\n' + WHY, 'counters."a\\n"', "'a\\n'", "words of a-z"),
        (HEAD + '[counters.a]\nwhy = "w"\nowner = "o"', 'counters."a".expires', "missing", '"never"'),
        (HEAD + "[counters.a]\n" + WHY.replace('"never"', '"soon"'), 'counters."a".expires', "'soon'", "a date"),
        (
            HEAD + "[counters.a]\n" + WHY.replace('"never"', "2027-06-01T10:00:00Z"),
            'counters."a".expires',
            "datetime.datetime(2027",
            "a date (2027-06-01)",
        ),
        (HEAD + '[counters.a]\nowner = "o"\nexpires = "never"', 'counters."a".why', "missing", "some text"),
        (HEAD + '[counters.a]\nwhy = ""\nowner = "o"\nexpires = "never"', 'counters."a".why', "''", "some text"),
        (HEAD + '[counters.a]\nwhy = "w"\nexpires = "never"', 'counters."a".owner', "missing", "some text"),
        (HEAD + "[counters.a]\nrate = 1.5\n" + WHY, 'counters."a".rate', "1.5", "a number from 0 to 1"),
        (HEAD + "[counters.a]\nrate = nan\n" + WHY, 'counters."a".rate', "nan", "a number from 0 to 1"),
        (HEAD + "[counters.a]\nrate = true\n" + WHY, 'counters."a".rate', "True", "a number from 0 to 1"),
        (HEAD + "[counters.a]\nrate = 1" + "0" * 400 + "\n" + WHY, 'counters."a".rate', "1000", "a number from 0 to 1"),
        (HEAD + "[counters.a]\nbuckets = ['a b']\n" + WHY, 'counters."a".buckets', "['a b']", "a list of letters"),
        (HEAD + "[counters.a]\nbuckets = 'pdf'\n" + WHY, 'counters."a".buckets', "'pdf'", "a list of letters"),
        (HEAD + "[counters.a]\nedges = [1]\n" + WHY, 'counters."a".edges', "is not a key", "allowed are why, owner"),
        (
            HEAD + f"[counters.{'a' * 195}]\nbuckets = ['pdf', 'html5']\n" + WHY,
            f'counters."{"a" * 195}".buckets',
            "'html5'",
            "4 characters at most behind a name of 195",
        ),
        (HEAD + "[histograms.a]\n" + WHY, 'histograms."a".edges', "missing", "rising positive numbers"),
        *(
            (
                HEAD + f"[histograms.a]\nedges = {edges}\n" + WHY,
                'histograms."a".edges',
                shown,
                "rising positive numbers",
            )
            for edges, shown in [
                ("[]", "[]"),
                ("1", "1"),
                ("[0, 1]", "[0, 1]"),
                ("[1, 1]", "[1, 1]"),
                ("[2, 1]", "[2, 1]"),
                ("[nan]", "[nan]"),
                ("[1, nan]", "[1, nan]"),
                ("[1, inf]", "[1, inf]"),
                ("[true]", "[True]"),
                ("['1']", "['1']"),
                ("[1.0000001, 1.0000002]", "[1.0000001, 1.0000002]"),
                ("[1, 1" + "0" * 400 + "]", "[1, 1000"),
                ("[0x" + "f" * 8000 + "]", "too large to show"),
            ]
        ),
        (
            HEAD + f"[histograms.{'a' * 197}]\nedges = [1, 10]\n" + WHY,
            f'histograms."{"a" * 197}".edges',
            "'<=1'",
            "2 characters at most behind a name of 197",
        ),
        (HEAD + '[stacks."A/B"]\n' + WHY, 'stacks."A/B"', "'A/B'", "one part may have capitals"),
        (HEAD + "[stacks.a]\ndepth = 0\n" + WHY, 'stacks."a".depth', "0", "a whole number from 1 to 32"),
        (HEAD + "[stacks.a]\ndepth = 33\n" + WHY, 'stacks."a".depth', "33", "a whole number from 1 to 32"),
        (HEAD + "[stacks.a]\npackages = ['a-b']\n" + WHY, 'stacks."a".packages', "['a-b']", "names of packages"),
        (HEAD + "[stacks.a]\npackages = ['a.']\n" + WHY, 'stacks."a".packages', "['a.']", "names of packages"),
        (HEAD + "[events.a]\nfields = []\n" + WHY, 'events."a".fields', "[]", "at most 32 fields"),
        (HEAD + "[events.a.fields]\nF = 'count'\n[events.a]\n" + WHY, 'events."a".fields.F', "'F'", "a-z, 0-9 and '_'"),
        (HEAD + "[events.a]\nfields.f = 'text'\n" + WHY, 'events."a".fields.f', "'text'", '"count", "seconds"'),
        (HEAD + "[events.a]\nfields.f = 1\n" + WHY, 'events."a".fields.f', "1", '"count", "seconds"'),
        (HEAD + "[events.a]\nfields.f = ['a\\n', 1]\n" + WHY, 'events."a".fields.f', "1]", "a list of printable words"),
        (HEAD + "[events.a]\nfields.'f g' = 'text'\n" + WHY, 'events."a".fields."f g"', "'f g'", "begun by a letter"),
    ],
)
def test_parse_of_a_broken_rule_names_key_given_and_allowed(text: str, key: str, given_: str, allowed: str) -> None:
    """An author reads where it stands, what stands there and what may stand there."""
    found = problems(text)

    matching = [problem for problem in found if problem.startswith(f"{key} is ")]
    assert matching, found
    assert any(given_ in problem and allowed in problem for problem in matching), found


def test_parse_of_many_problems_tells_all_at_once() -> None:
    """An author need not run the check once a mistake."""
    found = problems("consent_version = 0\nx = 1\n[counters.a]\nrate = 2\n[events.B]\n")

    keys = ["application", "consent_version", "counters", "counters", "counters", "counters", "events", "x"]
    assert keys == sorted(problem.split(" ")[0].split(".")[0] for problem in found)


@pytest.mark.parametrize(
    "text",
    [
        "application =",
        "a = 1\na = 2",
        "a = 2027-02-30",
        "a = " + "9" * 5000,
        "a = " + "[" * 5000,
        '"\x00" = 1',
        "a = '\ud800",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_parse_of_what_is_not_toml_is_one_problem(text: str) -> None:
    """Bad syntax, a number without end and brackets without end are told, not raised."""
    found = problems(text)

    assert 1 == len(found)
    assert found[0].startswith("not TOML")


def test_parse_of_tables_in_tables_without_end_is_told() -> None:
    """A value too deep to print does not break the sentence about it."""
    found = problems(HEAD + "about" + ".a" * 3000 + " = 1")

    assert 1 == len(found)
    assert found[0].startswith(("about is ", "not TOML"))


@given(st.text(max_size=60) | st.text("[]{}\"'=.\n#a1 -", max_size=60))
def test_parse_of_any_text_raises_declaration_invalid_only(text: str) -> None:
    """Whatever an editor left behind, the answer is a list of sentences."""
    found = problems(text)

    assert all(found)


toml_values = st.sampled_from(
    [
        "1",
        "-1",
        "0.5",
        "nan",
        "inf",
        "true",
        '""',
        '"a"',
        '"never"',
        '"count"',
        "[]",
        "[1]",
        '["a"]',
        "{}",
        "{a=1}",
        "2027-06-01",
        "10:00:00",
        "2027-06-01T10:00:00",
        "0x" + "f" * 5000,
        "1" + "0" * 400,
        "[[[]]]",
        '["\\u0000"]',
    ]
)
toml_keys = st.sampled_from(
    [
        "why",
        "owner",
        "expires",
        "rate",
        "buckets",
        "edges",
        "depth",
        "packages",
        "fields",
        "fields.a",
        "x",
        '"\\n"',
        '""',
    ]
)


@given(
    st.sampled_from(["counters", "histograms", "stacks", "events"]),
    st.sampled_from(["a", '"A/B"', '""', '"\\n"', "a" * 200, "a" * 201]),
    st.dictionaries(toml_keys, toml_values, max_size=6),
)
def test_parse_of_any_values_in_a_table_gives_a_declaration_or_problems(
    table: str, name: str, values: dict[str, str]
) -> None:
    """Each key may hold anything: what is taken keeps the grammar, what is not is told in ASCII and in short."""
    if "fields" in values and "fields.a" in values:
        del values["fields"]
    text = HEAD + f"[{table}.{name}]\n" + "\n".join(f"{key} = {value}" for key, value in values.items())

    try:
        declared, found = declaration.parse(text).counter_names, []
    except DeclarationInvalid as refusal:
        declared, found = frozenset(), refusal.problems

    assert all(map(names.is_counter, declared))
    assert all(problem.isascii() and len(problem) < 600 for problem in found)


def test_declared_names_of_counters_are_plain_and_bucketed_and_of_histograms_bucketed() -> None:
    """A histogram has no plain name; a bucket that is not declared is not named."""
    declared = declaration.parse(PROMISED)

    expected = {"cmd/export", "cmd/export:pdf", "cmd/export:html"} | {
        f"export/seconds:{bucket}" for bucket in ("<=0.1", "<=1", "<=10", ">10")
    }
    assert expected == declared.counter_names
    assert declared.names_counter("cmd/export:pdf")
    assert not declared.names_counter("cmd/export:other")
    assert not declared.names_counter("export/seconds")


def test_declared_names_of_stacks_are_known_whatever_their_frames() -> None:
    """A stack is declared by its name."""
    declared = declaration.parse(PROMISED)

    assert declared.names_stack("crash/KeyError\nmytool.cli:main:+12")
    assert declared.names_stack("crash/KeyError")
    assert not declared.names_stack("crash/ValueError\ncrash/KeyError:a:+1")


def test_declared_buckets_named_twice_count_once() -> None:
    """The order is the author's, without repeats."""
    declared = declaration.parse(HEAD + "[counters.a]\nbuckets = ['b', 'a', 'b']\n" + WHY)

    assert ("b", "a") == declared.counters["a"].buckets


def test_declaration_made_with_a_histogram_without_edges_has_no_bucket() -> None:
    """A histogram's default is no edges, and then it names nothing."""
    declared = Declaration("a", "c", None, 1, {}, {"h": Histogram("w", "o", None, 1.0)}, {}, {})

    assert frozenset() == declared.counter_names


@pytest.mark.parametrize(("days", "expired"), [(-1, False), (0, True), (1, True)])
def test_entry_on_its_last_day_has_expired(days: int, expired: bool) -> None:
    """The day it expires on is the first on which it does not leave."""
    end = datetime.date(2027, 6, 1)
    entry = Counter("w", "o", end, 1.0)

    assert expired == entry.expired(end + datetime.timedelta(days=days))
    assert not Counter("w", "o", None, 1.0).expired(datetime.date.max)


EVENT = Event("w", "o", None, 1.0, {"w": ("pdf", "html"), "c": "count", "s": "seconds", "b": "bytes", "f": "flag"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("w", "pdf"),
        ("c", 0),
        ("c", limits.count_max),
        ("s", 0),
        ("s", 0.25),
        ("s", float(limits.count_max)),
        ("b", 1),
        ("f", True),
        ("f", False),
    ],
)
def test_event_field_of_its_kind_is_accepted(key: str, value: object) -> None:
    """A field takes what it is declared to be."""
    assert EVENT.accepts(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("x", 1),
        ("w", "doc"),
        ("w", 1),
        ("w", None),
        ("c", True),
        ("c", -1),
        ("c", 1.0),
        ("c", "1"),
        ("c", limits.count_max + 1),
        ("c", 10**400),
        ("s", math.nan),
        ("s", math.inf),
        ("s", -0.1),
        ("s", True),
        ("s", 10**400),
        ("b", 1.5),
        ("f", 1),
        ("f", "true"),
        ("f", None),
    ],
)
def test_event_field_of_another_kind_is_not_accepted(key: str, value: object) -> None:
    """A field takes nothing else, and a number of any size raises nothing."""
    assert not EVENT.accepts(key, value)


def test_parse_without_a_contact_is_a_declaration() -> None:
    """Only what has no meaning without it is needed; who can be asked is for `tallypost check` to miss."""
    assert declaration.parse('application = "example.org/mytool"').contact is None


@pytest.mark.parametrize("table", ["counters", "histograms", "events"])
def test_parse_of_a_name_that_is_the_librarys_own_is_a_problem(table: str) -> None:
    """An application cannot declare what the library counts of itself."""
    more = "edges = [1]" if table == "histograms" else ""
    text = f'application = "a/b"\n[{table}."tallypost/x"]\nwhy = "w"\nowner = "o"\nexpires = "never"\n{more}'

    with pytest.raises(DeclarationInvalid, match="the library's own"):
        declaration.parse(text)


def test_parse_of_a_counter_and_a_histogram_of_one_name_is_a_problem() -> None:
    """Of two entries with one name nobody could say whose rate holds."""
    entry = 'why = "w"\nowner = "o"\nexpires = "never"\n'
    text = f'application = "a/b"\n[counters.x]\n{entry}[histograms.x]\n{entry}edges = [1]'

    with pytest.raises(DeclarationInvalid, match="that no counter has"):
        declaration.parse(text)
