"""What both sides of Tallypost agree on: documents, names, limits, outcomes, receipts, upload config, declaration."""

__version__ = "0.1.0"
