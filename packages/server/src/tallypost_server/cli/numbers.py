"""Numbers on a command line: what is none, or makes no sense, is said with what is allowed.

Takes   an argument's text.
Gives   a number, or argparse's error.
Never   knows what it counts.
"""

from __future__ import annotations

import argparse
import math


def whole(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!a} given, allowed is a whole number from 1 on")
    return number


def above_0(text: str) -> float:
    """A number above 0, with an end."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 2**31:
        raise argparse.ArgumentTypeError(f"{text!a} given, allowed is a number above 0")
    return number
