"""What can be asked for: the config, the state of the server, and its command line."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any, Protocol

import httpx
import pytest

pytestmark = pytest.mark.system

APPLICATION = "example.org/system-test"


class Ran(Protocol):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Containers(Protocol):
    """The command line (``conftest.py``)."""

    def exec(self, *command: str) -> Ran: ...


def of_the_application(rates: dict[str, float]) -> dict[str, float]:
    """The rates of what the application declares; what the library counts of itself is asked for as well."""
    return {name: rate for name, rate in rates.items() if not name.startswith("tallypost/")}


@pytest.mark.parametrize("spelled", [APPLICATION, urllib.parse.quote(APPLICATION, safe="")])
def test_config_of_an_application_names_what_is_asked_for(spelled: str, http: httpx.Client) -> None:
    """The config has the declared names with their rates, without what has expired."""
    answer = http.get(f"/v1/config/{spelled}")

    assert 200 == answer.status_code, answer.text
    config = answer.json()
    assert {"cmd/export": 1.0} == of_the_application(config["counters"])
    assert {"export/seconds": 0.5} == of_the_application(config["histograms"])
    assert {"crash/KeyError": 1.0} == of_the_application(config["stacks"])
    assert {"export": 1.0} == of_the_application(config["events"])
    assert config["paused"] is False
    assert isinstance(config["version"], str)


def test_config_known_already_is_not_sent_again(http: httpx.Client) -> None:
    """Who has the config of this ETag gets 304 and no body."""
    known = http.get(f"/v1/config/{APPLICATION}")

    answer = http.get(f"/v1/config/{APPLICATION}", headers={"if-none-match": known.headers["etag"]})

    assert 304 == answer.status_code
    assert b"" == answer.content
    assert known.headers["etag"] == answer.headers["etag"]


def test_config_of_an_unknown_application_is_refused(http: httpx.Client) -> None:
    """An application that is not registered here has no config here."""
    answer = http.get("/v1/config/example.org/nobody")

    assert 403 == answer.status_code
    assert "unknown_application" == answer.json()["error"]["code"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_of_a_running_server_is_good(path: str, http: httpx.Client) -> None:
    """A server that lives and can store says so."""
    answer = http.get(path)

    assert 200 == answer.status_code, answer.text


def test_version_tells_build_facts(http: httpx.Client) -> None:
    """The version is an object with facts about the build."""
    answer = http.get("/version")

    assert 200 == answer.status_code
    assert any("version" in key for key in answer.json())


def test_metrics_are_prometheus_text(http: httpx.Client) -> None:
    """A monitoring system nearby can read the counts."""
    answer = http.get("/metrics")

    assert 200 == answer.status_code
    assert "text/plain" == answer.headers["content-type"].partition(";")[0]
    assert any(line.startswith("# TYPE tallypost") for line in answer.text.splitlines())


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v1/reports/1"])
def test_address_of_nothing_gets_404_in_words(path: str, http: httpx.Client) -> None:
    """A wrong address is answered in the server's own form."""
    answer = http.get(path)

    assert 404 == answer.status_code
    assert "not_found" == answer.json()["error"]["code"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/reports", "POST"), ("PUT", "/v1/events", "POST"), ("POST", "/readyz", "GET")],
)
def test_method_that_an_address_lacks_gets_405_in_words(
    method: str, path: str, allowed: str, http: httpx.Client
) -> None:
    """A wrong method is answered in the server's own form, with the right one."""
    answer = http.request(method, path)

    assert 405 == answer.status_code
    assert "method_not_allowed" == answer.json()["error"]["code"]
    assert allowed in answer.headers["allow"]


def test_status_in_the_container_is_json_of_the_same_data(containers: Containers) -> None:
    """The command beside a running server prints facts and nothing else."""
    ran = containers.exec("tallypost-server", "--json", "status")

    status: dict[str, Any] = json.loads(ran.stdout)
    assert 0 == ran.returncode, ran.stderr
    assert {"open", "sealed", "bytes"} <= status["segments"].keys()


def test_status_takes_json_behind_the_command_too(containers: Containers) -> None:
    """The option may stand where a user puts it."""
    ran = containers.exec("tallypost-server", "status", "--json")

    assert 0 == ran.returncode, ran.stderr
    assert "segments" in json.loads(ran.stdout)


def test_show_of_an_unknown_stream_fails_without_output(containers: Containers) -> None:
    """A stream that never came is no empty stream."""
    ran = containers.exec("tallypost-server", "show", "0" * 32)

    assert 1 == ran.returncode
    assert "" == ran.stdout
    assert ran.stderr


def test_verify_in_the_container_beside_the_server_finds_nothing_damaged(containers: Containers) -> None:
    """Everything that was stored reads back, while the server goes on."""
    ran = containers.exec("tallypost-server", "verify", "--json")

    assert 0 == ran.returncode, ran.stdout + ran.stderr
    assert [] == json.loads(ran.stdout)["damaged"]


def test_quarantine_in_the_container_is_json_with_reasons(containers: Containers) -> None:
    """What was refused is listed, each with its code."""
    ran = containers.exec("tallypost-server", "quarantine", "--json")

    assert 0 == ran.returncode, ran.stderr
    assert all({"name", "at", "code", "message"} <= file.keys() for file in json.loads(ran.stdout)["files"])
