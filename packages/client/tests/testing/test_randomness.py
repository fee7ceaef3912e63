from __future__ import annotations

from tallypost.testing import FakeRandom


def test_fake_random_repeats_its_fraction_and_no_bytes() -> None:
    """Two ids are never the same; the drawn number always is."""
    random = FakeRandom(0.25)

    assert [0.25, 0.25] == [random.fraction(), random.fraction()]
    assert 2 == len({random.bytes(16), random.bytes(16)})
    assert 16 == len(random.bytes(16))
