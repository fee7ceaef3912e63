"""``python -m tests.simulation``: the simulation for as long as somebody likes.

Takes   a number of steps, a seed.
Gives   exit status 0; 1 with the shortest story that was found if something does not hold.
Never   repeats itself, unless it is given the same seed.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from .client import ClientMachine, shortened, simulate

STEPS_A_WORLD = 40


def main() -> int:
    """Simulate."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000, help="how many steps in all, about (10,000)")
    parser.add_argument("--seed", type=int, default=None, help="the seed of a run that is to be repeated")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(2**32)
    print(f"seed {seed}", flush=True)
    begin = time.monotonic()
    status = 0
    try:
        simulate(examples=max(1, given.steps // STEPS_A_WORLD), steps=STEPS_A_WORLD, seed=seed)
    except AssertionError as problem:
        status = 1
        print(f"does not hold: {problem}")
        if ClientMachine.broken is not None:
            story, trusted, where = ClientMachine.broken
            print(f"{where}; on {'a trusted' if trusted else 'an untrusted'} file system, after:")
            for action, during in shortened(story, trusted=trusted, problem=where):
                print(f"  {action}" + (f"  in the middle of it: {during}" if during else ""))
    print(f"{sum(ClientMachine.rules.values())} steps in {time.monotonic() - begin:.0f} s")
    for name, n in sorted(ClientMachine.statistics.items(), key=lambda pair: -pair[1]):
        print(f"  {n:8} {name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
