"""Foreign names in the grammar: what a command, a route or a logger is called, as a bucket or a name.

Takes   names that the program's author wrote.
Gives   a bucket or a name, or None for what does not fit.
Never   cuts a name down until it fits: what is refused is counted as `OTHER`, not under half of its name.
"""

from __future__ import annotations

import re

from tallypost_schema import names

# For what does not fit, and for what comes when a counter has as many buckets as it may have.
OTHER = "other"
# For what has no name: a request that no route took, a program that was called without a command.
NONE = "none"
# The route of the site's first page, whose template is empty.
INDEX = "index"

_SEPARATORS = str.maketrans("/:", "..")
# Django's (?P<year>[0-9]{4}), and groups without a name.
_NAMED_GROUP = re.compile(r"\(\?P<(\w+)>[^()]*\)")
# Starlette's {name:convertor}, Flask's and Django's <converter:name>.
_BRACES = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_ANGLES = re.compile(r"<(?:[^<>]*:)?(\w+)>")
# Where a regular expression begins, alone or below the prefix that includes it, and where it ends: ^…$, …/?$, …\Z.
_ENDS = re.compile(r"(?:^|(?<=/))\^|(?:/\??)?(?:\$|\\[Zz])$")


def bucket_of(foreign: str) -> str | None:
    """The bucket for a name: as it is, but parts that ``/`` or ``:`` join are joined by a dot."""
    bucket = foreign.translate(_SEPARATORS)
    return bucket if names.is_bucket(bucket) else None


def name_of(foreign: str) -> str | None:
    """A name's parts from a dotted name: lower case, dots as ``/``, underscores as ``-``."""
    parts = foreign.lower().replace(":", "/").replace(".", "/").split("/")
    name = "/".join("-".join(word for word in re.split("[-_]", part) if word) for part in parts)
    return name if names.is_name(name) else None


def route_of(template: str) -> str | None:
    """The bucket for a route's template: ``users.<id>`` for ``/users/{id}``, and for ``users/<int:id>/``."""
    named = _NAMED_GROUP.sub(r"<\1>", template)
    named = _BRACES.sub(r"<\1>", _ANGLES.sub(r"<\1>", named))
    named = _ENDS.sub("", named).strip("/")
    return bucket_of(named) if named else INDEX
