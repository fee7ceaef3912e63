from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = {"argparse", "asgiref", "click", "django", "flask", "logging", "pytest", "starlette", "typer", "werkzeug"}


@pytest.mark.parametrize(
    ("module", "brings"),
    [
        ("words", set()),
        ("bounded", set()),
        ("command_line", set()),
        ("http", set()),
        ("routes", set()),
        ("asgi", set()),
        ("wsgi", set()),
        ("argparse", {"argparse"}),
        ("logging", {"logging"}),
        ("pytest", {"pytest"}),
        ("click", {"click"}),
        ("typer", {"typer"}),
        ("flask", {"flask"}),
        ("django", {"django"}),
    ],
)
def test_module_each_loads_its_own_framework_alone(module: str, brings: set[str]) -> None:
    """None of the nine frameworks is there because another one is used, unless it is brought along by that one."""
    command = (
        f"import sys; before = set(sys.modules); import tallypost.contrib.{module}; print(*sys.modules.keys() - before)"
    )

    ended = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)

    loaded = FRAMEWORKS & set(ended.stdout.split())
    assert brings <= loaded
    if not brings:
        assert set() == loaded
