"""What the containers may do, and what they write about those who send."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.system

Json = dict[str, Any]

ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")

# Tries what a server that was taken over would try first.
ATTEMPTS = """
import json, os, pathlib
def writes(path):
    try:
        pathlib.Path(path, "attempt").touch()
        pathlib.Path(path, "attempt").unlink()
    except OSError as error:
        return os.strerror(error.errno)
    return "written"
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "writes": {path: writes(path) for path in
               ("/", "/etc/tallypost/applications", "/opt/tallypost", "/tmp", "/var/lib/tallypost")},
}))
"""


def test_server_in_its_container_has_no_rights_and_writes_only_its_data(containers: Any) -> None:
    """The server is no root user, holds no capability, and nothing but its data and a memory folder can be written."""
    ran = containers.exec("python", "-c", ATTEMPTS)

    assert 0 == ran.returncode, ran.stderr
    may = json.loads(ran.stdout)
    assert (10001, 10001) == (may["user"], may["group"])
    assert 0 == may["capabilities"]
    assert 1 == may["no_new_privileges"]
    assert {"/tmp", "/var/lib/tallypost"} == {path for path, said in may["writes"].items() if said == "written"}


@pytest.mark.parametrize("service", ["server", "proxy"])
def test_container_as_the_engine_knows_it_is_restricted(service: str, containers: Any) -> None:
    """Both containers run as a user, on a root that cannot be written, without capabilities."""
    known = containers.inspect(service)

    assert known["Config"]["User"].partition(":")[0] not in ("", "0", "root")
    assert known["HostConfig"]["ReadonlyRootfs"] is True
    assert ["ALL"] == known["HostConfig"]["CapDrop"]
    assert not known["HostConfig"]["Privileged"]
    assert any(option.startswith("no-new-privileges") for option in known["HostConfig"]["SecurityOpt"])


def test_only_the_proxy_is_published_and_only_to_this_machine(containers: Any) -> None:
    """The server is reached through the proxy alone, the proxy from this machine alone."""
    proxy, server = containers.inspect("proxy"), containers.inspect("server")

    bound = [binding for bindings in proxy["HostConfig"]["PortBindings"].values() for binding in bindings]
    assert ["127.0.0.1"] == [binding["HostIp"] for binding in bound]
    assert not server["HostConfig"]["PortBindings"]


def test_logs_after_requests_hold_no_address_and_no_document(
    containers: Any, post: Callable[..., httpx.Response], new_report: Callable[..., Json]
) -> None:
    """Neither container writes where a document came from or what was in it."""
    stored, refused = new_report(), new_report(app="example.org/nobody")
    networks = containers.inspect("proxy")["NetworkSettings"]["Networks"].values()
    senders = {network["Gateway"] for network in networks}

    answers = [post(stored), post(refused), post(b"x" * (3 << 20))]
    proxy, server = (containers.compose("logs", "--no-color", name).stdout for name in ("proxy", "server"))

    assert [200, 403, 413] == [answer.status_code for answer in answers]
    assert "POST /v1/reports 200" in proxy
    assert [] == ADDRESS.findall(proxy)
    assert set() == senders & set(ADDRESS.findall(server))
    assert stored["id"] not in proxy + server
    assert refused["id"] not in proxy + server
