from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tallypost_server.metrics import Metrics

DOCS = Path(__file__).parents[3] / "docs" / "server" / "metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    found.stored.add("report", by=3)
    for value in (0.0004, 0.002, 0.002, 9.0):
        found.commit_seconds.observe(value)
    found.ready.ask = lambda: True
    return found


def test_text_is_read_by_prometheus_own_parser(metrics: Metrics) -> None:
    """Every declared metric is a family with its sentence."""
    families = {family.name: family for family in text_string_to_metric_families(metrics.text())}

    expected = {metric.name.removesuffix("_total"): metric.sentence for metric in metrics.declared}
    assert expected == {name: family.documentation for name, family in families.items()}
    (sample,) = families["tallypost_documents_stored"].samples
    assert ({"kind": "report"}, 3.0) == (sample.labels, sample.value)
    assert 1.0 == families["tallypost_ready"].samples[0].value


def test_histogram_buckets_are_cumulative(metrics: Metrics) -> None:
    """A bucket counts all that is not above its edge."""
    text = metrics.text()

    for edge, count in (("0.0005", 1), ("0.001", 1), ("0.0025", 3), ("5", 3), ("+Inf", 4)):
        assert f'tallypost_commit_seconds_bucket{{le="{edge}"}} {count}\n' in text
    assert "tallypost_commit_seconds_count 4\n" in text


def test_gauge_that_cannot_be_asked_is_left_out(metrics: Metrics) -> None:
    """A disk that does not answer must not take the other numbers away."""

    def fail() -> float:
        raise OSError

    metrics.free_bytes.ask = fail

    assert "tallypost_free_bytes " not in re.sub(r"^#.*$", "", metrics.text(), flags=re.MULTILINE)


def test_names_are_declared_once_and_in_prometheus_form(metrics: Metrics) -> None:
    """Counters end in _total, sentences end in a stop."""
    names = [metric.name for metric in metrics.declared]

    assert len(set(names)) == len(names)
    for metric in metrics.declared:
        assert re.fullmatch(r"tallypost_[a-z_]+", metric.name)
        assert metric.sentence.endswith(".")
        assert (metric.kind == "counter") == metric.name.endswith("_total")


def test_docs_have_each_metric_as_it_is_declared(metrics: Metrics) -> None:
    """The page's table is that of the declarations, row by row."""
    rows = re.findall(r"^\| `(tallypost_[^`]*)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE)

    expected = [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.sentence)
        for metric in metrics.declared
    ]
    assert expected == rows
