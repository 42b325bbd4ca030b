"""`tierway check`: validates the configuration and says what answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from app.cli.inspecting import Inspection, inspected
from app.cli.options import CONFIG_OPTION, JSON_OPTION, run, settings_of, state_of
from app.config.checks import ungranted, unoffered
from app.config.explain import as_json, as_yaml
from app.config.later import without_effect
from app.config.settings import Settings


@click.command(short_help="Validate the configuration and say what answers.")
@CONFIG_OPTION
@JSON_OPTION
@click.option("--offline", is_flag=True, help="Look at the configuration only; ask neither the store nor upstreams.")
def check(config_path: Path | None, as_data: bool, offline: bool) -> None:
    """Validate the configuration, print what it comes to, and say what answers, with which models.

    Exits with 2 when the configuration is wrong, with 1 when a named upstream or the store does not answer. Settings
    without effect and names of models that nobody offers are warnings.

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
    seen = run(inspected(settings))
    for line in (*_findings(settings, seen), *_warnings(settings, seen)):
        click.echo(line, err=True)
    named = {name for name, upstream in settings.upstreams.items() if not upstream.probed}
    if any(found.error is not None and found.upstream in named for found in seen.found):
        sys.exit(1)


def _findings(settings: Settings, seen: Inspection) -> Iterator[str]:
    """Each upstream and its models."""
    for found in seen.found:
        upstream = settings.upstreams.get(found.upstream)
        yield f"{found.upstream} ({found.kind}): {state_of(found, upstream, seen.causes.get(found.upstream, ''))}"
        yield from (f"  {card.id}" for card in seen.registry.cards if card.upstream == found.upstream)


def _warnings(settings: Settings, seen: Inspection) -> Iterator[str]:
    """Names that lead nowhere: a model may come later, so they are no error."""
    cards = seen.registry.cards
    offered = {*(card.id for card in cards), *(card.name for card in cards)}
    away = [found.upstream for found in seen.found if found.error is not None]
    for where, model in unoffered(settings, offered, away):
        yield f"warning: {where}: nobody offers {model}"
    for key in seen.keys:
        for pattern in ungranted(key.models, settings, offered, away) if key.revoked_at is None else ():
            yield f"warning: key {key.name} ({key.id}): nobody offers {pattern}"
