"""What all tests of commands build on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tallypost_server.cli.main import main


@pytest.fixture
def say(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the data folder: its exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["--data", str(data), *arguments], {})
        said = capsys.readouterr()
        return status, said.out, said.err

    return run
