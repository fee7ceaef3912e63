"""At rest: ``segments/open/`` (what grows) and ``segments/`` (what is sealed, and a manifest beside each)."""
