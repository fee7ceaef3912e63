"""What can be wrong with bytes and documents.

SchemaError
├── Malformed            not one strict JSON object
├── Invalid              JSON that breaks a document's rules
└── DeclarationInvalid   a telemetry.toml that breaks its rules; has one sentence a problem
"""

from __future__ import annotations


class SchemaError(Exception):
    """Bytes that are no document, receipt, config or declaration. The same bytes will never be one."""


class Malformed(SchemaError):
    """The bytes are not one strict JSON object (HTTP 400 ``malformed``)."""


class Invalid(SchemaError):
    """JSON that breaks the rules of what it should be (HTTP 422 ``invalid``)."""


class DeclarationInvalid(SchemaError):
    """A declaration breaks its rules.

    `problems` has a sentence for each: the key, what was given, what is allowed.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))
