"""Conservation: processes that are killed at random instants lose no increment that had returned.

Takes   a folder, seconds, a seed.
Gives   how many processes were killed, and how many increments were found again.
Never   compares with anything but what each process wrote down after an increment returned.

Several processes count in one directory, over midnight, some of them forked; reporters run meanwhile. Each process
writes the number of increments that returned into a mapped file of its own, which survives it. In the end the sum over
the local reports must be that number, and at most one more a process: the increment under way at the kill.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WORKER = """
import mmap, os, sys
from tallypost import Telemetry
telemetry = Telemetry("example.org/proof", "1", uploader="manual")
counter = telemetry.counter("proof/inc")
def count(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, 4096)
    returned = memoryview(mmap.mmap(file, 4096)).cast("Q")
    inc, n = counter.inc, 0
    while True:
        inc()
        n += 1
        returned[0] = n
if sys.argv[2] == "fork":
    counter.inc()
    with open(sys.argv[1] + ".first", "wb") as file:
        file.write((1).to_bytes(8, "little") + bytes(4088))
    if os.fork() == 0:
        count(sys.argv[1] + ".child")
count(sys.argv[1])
"""


def prove(folder: Path, *, seconds: float, seed: int) -> dict[str, Any]:
    """Kill and fold for so many seconds."""
    rng = random.Random(seed)
    told = folder / "told"
    told.mkdir()
    ignored = ("CI", "DO_NOT_TRACK", "TALLYPOST")
    environ = {name: value for name, value in os.environ.items() if name not in ignored and "PYTEST" not in name}
    environ["TALLYPOST_DIR"] = str(folder / "state")
    day = int(time.time()) // 86400 - 15
    until, killed, reports = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        # The day goes on slowly, so that days are folded while processes count in them.
        day += rng.random() < 0.2 and day < int(time.time()) // 86400 - 3
        workers = []
        for _ in range(rng.randrange(2, 6)):
            at = _at(day, 86400 - rng.random() * 2)
            path = str(told / f"{killed + len(workers)}")
            kind = rng.choice(["alone", "fork"])
            command = [*_under_clock(at), "python", "-c", WORKER, path, kind]
            workers.append(subprocess.Popen(command, env=environ, start_new_session=True))
        time.sleep(rng.random() * 1.5)
        reporters = [
            subprocess.Popen(
                [*_under_clock(_at(day + 1, 5)), "tallypost", "report"], env=environ, stderr=subprocess.PIPE
            )
            for _ in range(rng.randrange(0, 3))
        ]
        time.sleep(rng.random())
        for worker in workers:
            os.killpg(worker.pid, 9)
            worker.wait()
        for reporter in reporters:
            _, error = reporter.communicate(timeout=60)
            assert reporter.returncode == 0, error.decode()
        killed += len(workers)
        reports += len(reporters)
    # Late counts go into the next free day that is over: two days more are enough for all of them.
    for later in (2, 40):
        subprocess.run(
            [*_under_clock(_at(day + later, 60)), "tallypost", "report"],
            env=environ,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    returned = sum(_number(path) for path in told.iterdir())
    processes = len([path for path in told.iterdir() if not path.name.endswith(".first")])
    state = folder / "state" / "example.org" / "proof"
    found = sum(
        program["counters"].get("proof/inc", 0)
        for path in (state / "reports").glob("local.*.json")
        for program in json.loads(path.read_bytes())["programs"]
    )
    left = len(list((state / "counts").glob("*.count")))
    assert returned <= found <= returned + processes, f"{returned} returned, {found} found, {processes} processes"
    assert left == 0, f"{left} count files were not folded"
    return {"killed": processes, "reporters": reports, "returned": returned, "found": found}


def _number(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return int.from_bytes(content[:8], "little")


def _under_clock(at: str) -> list[str]:
    return [sys.executable, "-m", "tallypost.testing", "--at", at, "--"]


def _at(day: int, second: float) -> str:
    instant = day * 86400 + second
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(instant)) + f".{int(instant % 1 * 1000):03}Z"
