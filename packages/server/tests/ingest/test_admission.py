from __future__ import annotations

import pytest

from tallypost_server.errors import NotTaking, TooMuchWaiting
from tallypost_server.ingest.admission import Admission


@pytest.fixture
def admission() -> Admission:
    return Admission(requests_max=2, held_bytes_max=10, trouble=lambda: None)


@pytest.mark.parametrize("state", ["starting", "stopping"])
def test_enter_while_not_taking_names_the_state(admission: Admission, state: str) -> None:
    """A server that starts or stops says so."""
    admission.state = state  # type: ignore[assignment]

    with pytest.raises(NotTaking) as caught:
        admission.enter()

    trouble = admission.not_ready()
    assert trouble is not None
    assert state == caught.value.code == trouble.code


def test_enter_over_the_number_is_busy_until_one_leaves(admission: Admission) -> None:
    """Requests under way are bounded."""
    admission.state = "taking"
    admission.enter()
    admission.enter()

    with pytest.raises(TooMuchWaiting):
        admission.enter()
    admission.leave()
    admission.enter()

    assert admission.not_ready() is None


def test_hold_over_the_bytes_is_busy_until_some_are_released(admission: Admission) -> None:
    """Bodies that are not whole yet are bounded together."""
    admission.hold(10)

    with pytest.raises(TooMuchWaiting):
        admission.hold(1)
    admission.release(5)
    admission.hold(5)
