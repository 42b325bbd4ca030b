"""`tierway import`: makes a configuration out of another gateway's, and says what it could not carry over."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import orjson

from app.cli.options import JSON_OPTION, fail
from app.config.file import read_file
from app.config.imported import Imported, as_file, lines
from app.config.litellm import read


@click.group("import", short_help="Make a configuration out of another gateway's.")
def import_group() -> None:
    """Make a configuration out of another gateway's.

    \b
    Example:
      tierway import litellm config.yaml -o tierway.yaml
    """


@import_group.command(short_help="From LiteLLM's config.yaml.")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A new file; else it is printed.")
@JSON_OPTION
def litellm(config: Path, output: Path | None, as_data: bool) -> None:
    """Make a configuration out of the CONFIG of LiteLLM's proxy.

    What has no counterpart is listed with what to do instead, here and at the head of the file. Secrets are not carried
    over; the file names the variables to set. No file that exists is written over.

    \b
    Example:
      tierway import litellm config.yaml -o tierway.yaml
      tierway check --config tierway.yaml
    """
    document = read_file(config)
    if document.problems:
        for problem in document.problems:
            click.echo(str(problem), err=True)
        sys.exit(2)
    found = read(document, os.environ)
    if output is not None:
        _write(output, as_file(found))
    if as_data:
        click.echo(_as_json(found))
    elif output is None:
        click.echo(as_file(found), nl=False)
    for line in lines(found):
        click.echo(line, err=True)
    if "upstreams" not in found.data:
        fail(f"{config}: nothing in its model_list could be carried over.")


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        fail(f"{output} cannot be written: it is there already, and may be precious. Name another by -o.", status=2)
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}", status=2)


def _as_json(found: Imported) -> str:
    notes = [{"line": note.line, "key": note.key, "message": note.message} for note in found.notes]
    made = {"config": found.data, "variables": found.variables, "notes": notes}
    return orjson.dumps(made, option=orjson.OPT_INDENT_2).decode()
