"""Proofs: what the guarantees claim, shown for as long as one likes. ``python -m tests.proof --seconds 600``."""
