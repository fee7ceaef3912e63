"""The counts of one process, as they grow: at rest in ``counts/*.count``."""
