"""Run the proofs one after the other, each for so many seconds, and keep what they found as JSON.

Takes   names of proofs, seconds, a seed.
Gives   a line a proof, ``results/proof.json``, and exit status 1 if one of them does not hold.
Never   asserts a speed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

from . import acknowledged_is_kept, archived_is_kept, counts_are_kept, events_are_kept

PROOFS = {
    "counts-are-kept": counts_are_kept.prove,
    "events-are-kept": events_are_kept.prove,
    "acknowledged-is-kept": acknowledged_is_kept.prove,
    "acknowledged-is-kept-by-workers": partial(acknowledged_is_kept.prove, workers=4),
    "archived-is-kept": archived_is_kept.prove,
}


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ({', '.join(PROOFS)}); all if none is given")
    parser.add_argument("--seconds", type=float, default=600, help="how long each one runs, at most")
    parser.add_argument("--seed", type=int, default=None, help="the seed of an earlier run")
    parser.add_argument("--json", type=Path, default=Path("results/proof.json"), metavar="FILE")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else int(time.time())
    results, failed = [], 0
    for name in given.names or PROOFS:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="tallypost-proof-") as folder:
            try:
                found = {"holds": True, **PROOFS[name](Path(folder), seconds=given.seconds, seed=seed)}
            except AssertionError as problem:
                traceback.print_exc()
                found = {"holds": False, "problem": str(problem)}
                failed += 1
        found = {"proof": name, "seed": seed, "seconds": round(time.monotonic() - begin, 1), **found}
        print(json.dumps(found))
        results.append(found)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    facts = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "python": platform.python_version()}
    given.json.write_text(json.dumps({**facts, "proofs": results}, indent=1) + "\n")
    print(f"{len(results) - failed} proofs hold, {failed} do not; kept in {given.json}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
