from __future__ import annotations

import inspect
import re

from tallypost_server import errors


def test_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """The drawing has every error, indented below its parent."""
    assert errors.__doc__ is not None
    drawn = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"([│├└─ ]*)([A-Z]\w+)(?:  |$)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"

    classes = {
        name: found.__base__.__name__
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, errors.ServerError) and found.__base__ is not None
    }
    assert classes == drawn


def test_place_of_an_error_has_none_of_its_words() -> None:
    """What is logged of an unforeseen error cannot quote a document."""
    try:
        int("secret")
    except ValueError as failure:
        place = errors.place_of(failure)

    assert re.fullmatch(r"ValueError at test_errors\.py:\d+", place)
