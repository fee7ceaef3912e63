"""The ``tallypost`` command: for the people whose machine counts."""
