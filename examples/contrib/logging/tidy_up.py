"""A program that logs; how often which part of it warns is counted."""

import logging
import sys
from pathlib import Path

from tallypost import Telemetry
from tallypost.contrib.logging import CountingHandler

telemetry = Telemetry("example.org/tidy-up", "1.0", declaration=Path(__file__).with_name("telemetry.toml"))
log = logging.getLogger("tidy_up.files")


def main() -> None:
    """Say which files of a folder are empty."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger().addHandler(CountingHandler(telemetry))

    for path in sorted(Path(sys.argv[1]).iterdir()):
        if path.is_file() and path.stat().st_size == 0:
            log.warning("%s is empty", path)
    log.info("done")


if __name__ == "__main__":
    main()
