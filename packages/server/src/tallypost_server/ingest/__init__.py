"""At rest: nothing but ``quarantine/``. From a request's bytes to a line, and from the line's commit to the answer."""
