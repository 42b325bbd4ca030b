"""`tierway train`: fits from data what ships with the program."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.options import fail
from app.lab.fitting import Recipe
from app.lab.rows import DataUnusable
from app.lab.train import train_router
from app.routing.classifier import SHIPPED


@click.group()
def train() -> None:
    """Train what is learned from data.

    \b
    Example:
      tierway train router --data ./data --out router.safetensors
    """


@train.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="A folder of labelled JSON lines (*.jsonl, *.jsonl.gz).",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=SHIPPED, help="Where the weights go.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed and data give the same bytes.")
@click.option("--quick", is_flag=True, help="Do not measure how it travels (each suite left out in turn).")
def router(data: Path, out: Path, seed: int, quick: bool) -> None:
    """Train the router's classifier. Rows whose licence forbids shipping are only measured on.

    \b
    Example:
      tierway train router --data ./data --out router.safetensors
    """
    try:
        weights = train_router(data, out, Recipe(seed), lambda step: click.echo(step, err=True), leave_out=not quick)
    except DataUnusable as error:
        fail(str(error), status=2)
    click.echo(f"{out}: version {weights.notes['version']}, {out.stat().st_size:,} bytes")
