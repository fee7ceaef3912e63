"""Transparent telemetry: counted on the user's machine, readable there, posted only after a yes."""

from .errors import TallypostError, WrongUse
from .telemetry import Telemetry

__version__ = "0.1.0"
__all__ = ["TallypostError", "Telemetry", "WrongUse"]
