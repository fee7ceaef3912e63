"""Black's command line, counted from outside.

Takes   black's arguments.
Gives   black's output and exit code; and counts of how it was used.
Never   counts a value, a name of a file, or a line of code; never changes what black does.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import black
import click
from click.core import ParameterSource

from tallypost import Telemetry

# Where reports go if the user says yes: the default of `tallypost-server serve`. TALLYPOST_ENDPOINT overrides it.
ENDPOINT = "http://127.0.0.1:8080"

telemetry = Telemetry(
    "example.org/black",
    importlib.metadata.version("black"),
    endpoint=ENDPOINT,
    declaration="black_with_telemetry:telemetry.toml",
)
runs = telemetry.counter("run")
options = telemetry.counter("option")
exits = telemetry.counter("exit")
seconds = telemetry.histogram("run/seconds", edges=(0.3, 1, 3, 10, 30, 100))
# Black's own words for what it did with files, and ours.
files = {
    "change_count": telemetry.counter("files/changed"),
    "same_count": telemetry.counter("files/unchanged"),
    "failure_count": telemetry.counter("files/failed"),
}

# Black appends its numbers to the file that this variable names.
NUMBERS_VARIABLE = "GITHUB_OUTPUT"
_NUMBERS_BYTES_MAX = 4096


class CountedBlack(click.Command):
    """Hands parsing and running to ``black.main``, and looks in between at which options were given.

    Click's own `main` is inherited, so that errors, Ctrl-C and broken pipes end as they do with black.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Black's context; a wrong argument, ``--help`` and ``--version`` end here."""
        context = black.main.make_context(info_name, args, parent, **extra)
        for name in given_options(context):
            options.inc(bucket=name)
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run black."""
        return black.main.invoke(ctx)


def given_options(context: click.Context) -> list[str]:
    """The names of the options that stand on the command line; ``--safe`` has the name of its opposite, ``fast``."""
    return [
        parameter.name.replace("_", "-")
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run black, and end as it ends."""
    runs.inc()
    with seconds.time(), counted_files():
        try:
            # Under black's name, so that its messages read as ever.
            CountedBlack("black").main(arguments, prog_name="black")
        except SystemExit as end:
            exits.inc(bucket=str(end.code))
            raise


@contextlib.contextmanager
def counted_files() -> Iterator[None]:
    """Count the files that black changes, leaves and fails on within the ``with`` block, if it can be known.

    Black writes these numbers for workflows, with and without ``--quiet``. They are read from a pipe, not from a file:
    nothing is left behind however this ends, and a full disk is no trouble. Black's few bytes always fit into it.
    """
    if NUMBERS_VARIABLE in os.environ or not os.path.isdir("/dev/fd"):
        yield
        return
    reader, writer = os.pipe()
    os.environ[NUMBERS_VARIABLE] = f"/dev/fd/{writer}"
    try:
        yield
    finally:
        del os.environ[NUMBERS_VARIABLE]
        # Black's workers may still hold the other end, so the end of the pipe is nothing to wait for.
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):  # Black wrote nothing: it had ended before it came to files.
            count_files(os.read(reader, _NUMBERS_BYTES_MAX).decode(errors="replace"))
        os.close(reader)
        os.close(writer)


def count_files(numbers: str) -> None:
    """Count what black wrote: lines such as ``change_count=3``."""
    for line in numbers.splitlines():
        word, _, number = line.partition("=")
        if word in files and number.isascii() and number.isdigit() and int(number) > 0:
            files[word].inc(bucket=bucket_of(int(number)))


def bucket_of(number: int) -> str:
    """Roughly how many: exact numbers could tell one project from another."""
    for most, bucket in ((1, "1"), (5, "2-5"), (20, "6-20"), (100, "21-100")):
        if number <= most:
            return bucket
    return ">100"
