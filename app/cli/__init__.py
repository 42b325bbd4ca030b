"""The command `tierway`: one file per command. Commands that read a running gateway ask it over HTTP; keys and the
configuration are worked on directly."""

from __future__ import annotations

import click

from app import __version__
from app.cli.check import check
from app.cli.eval import evaluation
from app.cli.flags import flags
from app.cli.importing import import_group
from app.cli.keys import keys
from app.cli.ledger import ledger
from app.cli.models import models
from app.cli.replay import replay_command
from app.cli.report import report
from app.cli.route import route
from app.cli.serve import serve
from app.cli.settings import reload, settings, versions
from app.cli.simulate import simulate
from app.cli.train import train


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[
        *(serve, check, models, route, replay_command, report, simulate, keys, ledger, train, evaluation),
        *(flags, settings, versions, reload, import_group),
    ],
)
@click.version_option(__version__, prog_name="tierway")
def main() -> None:
    """Tierway: an OpenAI-compatible gateway that sends each request to the cheapest model that can do it.

    \b
    Example:
      tierway serve
      curl http://127.0.0.1:8080/v1/models
    """
