"""`tierway check`: validates the configuration and says what answers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app.cli.options import CONFIG_OPTION, JSON_OPTION, run, settings_of
from app.config.explain import as_json, as_yaml
from app.config.later import without_effect
from app.main import inspected


@click.command(short_help="Validate the configuration and say what answers.")
@CONFIG_OPTION
@JSON_OPTION
@click.option("--offline", is_flag=True, help="Look at the configuration only; ask neither the store nor upstreams.")
def check(config_path: Path | None, as_data: bool, offline: bool) -> None:
    """Validate the configuration, print what it comes to, and say what answers.

    Exits with 2 when the configuration is wrong, with 1 when a named upstream or the store does not answer.

    \b
    Example:
      tierway check --config tierway.yaml
    """
    settings = settings_of(config_path)
    click.echo(as_json(settings) if as_data else as_yaml(settings))
    for setting, why in without_effect(settings):
        click.echo(f"warning: {setting} has no effect: {why}", err=True)
    if offline:
        return
    found = run(inspected(settings))
    for upstream in found:
        answer = f"answers with {upstream.models} models" if upstream.error is None else f"away: {upstream.error}"
        click.echo(f"{upstream.upstream} ({upstream.kind}): {answer}", err=True)
    named = {name for name, upstream in settings.upstreams.items() if not upstream.probed}
    if any(upstream.error is not None and upstream.upstream in named for upstream in found):
        sys.exit(1)
