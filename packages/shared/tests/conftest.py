"""One profile for people and CI: the same examples on every run, no database, no clock."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("schema", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("schema")
