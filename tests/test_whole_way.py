"""The whole way: an application counts, its days become reports, and what may leave is on the server's disk."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import duckdb
import pytest
import zstandard

Day = Callable[[int], str]


def post(url: str, document: bytes) -> tuple[int, dict[str, Any]]:
    """Post a document as it is; the answer."""
    request = urllib.request.Request(url, document, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def a_report(day: str, identity: int) -> bytes:
    """A small report, posted by hand."""
    program = {"program": "mytool", "version": "1", "python": "3.12", "os": "linux", "arch": "x86_64"}
    document = {
        "v": 1,
        "kind": "report",
        "x": 0.5,
        "id": f"{identity:032x}",
        "app": "example.org/mytool",
        "day": day,
        "previous": None,
        "config": None,
        "programs": [{**program, "counters": {"cmd/export": identity}, "stacks": {}}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def test_counts_of_a_day_after_the_yes_are_in_a_segment(server: Any, user: Any, day: Day) -> None:
    """What was counted after the yes is posted and stored; the same bytes lie in four places."""
    program = user.script("telemetry.counter('cmd/export').inc(bucket='pdf')", server.url)
    user.run("python", "-c", program, at=f"{day(4)}T12:00:00Z")
    user.run("tallypost", "on", at=f"{day(3)}T12:00:00Z")
    user.run("python", "-c", program, at=f"{day(3)}T13:00:00Z")
    user.run("python", "-c", program, at=f"{day(2)}T12:00:00Z")
    user.run("python", "-c", program, at=f"{day(2)}T12:00:00Z")

    preview = user.run("tallypost", "preview").stdout
    pending = (user.home / "uploads" / "pending" / f"{day(2)}.json").read_bytes()
    upload = user.run("tallypost", "upload")

    sent = (user.home / "uploads" / "sent" / f"{day(2)}.json").read_bytes()
    receipt = json.loads((user.home / "uploads" / "sent" / f"{day(2)}.receipt.json").read_bytes())
    server.end()
    (line,) = server.lines()
    assert b"Posted 1 document" in upload.stdout
    assert preview == pending + b"\n"
    assert pending == sent
    assert hashlib.sha256(sent).hexdigest() == receipt["stored"] == line["sha256"]
    assert {"cmd/export": 2, "cmd/export:pdf": 2} == line["doc"]["programs"][0]["counters"]
    assert [day(4), day(3), day(2)] == list(user.reports())


def test_what_is_not_declared_is_not_in_the_upload_report(server: Any, user: Any, day: Day) -> None:
    """Random names and values are counted for the user and never leave the machine."""
    rng = random.Random(7)
    secrets = [f"secret{rng.randrange(10**9)}" for _ in range(40)]
    lines = [f"telemetry.counter('{secret}/x').inc({rng.randrange(1, 10**6)})" for secret in secrets[:20]]
    lines += [f"telemetry.counter('cmd/export').inc(bucket='{secret}')" for secret in secrets[20:]]
    user.run("python", "-c", user.script("telemetry.set_mode('on')"), at=f"{day(3)}T12:00:00Z")
    user.run("python", "-c", user.script("\n".join(lines), server.url), at=f"{day(2)}T12:00:00Z")

    user.run("tallypost", "upload")

    sent = (user.home / "uploads" / "sent" / f"{day(2)}.json").read_text()
    local = (user.home / "reports" / f"local.{day(2)}.json").read_text()
    server.end()
    assert {"cmd/export": 20} == server.lines()[0]["doc"]["programs"][0]["counters"]
    assert all(secret in local for secret in secrets)
    assert not [secret for secret in secrets if secret in sent]


def test_mode_off_makes_no_file_and_opens_no_socket(user: Any) -> None:
    """In mode off a process that counts opens nothing for writing, no socket, no thread, no child."""
    watch = """
import os, sys
seen = []
def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.split(".")[0] in ("socket", "subprocess") or event in ("os.mkdir", "os.fork", "os.posix_spawn",
                                                                              "_thread.start_new_thread"):
        seen.append((event, arguments))
sys.addaudithook(hook)
"""
    body = "telemetry.counter('cmd/export').inc(bucket='pdf')\nprint(seen, file=sys.stderr)"
    user.environ["TALLYPOST"] = "off"

    told = user.run("python", "-c", watch + user.script(body, "http://127.0.0.1:9").replace("'manual'", "'process'"))

    assert b"[]\n" == told.stderr
    assert not user.state.exists()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed here; CI has it")
def test_mode_off_asks_nothing_of_the_system_that_changes_it(user: Any) -> None:
    """As the kernel sees it: in mode off no file is opened for writing, no socket, no thread, no child."""
    body = "telemetry.counter('cmd/export').inc(bucket='pdf')\ntelemetry.histogram('a/seconds', (1, 2)).observe(1)"
    trace = user.folder / "trace"
    user.environ["TALLYPOST"] = "off"
    program = user.script(body, "http://127.0.0.1:9").replace("'manual'", "'process'")
    calls = "open,openat,openat2,creat,mkdir,mkdirat,socket,connect,clone,clone3,fork,vfork,execve"

    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={calls}", sys.executable, "-B", "-c", program]
    subprocess.run(command, env=user.environ, check=True)

    lines = [line.split(" ", 1)[1].strip() for line in trace.read_text().splitlines()]
    changing = [line for line in lines[1:] if not ("open" in line[:8] and "O_RDONLY" in line and "O_CREAT" not in line)]
    assert lines[0].startswith("execve(")
    assert [] == changing
    assert not user.state.exists()


def test_count_of_a_process_killed_at_any_moment_is_in_the_local_report(user: Any, day: Day) -> None:
    """Every increment that had returned is in the local report, and of each killed process at most one more."""
    body = (
        "import os\nc = telemetry.counter('cmd/export')\nn = 0\n"
        "while True:\n    c.inc()\n    n += 1\n    os.write(1, b'%d\\n' % n)"
    )
    rng = random.Random(11)
    returned = 0
    at = ["-m", "tallypost.testing", "--at", f"{day(2)}T12:00:00Z", "--", "python", "-c", user.script(body)]
    processes = [subprocess.Popen([sys.executable, *at], env=user.environ, stdout=subprocess.PIPE) for _ in range(12)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.random() / 50)
        process.kill()
        returned += int((b"1\n" + process.stdout.read()).rsplit(b"\n", 2)[-2])
        process.wait()
        process.stdout.close()

    user.run("tallypost", "report")

    assert returned <= user.total("cmd/export") <= returned + len(processes)
    assert [] == list((user.home / "counts").iterdir())


def test_document_acknowledged_before_a_kill_is_in_a_segment(server: Any, day: Day) -> None:
    """A server killed the moment after its 200 has the document in a segment when it is started again."""
    acknowledged = []
    for identity in range(1, 9):
        document = a_report(day(1), identity)
        status, receipt = post(f"{server.url}/v1/reports", document)
        assert 200 == status
        acknowledged.append(receipt["stored"])
        server.end(signal.SIGKILL)
        server.start()

    server.end()

    assert sorted(acknowledged) == sorted(line["sha256"] for line in server.lines())


def test_refused_document_is_nowhere(server: Any, user: Any, day: Day) -> None:
    """Bad input gets its code, and no segment has it."""
    good = a_report(day(1), 1)
    cases = {
        "malformed": b"{",
        "invalid": good.replace(b'"x":0.5', b'"x":2'),
        "unknown_application": good.replace(b"mytool", b"other", 1),
        "too_old": a_report(day(22), 1),
        "from_the_future": a_report(day(-2), 1),
    }

    answers = {code: post(f"{server.url}/v1/reports", document) for code, document in cases.items()}

    server.end()
    assert {code: code for code in cases} == {code: answer["error"]["code"] for code, (_, answer) in answers.items()}
    assert [400, 422, 403, 422, 422] == [status for status, _ in answers.values()]
    assert [] == server.lines()


def test_segment_is_read_by_zstdcat_json_tool_and_duckdb(server: Any, day: Day) -> None:
    """What was stored is read by tools that know nothing of Tallypost."""
    for identity in range(1, 4):
        post(f"{server.url}/v1/reports", a_report(day(1), identity))
    server.end()
    (segment,) = (server.data / "segments").glob("*.jsonl.zst")

    content = zstandard.ZstdDecompressor().stream_reader(segment.read_bytes(), read_across_frames=True).read()
    told = subprocess.run(
        [sys.executable, "-m", "json.tool", "--json-lines"], input=content, capture_output=True, check=True
    )
    rows = duckdb.sql(f"select stream, doc.day, sha256 from read_json('{segment}') order by stream").fetchall()

    assert 3 == told.stdout.count(b'"sha256"')
    assert [f"{identity:032x}" for identity in range(1, 4)] == [row[0] for row in rows]
    assert [hashlib.sha256(a_report(day(1), identity)).hexdigest() for identity in range(1, 4)] == [
        row[2] for row in rows
    ]


def test_segment_is_read_by_the_zstdcat_command(server: Any, day: Day) -> None:
    """The command of the README reads a segment."""
    post(f"{server.url}/v1/reports", a_report(day(1), 1))
    server.end()
    (segment,) = (server.data / "segments").glob("*.jsonl.zst")

    try:
        told = subprocess.run(["zstdcat", str(segment)], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("zstdcat is not installed here; CI has it")

    assert f"{1:032x}" == json.loads(told.stdout)["stream"]


def test_server_that_is_away_keeps_the_document_waiting(user: Any, day: Day) -> None:
    """Without a server an upload ends with 3 and says why, and the document waits."""
    user.run("python", "-c", user.script("telemetry.set_mode('on')"), at=f"{day(3)}T12:00:00Z")
    program = user.script("telemetry.counter('cmd/export').inc()", "http://127.0.0.1:9")
    user.run("python", "-c", program, at=f"{day(2)}T12:00:00Z")

    upload = user.run("tallypost", "upload", check=False)

    assert 3 == upload.returncode
    assert b"1 still wait" in upload.stdout
    assert (user.home / "uploads" / "pending" / f"{day(2)}.json").exists()
