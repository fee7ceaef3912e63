from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallypost_schema import declaration, upload_config
from tallypost_schema.errors import Invalid, Malformed
from tallypost_schema.upload_config import UploadConfig

# The example of the promised interface, byte for byte.
CONFIG = (
    b'{"version":"3","counters":{"cmd/export":1.0},"histograms":{"export/seconds":1.0},'
    b'"stacks":{"crash/KeyError":1.0},"events":{"export":1.0},"paused":false}'
)
DAY = datetime.date(2026, 11, 24)
DECLARED = declaration.parse(
    """
    application = "example.org/mytool"
    contact = "privacy@example.org"

    [counters."cmd/z"]
    why = "w"
    owner = "o"
    expires = "never"
    rate = 0.5

    [counters."cmd/a"]
    why = "w"
    owner = "o"
    expires = 2026-11-25

    [counters."cmd/old"]
    why = "w"
    owner = "o"
    expires = 2026-11-24

    [histograms."export/seconds"]
    why = "w"
    owner = "o"
    expires = "never"
    edges = [1, 10]

    [stacks."crash/KeyError"]
    why = "w"
    owner = "o"
    expires = "never"

    [events.export]
    why = "w"
    owner = "o"
    expires = "never"
    rate = 0
    """
)


def test_config_of_the_promised_example_decodes_and_encodes_to_the_same_bytes() -> None:
    """The config of the promised interface is one, and its bytes are the ones we write."""
    assert CONFIG == upload_config.encode(upload_config.decode(CONFIG))


rates = st.dictionaries(st.text(max_size=8), st.floats(0, 1), max_size=3)
labels = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=64)


@given(st.builds(UploadConfig, labels, rates, rates, rates, rates, st.booleans()))
def test_config_of_any_content_survives_its_bytes(config: UploadConfig) -> None:
    """Encode, decode: the same config."""
    assert config == upload_config.decode(upload_config.encode(config))


@pytest.mark.parametrize(
    "change",
    [
        {"version": ""},
        {"version": "3\n"},
        {"version": "v" * 65},
        {"version": 3},
        {"counters": None},
        {"counters": {"a": 1.5}},
        {"histograms": {"a": -0.1}},
        {"stacks": {"a": "1"}},
        {"events": {"a": None}},
        {"events": {"a": 10**400}},
        {"paused": 1},
        {"paused": "false"},
    ],
    ids=repr,
)
def test_config_that_breaks_a_rule_is_invalid(change: dict[str, object]) -> None:
    """A config that cannot be relied on is refused whole."""
    body = json.dumps({**json.loads(CONFIG), **change}).encode()

    with pytest.raises(Invalid, match="upload config: "):
        upload_config.decode(body)


@pytest.mark.parametrize("key", ["version", "counters", "histograms", "stacks", "events"])
def test_config_that_lacks_a_table_is_invalid(key: str) -> None:
    """A table that is missing is not an empty one."""
    body = json.dumps({name: value for name, value in json.loads(CONFIG).items() if name != key}).encode()

    with pytest.raises(Invalid):
        upload_config.decode(body)


def test_config_without_paused_or_with_more_is_read() -> None:
    """Not paused is the ordinary case; a later server may say more."""
    body = json.dumps({**json.loads(CONFIG), "later": [1]}).replace(', "paused": false', "").encode()

    assert CONFIG == upload_config.encode(upload_config.decode(body))


@given(st.binary(max_size=40))
def test_decode_of_any_bytes_raises_malformed_or_invalid(body: bytes) -> None:
    """A portal's page is no config, and nothing else is raised."""
    with pytest.raises((Malformed, Invalid)):
        upload_config.decode(body)


def test_asked_for_of_a_declaration_leaves_out_what_has_expired() -> None:
    """The day something expires on is the first on which it is not asked for; names are in order."""
    config = upload_config.asked_for(DECLARED, DAY)

    assert [("cmd/a", 1.0), ("cmd/z", 0.5)] == list(config.counters.items())
    assert {"export/seconds": 1.0} == config.histograms
    assert {"crash/KeyError": 1.0} == config.stacks
    assert {"export": 0.0} == config.events
    assert config == upload_config.decode(upload_config.encode(config))


def test_asked_for_version_changes_when_the_answer_does() -> None:
    """The same answer has the same version on another day; another answer, or a pause, has another."""
    today = upload_config.asked_for(DECLARED, DAY)
    tomorrow = upload_config.asked_for(DECLARED, DAY + datetime.timedelta(days=1))
    later = upload_config.asked_for(DECLARED, DAY + datetime.timedelta(days=2))
    paused = upload_config.asked_for(DECLARED, DAY, paused=True)

    assert tomorrow == later
    assert 3 == len({today.version, tomorrow.version, paused.version})
    assert paused.paused
