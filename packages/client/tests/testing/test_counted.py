from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost import Telemetry, WrongUse
from tallypost.testing import Undeclared, capture

Start = Callable[..., Telemetry]


STACKS = """
application = "example.org/mytool"
contact = "privacy@example.org"
consent_version = 1

[stacks."crash/KeyError"]
why = "Which crashes to mend first"
owner = "core team"
expires = "never"
depth = 1
"""


def test_capture_counts_stacks_by_the_declared_packages(
    application: Start, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way has its entry; all of them together are asked for by name."""
    (tmp_path / "other.toml").write_text(f'{STACKS}packages = ["{__name__.partition(".")[0]}"]\n')
    telemetry = application(declaration=tmp_path / "other.toml", environ={"TALLYPOST": "off"})

    with capture(telemetry) as counted:
        for _ in range(2):
            telemetry.stack("crash/KeyError").inc()
        telemetry.stack("crash/KeyError").inc()

    assert (3, 2, 0) == (counted.stack("crash/KeyError"), len(counted), counted.stack("crash"))
    assert all(__name__ in key for key in counted)


def test_capture_declared_only_names_what_the_declaration_forgot(off: Telemetry) -> None:
    """Names, buckets, edges and stacks; what is declared, and the library's own losses, pass."""

    def count() -> None:
        off.counter("cmd/export").inc(bucket="pdf")
        off.counter("cmd/export").inc(bucket="odt")
        off.counter("cmd/export").inc(bucket="no bucket")
        off.counter("cmd/sampled").inc(bucket="pdf")
        off.counter("cmd/forgotten").inc()
        off.histogram("export/seconds", edges=(0.1, 5)).observe(3)
        off.stack("crash/KeyError").inc()

    with pytest.raises(Undeclared) as raised, capture(off, declared_only=True) as counted:
        count()

    forgotten = ["cmd/forgotten", "cmd/sampled:pdf", "crash/KeyError\n?:?:+0", "export/seconds:<=5"]
    assert forgotten == raised.value.names == counted.undeclared()
    assert "cmd/forgotten" in str(raised.value)
    assert "telemetry.toml" in str(raised.value)


def test_capture_declared_only_of_declared_names_is_content(off: Telemetry) -> None:
    """A bucket that leaves as ``other`` is declared enough."""
    with capture(off, declared_only=True) as counted:
        off.counter("cmd/export").inc(bucket="odt")

    assert [] == counted.undeclared()


@pytest.mark.parametrize("declaration", [None, "missing.toml", "problems.toml"])
def test_capture_declared_only_without_a_declaration_is_wrong_use(
    application: Start, tmp_path: Path, declaration: str | None
) -> None:
    """Nothing could be declared: that is found at the begin, and nothing stays captured."""
    (tmp_path / "problems.toml").write_text("[counters.x]\n")
    given = str(tmp_path / declaration) if declaration else None
    telemetry = application(declaration=given, environ={"TALLYPOST": "off"})

    with pytest.raises(WrongUse, match="declaration"), capture(telemetry, declared_only=True):
        raise AssertionError("not reached")

    assert "off" == telemetry.mode
