"""``python -m black_with_telemetry``: black's command line."""

from .command import main

# Black's worker processes may import this module anew, under another name.
if __name__ == "__main__":
    main()
