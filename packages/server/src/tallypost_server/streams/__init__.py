"""AT REST the coordinator's tables: what waits for the archive, and what of each session is known."""
