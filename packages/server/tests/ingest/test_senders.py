from __future__ import annotations

import pytest

from tallypost_server import limits
from tallypost_server.errors import TooManyFromOne
from tallypost_server.ingest.senders import Senders, sender_of


class Now:
    def __init__(self) -> None:
        self.seconds = 600.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def senders(now: Now) -> Senders:
    """Ten a minute, nobody in front."""
    return Senders(per_minute=10, trusted_hops=0, key=b"k" * 16, now=now)


def admitted(senders: Senders, peer: str, requests: int) -> int:
    """How many of so many requests are taken."""
    taken = 0
    for _ in range(requests):
        try:
            senders.admit(peer, [])
        except TooManyFromOne:
            continue
        taken += 1
    return taken


def test_admit_takes_so_many_of_one_sender_and_as_many_of_another(senders: Senders) -> None:
    """One that sends too much hinders nobody else."""
    assert (10, 10) == (admitted(senders, "192.0.2.1", 15), admitted(senders, "192.0.2.2", 15))


def test_admit_within_a_minute_that_slides_takes_no_more(senders: Senders, now: Now) -> None:
    """A full rate at a minute's end and another at the next one's begin would be twice what is allowed."""
    now.seconds = 659.0
    assert 10 == admitted(senders, "192.0.2.1", 20)
    now.seconds = 661.0
    assert 1 == admitted(senders, "192.0.2.1", 20)  # A sixtieth of the last minute is over: room for one.
    now.seconds = 690.0
    assert 4 == admitted(senders, "192.0.2.1", 20)
    now.seconds = 800.0
    assert 10 == admitted(senders, "192.0.2.1", 20)


def test_admit_keeps_no_address_and_no_more_than_its_bound(
    senders: Senders, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashes only, of so many senders; of more each is let in, since that is not one sender's doing."""
    monkeypatch.setattr(limits, "senders_max", 3)

    taken = [admitted(senders, f"192.0.2.{n}", 11) for n in range(5)]

    assert [10, 10, 10, 11, 11] == taken
    assert 3 == len(senders._this)
    assert "192.0.2" not in repr(vars(senders))


def test_error_tells_the_rate_and_that_it_may_be_sent_again(senders: Senders) -> None:
    """It is trouble of the server's own making: never a refusal."""
    admitted(senders, "192.0.2.1", 10)

    with pytest.raises(TooManyFromOne, match="10 a minute") as told:
        senders.admit("192.0.2.1", [])

    assert ("busy", 503, True) == (told.value.code, told.value.status, told.value.retry)


XFF, FORWARDED = b"x-forwarded-for", b"forwarded"


@pytest.mark.parametrize(
    ("peer", "headers", "hops", "sender"),
    [
        ("192.0.2.1", [], 0, "192.0.2.1"),
        ("192.0.2.1", [(XFF, b"198.51.100.7")], 0, "192.0.2.1"),
        ("192.0.2.1", [(XFF, b"198.51.100.7")], 1, "198.51.100.7"),
        ("192.0.2.1", [(XFF, b"10.0.0.1, 198.51.100.7")], 1, "198.51.100.7"),
        ("192.0.2.1", [(XFF, b"10.0.0.1, 198.51.100.7, 203.0.113.9")], 2, "198.51.100.7"),
        ("192.0.2.1", [(XFF, b"10.0.0.1"), (XFF, b"198.51.100.7")], 1, "198.51.100.7"),
        ("192.0.2.1", [(XFF, b"198.51.100.7")], 2, "192.0.2.1"),
        ("192.0.2.1", [(XFF, b"unknown")], 1, "192.0.2.1"),
        ("192.0.2.1", [(XFF, b"\xff")], 1, "192.0.2.1"),
        ("192.0.2.1", [(XFF, b"198.51.100.7:4711")], 1, "198.51.100.7"),
        ("192.0.2.1", [(FORWARDED, b'for="[2001:db8:1:2:3::4]:80";proto=https')], 1, "2001:db8:1:2::/64"),
        ("192.0.2.1", [(FORWARDED, b"for=10.0.0.1, proto=https;For=198.51.100.7")], 1, "198.51.100.7"),
        ("192.0.2.1", [(FORWARDED, b"proto=https")], 1, "192.0.2.1"),
        ("192.0.2.1", [(FORWARDED, b"for=10.0.0.1"), (XFF, b"198.51.100.7")], 1, "198.51.100.7"),
        ("2001:db8:1:2:3::4", [], 0, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", [], 0, "192.0.2.1"),
        ("", [(XFF, b"198.51.100.7")], 1, "198.51.100.7"),
        ("", [], 1, ""),
    ],
)
def test_sender_is_whom_the_outermost_proxy_of_ours_has_heard(
    peer: str, headers: list[tuple[bytes, bytes]], hops: int, sender: str
) -> None:
    """What stands before it anybody may have made up."""
    assert sender == sender_of(peer, headers, hops)
