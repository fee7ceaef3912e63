"""A small site that converts units, counting with Tallypost which of its pages are used."""

__version__ = "0.1.0"
