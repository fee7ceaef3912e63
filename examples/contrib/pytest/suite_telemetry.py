"""The telemetry of a test suite that others run on their machines, such as that of an interface to be implemented."""

from pathlib import Path

from tallypost import Telemetry

telemetry = Telemetry("example.org/suite", "1.0", declaration=Path(__file__).with_name("telemetry.toml"))
