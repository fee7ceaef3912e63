"""A group of commands, made with click."""

import random
import sys
from pathlib import Path

import click

from tallypost import Telemetry
from tallypost.contrib.click import count_runs

telemetry = Telemetry("example.org/dice", "1.0", declaration=Path(__file__).with_name("telemetry.toml"))


@count_runs(telemetry)
@click.group()
@click.option("--seed", type=int, envvar="DICE_SEED")
def dice(seed: int | None) -> None:
    """Throw dice, or a coin."""
    random.seed(seed)


@dice.command()
@click.option("-s", "--sides", default=6)
@click.argument("number", default=1)
def roll(sides: int, number: int) -> None:
    """Throw so many dice."""
    click.echo(" ".join(str(random.randint(1, sides)) for _ in range(number)))


@dice.command()
@click.option("--expect", type=click.Choice(["heads", "tails"]))
def coin(expect: str | None) -> None:
    """Throw a coin; exit with 3 if it lies otherwise than expected."""
    side = random.choice(["heads", "tails"])
    click.echo(side)
    if expect not in (None, side):
        sys.exit(3)


if __name__ == "__main__":
    dice()
