"""The benchmarks' harness: what is made of samples, and that a quick run leaves a result."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import http.server
import json
import os
import random
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tallypost_server.archive.columns import TABLES

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # The benchmarks are no installed package.

from benchmarks import archive, beside, coordinator, event, exit_time, harness, import_time, inc, ingest, load  # noqa: E402
from benchmarks.__main__ import exit_status, main  # noqa: E402
from benchmarks.harness import CannotMeasure, Comparison, Goal, Measured  # noqa: E402

AT_MOST = Goal("at most", 0.6)


def comparison(rounds: Sequence[tuple[float, float]], goal: Goal | None = None, name: str = "inc") -> Comparison:
    return Comparison(name, "ours", "peer", "ns", rounds, goal=goal)


def test_a_ratio_is_taken_round_by_round_and_its_median_quoted() -> None:
    """A round in which both sides were slowed leaves the ratio alone, whatever it does to the samples."""
    measured = comparison([(1.0, 2.0), (30.0, 60.0), (3.0, 4.0)])

    assert [0.5, 0.5, 0.75] == measured.figures
    assert 0.5 == measured.median


def test_a_difference_is_in_the_unit_of_its_samples() -> None:
    """What an import costs is milliseconds over the bare interpreter, not a share of it."""
    measured = Comparison("import_time", "ours", "bare", "ms", [(14.0, 11.0), (16.0, 12.0)], how="difference")

    assert [3.0, 4.0] == measured.figures
    assert 3.5 == measured.median


@pytest.mark.parametrize(("best", "expected"), [("smallest", 1.0 / 2.0), ("largest", 3.0 / 8.0)])
def test_the_best_samples_are_the_shortest_times_and_the_highest_rates(best: str, expected: float) -> None:
    """The best of each side need not be of one round."""
    measured = Comparison("x", "ours", "peer", "?", [(1.0, 8.0), (3.0, 2.0)], best=best)  # type: ignore[arg-type]

    assert expected == measured.of_best


@pytest.mark.parametrize(
    ("goal", "median", "verdict"),
    [
        (None, 9.0, ""),
        (AT_MOST, 0.6, "met"),
        (AT_MOST, 0.61, "NOT MET"),
        (Goal("at least", 0.6), 0.6, "met"),
        (Goal("at least", 0.6), 0.59, "NOT MET"),
    ],
)
def test_a_goal_is_judged_by_the_median_and_met_by_its_bound(goal: Goal | None, median: float, verdict: str) -> None:
    """Neither the best round nor the worst decides."""
    measured = comparison([(0.0, 1.0), (median, 1.0), (100.0, 1.0)], goal)

    assert verdict == measured.verdict


def test_a_comparison_without_rounds_is_refused() -> None:
    """Nothing measured is no result."""
    with pytest.raises(CannotMeasure, match="no round"):
        comparison([])


def test_a_ratio_to_a_sample_of_zero_is_refused() -> None:
    """A clock too coarse for the peer makes no infinite ratio."""
    with pytest.raises(CannotMeasure, match="too short"):
        comparison([(1.0, 0.0)])


def test_subjects_take_turns_and_each_round_begins_with_the_next() -> None:
    """Every subject runs once a round, and follows each of the others in its turn."""
    turns = list(harness.in_turn("ABC", 3))

    assert "ABCBCACAB" == "".join(subject for _, subject in turns)
    assert [0, 0, 0, 1, 1, 1, 2, 2, 2] == [number for number, _ in turns]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    """The smallest value that so many of all do not exceed."""
    assert expected == harness.percentile(range(100, 0, -1), share)


def test_the_kept_document_holds_each_round_and_survives_json() -> None:
    """What is quoted can be computed again from what is kept."""
    at = datetime.datetime(2026, 11, 24, 13, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    measured = Measured([comparison([(1.0, 2.0), (2.0, 2.0), (1.5, 2.0)], AT_MOST)], {"calls": 5})

    kept = json.loads(
        json.dumps(harness.document(at=at, quick=True, members={"inc": measured}, failures={"ingest": "no server"}))
    )

    assert 1 == kept["v"]
    assert "2026-11-24T12:00:00Z" == kept["at"]
    assert kept["quick"] is True
    assert {"ingest": "no server"} == kept["failures"]
    assert {"system", "release", "arch", "processor", "cores", "load"} == set(kept["machine"])
    assert {"calls": 5} == kept["members"]["inc"]["facts"]
    assert [
        {
            "name": "inc",
            "subject": "ours",
            "peer": "peer",
            "unit": "ns",
            "how": "ratio",
            "median": 0.75,
            "min": 0.5,
            "max": 1.0,
            "of_best": 0.5,
            "subject_median": 1.5,
            "peer_median": 2.0,
            "goal": {"kind": "at most", "bound": 0.6},
            "met": False,
            "rounds": [[1.0, 2.0], [2.0, 2.0], [1.5, 2.0]],
        }
    ] == kept["members"]["inc"]["comparisons"]
    assert {"inc": 0.75} == harness.medians_in(kept)


def test_the_table_marks_what_is_not_met_and_shows_what_was_before() -> None:
    """One line a comparison, under one line of heads."""
    rows = harness.table([comparison([(1.0, 1.0)], AT_MOST), comparison([(1.0, 2.0)], name="other")], {"inc": 0.5})

    heads, first, second = rows.split("\n")
    assert heads.endswith("before")
    assert first.split()[-5:] == ["most", "0.6", "NOT", "MET", "0.500"]
    assert second.endswith("-")


@pytest.mark.parametrize(
    ("check", "failures", "expected"),
    [(False, {}, 0), (True, {}, 1), (False, {"ingest": "no server"}, 1)],
)
def test_a_goal_fails_the_command_only_when_checked(check: bool, failures: dict[str, str], expected: int) -> None:
    """A member that could not be measured always does."""
    not_met = [comparison([(1.0, 1.0)], AT_MOST)]

    assert expected == exit_status(not_met, failures, check=check)


def test_a_member_that_is_not_there_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """The names that are there are said."""
    assert 2 == main(["imports"])
    members = "import_time, exit_time, inc, event, fold, ingest, load_test, archive, beside, coordinator"
    assert members in capsys.readouterr().err


def test_third_party_modules_are_neither_ours_nor_pythons() -> None:
    """Each package is named once."""
    loaded = ["tallypost.counts", "tallypost_schema", "zlib", "os.path", "httpx", "httpx._client"]

    assert ["httpx"] == import_time.third_party(loaded)


def test_the_floor_is_taken_off_both_sides() -> None:
    """The net ratio is that of what the methods do beyond being called."""
    names = ("bare method", "prometheus mapped inc", "Counter.inc(bucket=)", "prometheus labels().inc")
    more = ("OpenTelemetry add", "StackCounter.inc", "traceback.extract_stack")
    samples = {name: [30.0] for name in (*names, *more, "Histogram.observe", "prometheus observe")}
    samples |= {"empty method": [20.0], "Counter.inc": [60.0], "prometheus Counter.inc": [100.0]}

    medians = {one.name: one.median for one in inc.compare(samples)}

    assert 0.6 == medians["inc"]
    assert 0.5 == medians["inc/net"]


def test_an_exit_is_compared_with_one_without_telemetry_in_the_same_round() -> None:
    """A peer takes part in the first rounds only, and is compared with what happened in those."""
    samples = {name: [(100.0, 10.0)] for name in exit_time.PROGRAMS}
    samples |= {exit_time.BARE: [(20.0, 3.0), (40.0, 5.0)], exit_time.OURS: [(30.0, 4.0), (52.0, 7.0)]}
    ended = {name: [exit_time.Ended(*one) for one in lives] for name, lives in samples.items()}

    compared = {one.name: one for one in exit_time.compare(ended)}

    assert [1.0, 2.0] == compared["exit_time"].figures
    assert [10.0, 12.0] == compared["exit_time/whole"].figures
    assert [7.0] == compared["exit_time/posthog"].figures
    assert [80.0] == compared["exit_time/OpenTelemetry-whole"].figures
    assert {"exit_time": Goal("at most", 10.0)} == {
        name: one.goal for name, one in compared.items() if one.goal is not None
    }


def test_a_server_takes_every_connection_and_hangs_up_only_when_told() -> None:
    """It says nothing, keeps what it took, and counts it."""
    server = exit_time.SilentServer()
    connections = []
    try:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        for _ in range(3):
            connections.append(socket.create_connection(address, timeout=0.2))
            connections[-1].sendall(b"POST / HTTP/1.1\r\n\r\n")
        with pytest.raises(TimeoutError):
            connections[0].recv(1)
        taken = server.taken()
        with server.hanging_up():
            connections[0].settimeout(5)
            with contextlib.suppress(ConnectionResetError):  # It has not read what was sent.
                assert b"" == connections[0].recv(1)
    finally:
        for connection in connections:
            connection.close()
        server.close()

    assert (3, 0) == (taken, server.taken())


def test_a_program_that_counts_once_ends_and_leaves_an_uploader_that_connects(tmp_path: Path) -> None:
    """What the benchmark runs is what it says: a program that is due, whose uploader outlives it, and a bare one."""
    server = exit_time.SilentServer()
    try:
        machine = exit_time.Machine(tmp_path / "state", server)

        bare = exit_time.round_of(exit_time.BARE, machine, server)
        ours = exit_time.round_of(exit_time.OURS, machine, server)
    finally:
        server.close()

    assert 2 == machine.waiting
    assert 0 < bare.exit_ms < bare.whole_ms
    assert 0 < ours.exit_ms < ours.whole_ms


def test_an_event_is_compared_with_each_peer_that_is_there() -> None:
    """Glean has no build for every machine; where it has none the other comparison stands alone."""
    samples = {event.OURS: [1.0, 2.0, 3.0], event.POSTHOG: [10.0, 40.0, 10.0], event.GLEAN: [4.0, 4.0, 4.0]}

    both = {one.name: one for one in event.compare(samples)}
    alone = event.compare({name: samples[name] for name in (event.OURS, event.POSTHOG)})

    assert ["event/posthog", "event/glean"] == list(both)
    assert [0.1, 0.05, 0.3] == both["event/posthog"].figures
    assert [0.25, 0.5, 0.75] == both["event/glean"].figures
    assert ["met", "met"] == [one.verdict for one in both.values()]
    assert ["event/posthog"] == [one.name for one in alone]


@pytest.mark.parametrize("logged", [100, 102])
def test_a_process_that_logged_another_number_of_events_than_calls_is_refused(logged: int) -> None:
    """A call that drops its event is fast; it is no sample, and nor is one that logs twice."""
    child = {"us": {event.OURS: [1.0]}, "called": 101, "logged": logged}

    with pytest.raises(CannotMeasure, match=f"called 101 times, logged {logged}"):
        event.samples_of(child)


def test_a_process_that_logs_bursts_has_each_of_its_calls_in_the_log(tmp_path: Path) -> None:
    """What the benchmark runs is what it says: each subject is timed as often, and what ours was given is on disk."""
    child = harness.json_of_child("-m", "benchmarks.event", str(tmp_path), "3", "20")

    samples = event.samples_of(child)
    logs = list(tmp_path.rglob("events/*.jsonl"))
    lines = [json.loads(line) for log in logs for line in log.read_bytes().splitlines()[1:]]
    assert {event.OURS, event.POSTHOG} <= set(samples) <= {event.OURS, event.POSTHOG, event.GLEAN}
    assert {3} == {len(values) for values in samples.values()}
    assert all(value > 0 for values in samples.values() for value in values)
    assert 1 + 3 * 20 == child["called"] == len(lines)
    assert [{"format": "pdf", "pages": 3}] * len(lines) == [line["fields"] for line in lines]


def test_what_is_posted_to_the_benchmarks_server_is_taken_and_the_connection_kept() -> None:
    """The peers' threads post while calls are timed: a server that hung up would have them try again."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), event.Taker)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        host, port = server.server_address[:2]
        with contextlib.closing(http.client.HTTPConnection(str(host), port, timeout=5)) as connection:
            answers = []
            for body in (b"{}", b"", bytes(100_000)):
                connection.request("POST", "/batch/", body)
                with connection.getresponse() as answer:
                    answers.append((answer.status, answer.read(), answer.will_close))
    finally:
        server.shutdown()
        serving.join()
        server.server_close()

    assert [(200, b"{}", False)] * 3 == answers


def test_framed_requests_come_out_as_they_went_in() -> None:
    """Whatever bytes they hold."""
    requests = [b"POST / HTTP/1.1\r\n\r\n", b"", bytes(range(256)) * 300]

    assert requests == list(load.framed(load.frame(requests)))


@pytest.mark.parametrize(("per_second", "expected"), [(None, 40), (100.0, 40)])
def test_load_sends_as_many_as_it_may_at_a_rate_or_without(per_second: float | None, expected: int) -> None:
    """At a rate it takes as long as that many need, and every request is answered in either case."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.read(4):
                self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        found = load.load(port, [b"post"], connections=2, seconds=30, count_max=40, per_second=per_second)
        server.shutdown()

    assert {200: expected} == found["statuses"]
    assert per_second is None or found["per_second"] < per_second * 1.2


def test_half_rate_is_compared_with_the_bare_application_and_some_syncs() -> None:
    """Each round with its own sync: five of its slowest are allowed."""
    unhurried = {ingest.OURS: [{"p99_ms": 4.0}], ingest.BARE: [{"p99_ms": 1.0}]}

    compared = ingest.at_half_the_rate(unhurried, [[0.001] * 40])

    assert [(4.0, 6.0)] == [(ours, round(allowed, 9)) for ours, allowed in compared.rounds]
    assert compared.is_met


@pytest.mark.parametrize("cut", [1, 20, 50, 57])
def test_an_answer_counts_once_all_of_it_is_there(cut: int) -> None:
    """An answer in two pieces is one answer, wherever it is cut."""
    answer = b"HTTP/1.1 503 Busy\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"

    assert 503 == load.status_of(answer)
    assert 0 == load.status_of(answer[: min(cut, len(answer) - 1)])


def test_reports_are_as_long_as_said_and_never_alike() -> None:
    """The load is upload reports of some 1.2 KB."""
    draw = random.Random(1)
    reports = [ingest.a_report(draw, "2026-11-24") for _ in range(50)]

    assert 50 == len(set(reports))
    assert all(1000 < len(report) < 1400 for report in reports)
    assert 50 == len({json.loads(report)["id"] for report in reports})


def test_a_coordinator_is_no_larger_long_after_the_horizon_than_just_after_it() -> None:
    """What it holds follows from what is open and from the horizon, and not from history."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # Each scan waits for the disk some times.
    with tempfile.TemporaryDirectory(prefix="tallypost-", dir=memory) as folder:
        weeks = coordinator.Weeks(Path(folder) / "weeks", coordinator.Amount(each=21, segments=1, scans=0))

        weeks.go_to(coordinator.EARLY_DAY)
        early = weeks.rows()
        weeks.go_to(coordinator.LATE_DAY)
        late = weeks.rows()
        weeks.close()

    assert early == late
    # Sessions that never end are archived with gaps after a week, and remembered as all others.
    assert {"reports": 20 * 22, "sessions": 21 * 22, "segments": 7} == {
        name: late[name] for name in ("reports", "sessions", "segments")
    }


@pytest.mark.parametrize("kind", archive.KINDS)
def test_the_archivist_and_a_plain_program_write_the_same_rows(kind: archive.Kind, tmp_path: Path) -> None:
    """What is compared is the same work: every row of every segment, once."""
    for name in ("ours", "plain"):
        archive.write_segments(tmp_path / name, kind, 1000)

    ours, plain = archive.archive(kind, tmp_path / "ours"), archive.plain(kind, tmp_path / "plain")

    assert (1000, 1000) == (ours["rows"], plain["rows"])
    tables = [
        pq.ParquetDataset(tmp_path / "ours" / "archive" / kind).read().drop_columns(["day"]),
        pq.ParquetDataset(tmp_path / "plain" / "0.parquet").read().drop_columns(["day"]),
    ]
    key = [(column, "ascending") for column in TABLES[kind].key]
    assert tables[0].sort_by(key).to_pylist() == tables[1].sort_by(key).to_pylist()
    assert not list((tmp_path / "ours" / "segments").glob("*.jsonl.zst"))


def test_a_quick_run_of_inc_leaves_its_result(tmp_path: Path) -> None:
    """Whatever the figures are, the command succeeds and what was counted was found in the count file."""
    kept = tmp_path / "kept" / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(kept), "--scratch", str(tmp_path), "inc"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)

    assert 0 == done.returncode, done.stderr
    assert "prometheus Counter.inc" in done.stdout
    result = json.loads(kept.read_text("utf-8"))
    assert {} == result["failures"]
    assert ["inc"] == list(result["members"])


def comes_to_stop(pid: int, *, stopped: bool) -> bool:
    """Whether a process stands still, or goes on, within some seconds: a signal takes a moment."""
    for _ in range(500):
        if ("T" == Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]) == stopped:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_an_archivist_is_the_one_child_of_a_server_and_stands_still_while_it_is_stopped() -> None:
    """A server without one cannot be measured beside it."""
    sleep = [sys.executable, "-c", "import sys, time; print(1, flush=True); time.sleep(60)"]
    parent = [sys.executable, "-c", f"import subprocess; subprocess.run({sleep!r})"]
    with subprocess.Popen(parent, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        archivist = beside.Archivist.of(server.pid)
        try:
            with pytest.raises(CannotMeasure, match="0 children"):
                beside.Archivist.of(archivist.pid)
            with archivist.stopped():
                assert comes_to_stop(archivist.pid, stopped=True)
            assert comes_to_stop(archivist.pid, stopped=False)
        finally:
            os.kill(archivist.pid, 9)
