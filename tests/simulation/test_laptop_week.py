from __future__ import annotations

import pytest

from .laptop import live


@pytest.mark.parametrize("seed", range(6))
def test_laptop_after_some_weeks_has_every_session_complete_on_the_server(seed: int) -> None:
    """Sessions of eight hours, suspended, crashed, several at once; weekends, no network, a no, a new version."""
    laptop = live(seed)

    laptop.require_complete()
    assert 1 <= len(laptop.leaving()) < len(laptop.sessions)
    assert laptop.posts > len(laptop.leaving())


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_laptops_for_two_hundred_weeks_have_every_session_complete_on_the_server() -> None:
    """The same, a hundred times over."""
    for seed in range(100, 200):
        laptop = live(seed)
        laptop.require_complete()
