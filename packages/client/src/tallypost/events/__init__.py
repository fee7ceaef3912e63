"""Events: from `Telemetry.event` to ``events/<session>.jsonl`` and the batches that are cut from it."""
