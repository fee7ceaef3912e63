"""What an operator is given: alerts, a dashboard, a unit, proxies. What they name exists, and what exists is shown."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tallypost_schema import receipts
from tallypost_schema.outcomes import CODES
from tallypost_server import limits
from tallypost_server.metrics import Metric, Metrics
from tallypost_server.settings import DECLARED

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "server" / "operating.md"
METRICS = {metric.name: metric for metric in Metrics().declared}
# What Prometheus, a histogram or a server of several workers adds to a sample.
ADDED_LABELS = {"instance", "job", "le", "worker"}
# Answers that are nobody's trouble: passers-by, slow networks, a restart.
QUIET_CODES = {"not_found", "method_not_allowed", "too_slow", "starting", "stopping"}


def alerts() -> dict[str, dict[str, Any]]:
    """The rules by name."""
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    rules = {rule["alert"]: rule for rule in group["rules"]}
    assert len(rules) == len(group["rules"])
    return rules


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "tallypost-server.json").read_text())
    return found


def shown() -> list[str]:
    """Every expression of the dashboard."""
    return [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]


def metric_of(name: str) -> Metric:
    """The declared metric to which a sample of this name belongs."""
    for ending in ("", "_bucket", "_sum", "_count"):
        metric = METRICS.get(name.removesuffix(ending))
        if metric is not None and (not ending or metric.kind == "histogram") and name.endswith(ending):
            return metric
    raise AssertionError(f"/metrics has no {name}")


def expressions() -> list[str]:
    return [*(rule["expr"] for rule in alerts().values()), *shown()]


@pytest.mark.parametrize("expression", expressions())
def test_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    """A rule on a misspelt name never rings, and nobody notices."""
    names = re.findall(r"tallypost_\w+", expression)

    assert names or "up{" in expression
    labels = {label for name in names for label in metric_of(name).labels} | ADDED_LABELS
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"(?:by|ignoring|on|without)\s*\(([^)]*)\)", expression)
    assert {*selected, *(label.strip() for group in grouped for label in group.split(","))} <= labels


def test_every_metric_is_on_the_dashboard() -> None:
    """What the server tells of itself is looked at."""
    named = {metric_of(name).name for expression in shown() for name in re.findall(r"tallypost_\w+", expression)}

    assert METRICS.keys() == named


def test_every_code_rings_or_is_known_to_be_nobodys_trouble() -> None:
    """A new code needs a decision."""
    told = "|".join(
        codes for rule in alerts().values() for codes in re.findall(r'code=~"([a-z_|]+)"', rule["expr"])
    ).split("|")

    assert len(told) == len(set(told))
    assert set(told) | QUIET_CODES == CODES.keys()
    assert set(told) & QUIET_CODES == set()


@pytest.mark.parametrize("name", alerts())
def test_alert_says_who_is_called_and_what_it_is(name: str) -> None:
    """Each one has a severity, a sentence with the server's name in it, and a test of its own in the rules' tests."""
    rule = alerts()[name]

    assert rule["labels"]["severity"] in ("page", "ticket")
    assert "$labels.instance" in rule["annotations"]["summary"]
    assert rule["annotations"]["summary"].endswith((".", "?"))
    assert f'alertname="{name}"' in (DEPLOY / "prometheus" / "alerts_test.yml").read_text()


def test_guide_has_each_alert_in_order() -> None:
    """Whoever is called finds what it means under its name."""
    assert list(alerts()) == re.findall(r"^### (Tallypost\w+)$", GUIDE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_prometheus_own_tool_takes_the_rules(command: tuple[str, ...]) -> None:
    """And each rule rings when it should, and not when it should not."""
    if shutil.which("promtool") is None:
        assert os.environ.get("TALLYPOST_TOOLS") != "required", "promtool is not installed here"
        pytest.skip("promtool is not installed here (Debian's package prometheus)")
    done = subprocess.run(["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=50)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_dashboard_is_one_that_grafana_takes() -> None:
    """Panels have numbers of their own, lie beside and below each other, and ask the source that is chosen."""
    panels = dashboard()["panels"]

    assert len(panels) == len({panel["id"] for panel in panels})
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
    assert ["datasource", "instance"] == [variable["name"] for variable in dashboard()["templating"]["list"]]


def test_versions_that_images_are_held_to_are_such_as_pip_takes_for_constraints() -> None:
    """It takes none with extras: nothing could be built."""
    lines = (ROOT / "requirements" / "dev.txt").read_text("utf-8").splitlines()

    assert [] == [line for line in lines if "[" in line.partition(";")[0] and not line.startswith("#")]


def test_unit_waits_for_the_server_and_gives_it_its_time() -> None:
    """It hears when documents are taken; a stop may take what the server needs for it; its variables are settings."""
    unit = configparser.RawConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # Keys have capitals.
    text = (DEPLOY / "systemd" / "tallypost-server.service").read_text()
    unit.read_string(text)
    service = unit["Service"]

    assert ("notify", "infinity") == (service["Type"], service["TimeoutStartSec"])
    assert int(service["TimeoutStopSec"].removesuffix("s")) > limits.drain_seconds_max + limits.stop_seconds_max
    assert int(service["WatchdogSec"].removesuffix("s")) > limits.drain_seconds_max
    assert set(re.findall(r"^Environment=(\w+)=", text, re.MULTILINE)) <= {setting.variable for setting in DECLARED}
    assert "0" == service["LimitCORE"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_unit_is_hardened() -> None:
    """By systemd's own measure: 0 is nothing exposed, 10 everything; below 2 is what it calls OK."""
    unit = DEPLOY / "systemd" / "tallypost-server.service"
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=50)

    if "nrecognized option" in done.stderr or "Unknown" in done.stderr:
        pytest.skip("this systemd is older than 250 and cannot look at a file")
    assert 0 == done.returncode, done.stdout[-300:] + done.stderr


@pytest.mark.parametrize("proxy", ["nginx/tallypost.conf", "caddy/Caddyfile"])
def test_proxy_answers_in_the_servers_own_form(proxy: str) -> None:
    """What a proxy says in the server's stead is an error body that clients understand, under its status."""
    text = (DEPLOY / proxy).read_text()
    said = re.findall(r"(?:return (\d+) '|respond (?:@\w+ )?`)(\{.*?\})(?:'|` (\d+))", text)

    assert said
    for before, body, after in said:
        error = receipts.error_in(body.encode())
        assert error is not None
        told = CODES[error.code]  # type: ignore[index]
        assert (told.status, told.retry) == (int(before or after), error.retry)
    assert "/metrics" in text


@pytest.mark.parametrize(
    ("proxy", "pattern"),
    [("nginx/tallypost.conf", r"^    keepalive_timeout (\d+)s;"), ("caddy/Caddyfile", r"keepalive (\d+)s")],
)
def test_proxy_ends_an_idle_connection_before_the_server_does(proxy: str, pattern: str) -> None:
    """The other way round a document may be on its way into a connection that closes."""
    found = re.search(pattern, (DEPLOY / proxy).read_text(), re.MULTILINE)

    assert found is not None
    assert int(found[1]) < limits.keep_alive_seconds
