"""The declared events, as the writer needs them: light to load, so that a short process can afford them at its end.

Takes   a declaration, or the small file that was made from it.
Gives   for each declared event its fields, and what of an event does not fit.
Never   lets a string through that the declaration does not hold: it is the declared one that goes on, not the given.
"""

from __future__ import annotations

from tallypost_schema.event_fields import accepts, described

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tallypost_schema.declaration import Declaration
    from tallypost_schema.event_fields import Allowed, FieldKind

    Fields = dict[str, Allowed]
    Table = dict[str, Fields]
    Value = str | bool | int | float

_KINDS: tuple[FieldKind, ...] = ("count", "seconds", "bytes", "flag")


def table_of(declaration: Declaration) -> Table:
    """The events of a declaration."""
    return {name: dict(event.fields) for name, event in declaration.events.items()}


def spelled(table: Table) -> bytes:
    """A table as a small file: a line an event, a tab before each field; a set of words begins with a comma."""
    lines = []
    for name, fields in table.items():
        cells = [name]
        for key, allowed in fields.items():
            words = "".join("," + _quoted(word) for word in allowed) or "," if isinstance(allowed, tuple) else allowed
            cells.append(f"{key}={words}")
        lines.append("\t".join(cells))
    return "".join(line + "\n" for line in lines).encode()


def parsed(content: bytes) -> Table:
    """The table in such a file.

    Raises:
        ValueError: it is none.
    """
    table: Table = {}
    for line in content.decode().splitlines():
        name, *cells = line.split("\t")
        fields: Fields = {}
        for cell in cells:
            key, _, words = cell.partition("=")
            kind = next((kind for kind in _KINDS if kind == words), None)
            if kind is not None:
                fields[key] = kind
            elif words.startswith(","):
                fields[key] = tuple(_unquoted(word) for word in words.split(",") if word)
            else:
                raise ValueError(cell)
        table[name] = fields
    return table


def misfit(table: Table, name: object, fields: dict[str, object]) -> tuple[str, object, str] | None:
    """What of an event does not fit: what it is, what was given, what is allowed; or None.

    A field may be left out, and one that is None is.
    """
    declared = table.get(name) if isinstance(name, str) else None
    if declared is None:
        return "event", name, "an event of the declaration: " + (", ".join(table) or "it declares none")
    for key, value in fields.items():
        if value is None:
            continue
        if key not in declared:
            return f"field of {name}", key, ", ".join(declared) or "no field: it declares none"
        if not accepts(declared[key], value):
            return f"field {key} of {name}", value, described(declared[key])
    return None


def plain(table: Table, name: str, fields: dict[str, object]) -> dict[str, Value]:
    """The fields of an event that fits, each as a plain value of its declared kind."""
    return {key: _plain(table[name][key], value) for key, value in fields.items() if value is not None}


def _plain(allowed: Allowed, value: object) -> Value:
    # A value's class may be the application's own, and say of itself what it likes.
    if isinstance(allowed, tuple):
        return allowed[allowed.index(value)]  # It fits, so it equals one of them.
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__index__(value)
    assert isinstance(value, float), "it fits"
    return float.__add__(value, 0.0)


def _quoted(word: str) -> str:
    # A word has no control character, so that no tab and no line feed is in it; what ends a line for Python may be.
    return "".join(f"%{ord(letter):06x}" if letter in "%," or not letter.isprintable() else letter for letter in word)


def _unquoted(word: str) -> str:
    first, *rest = word.split("%")
    return first + "".join(chr(int(piece[:6], 16)) + piece[6:] for piece in rest)
