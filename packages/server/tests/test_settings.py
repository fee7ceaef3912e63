from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tallypost_server.errors import SettingsInvalid
from tallypost_server.settings import DECLARED, IN_DATA, Listen, load

DOCS = Path(__file__).parents[3] / "docs" / "server" / "settings.md"


def test_load_of_nothing_gives_the_promised_defaults() -> None:
    """What is promised holds where nothing is said."""
    settings = load({}, {}, None)

    assert (Listen("127.0.0.1", 8080, ""), Path("tallypost-data")) == (settings.listen, settings.data)
    assert Path("tallypost-data/applications") == settings.applications
    assert (10 << 20, 60.0, 64 << 20) == (settings.seal_bytes, settings.seal_seconds, settings.reserve_bytes)
    assert {"default"} == set(settings.sources.values())


def test_load_takes_flags_before_variables_before_the_file(tmp_path: Path) -> None:
    """The nearer place decides, and each setting tells where it came from."""
    file = tmp_path / "server.toml"
    file.write_text('seal_seconds = 1\nseal_bytes = 1\nreserve_bytes = 1\nlisten = "0.0.0.0:1"\n')
    variables = {"TALLYPOST_SERVER_SEAL_SECONDS": "2", "TALLYPOST_SERVER_SEAL_BYTES": "2", "OTHER": "x"}

    settings = load({"seal_seconds": "3"}, variables, file)

    assert (3.0, 2, 1) == (settings.seal_seconds, settings.seal_bytes, settings.reserve_bytes)
    names = ("seal_seconds", "seal_bytes", "reserve_bytes", "data")
    expected = ["--seal-seconds", "TALLYPOST_SERVER_SEAL_BYTES", str(file), "default"]
    assert expected == [settings.sources[name] for name in names]


def test_load_finds_the_file_by_its_variable(tmp_path: Path) -> None:
    """The file's path may stand in a variable, for services."""
    file = tmp_path / "server.toml"
    file.write_text("seal_bytes = 5\n")

    assert 5 == load({}, {"TALLYPOST_SERVER_CONFIG": str(file)}, None).seal_bytes


def test_load_lets_applications_follow_the_data_folder() -> None:
    """Unless it is said otherwise, declarations lie in the data folder."""
    assert Path("x/applications") == load({"data": "x"}, {}, None).applications
    assert Path("y") == load({"data": "x", "applications": "y"}, {}, None).applications


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("listen", "8080"),
        ("listen", "host:"),
        ("listen", ":80"),
        ("listen", "host:70000"),
        ("listen", "::1:80"),
        ("listen", "unix:"),
        ("listen", 80),
        ("seal_bytes", "0"),
        ("seal_bytes", "10MB"),
        ("seal_bytes", "-1"),
        ("seal_bytes", True),
        ("seal_bytes", 1.5),
        ("seal_seconds", "0"),
        ("seal_seconds", "nan"),
        ("seal_seconds", "inf"),
        ("seal_seconds", "soon"),
        ("seal_seconds", True),
        ("reserve_bytes", "-1"),
        ("reserve_bytes", False),
        ("no_archive", "maybe"),
        ("archive", "s3://"),
        ("archive", "gs://bucket/prefix"),
        ("no_archive", 1),
        ("data", ""),
        ("data", 3),
    ],
)
def test_load_of_a_value_that_does_not_fit_names_it(name: str, given: Any) -> None:
    """What was given and what is allowed stand in the sentence."""
    with pytest.raises(SettingsInvalid) as caught:
        load({name: given}, {}, None)

    (problem,) = caught.value.problems
    assert problem.startswith(f"{name} (--{name.replace('_', '-')}) is ")


def test_load_tells_all_problems_at_once(tmp_path: Path) -> None:
    """Unknown keys, unknown variables and bad values are told together."""
    file = tmp_path / "server.toml"
    file.write_text("seal_second = 1\nseal_bytes = 0\n")

    with pytest.raises(SettingsInvalid) as caught:
        load({}, {"TALLYPOST_SERVER_SEALBYTES": "1", "TALLYPOST_SERVER_data": "x"}, file)

    assert 4 == len(caught.value.problems)


@pytest.mark.parametrize("text", [None, "x = ", "\udc80"])
def test_load_of_an_unreadable_file_refuses(tmp_path: Path, text: str | None) -> None:
    """A file that was named must be there and be TOML."""
    file = tmp_path / "server.toml"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(SettingsInvalid, match="cannot be read"):
        load({}, {}, file)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("127.0.0.1:0", Listen("127.0.0.1", 0, "")),
        ("[::1]:80", Listen("::1", 80, "")),
        ("unix:/run/a b.sock", Listen("", 0, "/run/a b.sock")),
    ],
)
def test_listen_is_spelled_as_it_was_given(given: str, expected: Listen) -> None:
    """An address comes back as it was said."""
    assert expected == load({"listen": given}, {}, None).listen
    assert given == str(expected)


def test_docs_have_each_setting_as_it_is_declared() -> None:
    """The page's table is that of the declarations, row by row."""
    rows = re.findall(
        r"^\| `(--[^`]*)` \| `([^`]*)` \| `([^`]*)` \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE
    )

    shown = {"10485760": "10 MiB (10485760)", "67108864": "64 MiB (67108864)", "60.0": "60", "False": "off", "0": "0"}
    shown |= {"300.0": "300", "900.0": "900", "604800.0": "604800"}
    expected = []
    for setting in DECLARED:
        default = f"`<data>/{IN_DATA[setting.name]}`" if setting.default is None else shown.get(str(setting.default))
        flag = f"{setting.flag} {setting.given_as}".strip()
        row = (flag, setting.variable, setting.name, default or f"`{setting.default}`", setting.sentence)
        expected.append(row)
    assert expected == rows


def test_load_refuses_a_rate_that_nobody_can_be_held_to(tmp_path: Path) -> None:
    """Through a socket in the file system all come from nowhere, unless a proxy tells who they are."""
    flags = {"listen": "unix:/run/tallypost.sock", "rate_per_address": "60"}

    with pytest.raises(SettingsInvalid, match="set trusted_hops"):
        load(flags, {}, None)

    assert 60 == load({**flags, "trusted_hops": "1"}, {}, None).rate_per_address


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql+psycopg://tallypost:hu@sh@db/tallypost", "postgresql+psycopg://tallypost:***@db/tallypost"),
        (
            "postgresql+psycopg://tallypost@db/t?password=hush&port=1",
            "postgresql+psycopg://tallypost@db/t?password=***&port=1",
        ),
        ("postgresql+psycopg://tallypost@db/tallypost", "postgresql+psycopg://tallypost@db/tallypost"),
        ("/var/lib/tallypost/coordinator.sqlite", "/var/lib/tallypost/coordinator.sqlite"),
    ],
)
def test_settings_that_are_shown_have_no_password(given: str, shown: str) -> None:
    """What others may see tells where the database is, and not how to get in."""
    settings = load({"coordinator": given}, {}, None)

    assert given == settings.coordinator
    assert shown == settings.shown()["coordinator"]["value"]


@pytest.mark.parametrize("given", ["mysql://tallypost:hush@db/t", "postgresql://tallypost:hush@db/t", "sqlite:///c"])
def test_coordinator_that_is_no_database_of_ours_is_refused_without_its_password(given: str) -> None:
    """An address of another kind would be taken for one of a file, or fail much later."""
    with pytest.raises(SettingsInvalid, match=r"postgresql\+psycopg://USER@HOST/DATABASE") as raised:
        load({"coordinator": given}, {}, None)

    assert "hush" not in str(raised.value)
