from __future__ import annotations

import datetime

from tallypost_schema import names, own


def test_own_names_all_begin_with_the_prefix() -> None:
    """What the library counts of itself is told apart by its name."""
    declared = [*own.OWN.counters, *own.OWN.histograms, *own.OWN.stacks, *own.OWN.events]

    assert declared
    assert [] == [name for name in declared if not name.startswith(own.PREFIX)]
    assert own.OWN.names_counter("tallypost/dropped-events")


def test_own_application_is_the_library() -> None:
    """The file is a declaration like an application's."""
    assert "tallypost" == own.OWN.application
    assert names.is_application(own.OWN.application)
    assert 1 == own.OWN.consent_version


def test_own_names_never_expire() -> None:
    """A version of the library that is in use for years goes on telling its losses."""
    last = datetime.date.max

    assert [] == [name for name, counter in own.OWN.counters.items() if counter.expired(last)]
