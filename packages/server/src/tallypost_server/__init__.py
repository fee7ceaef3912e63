"""The makers' side of Tallypost."""

__version__ = "0.1.0"
