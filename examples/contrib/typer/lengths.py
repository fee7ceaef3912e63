"""A program of two commands, made with typer."""

from pathlib import Path

import typer

from tallypost import Telemetry
from tallypost.contrib.typer import count_runs

telemetry = Telemetry("example.org/lengths", "1.0", declaration=Path(__file__).with_name("telemetry.toml"))
app = typer.Typer()
METRES = {"metre": 1.0, "foot": 0.3048, "mile": 1609.344}


@app.command()
def convert(value: float, unit: str = "metre") -> None:
    """Print a length in metres."""
    if unit not in METRES:
        raise typer.Exit(4)
    typer.echo(f"{value * METRES[unit]:g}")


@app.command()
def units() -> None:
    """Print the units that are known."""
    typer.echo("\n".join(METRES))


count_runs(app, telemetry)

if __name__ == "__main__":
    app()
