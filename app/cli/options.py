"""What the commands share: their common options, loading the settings, and ending with a word instead of a trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import uvloop
from pydantic import ValidationError

from app.config.environment import Environment
from app.config.load import load
from app.config.problems import ConfigError
from app.config.settings import Settings, UpstreamSettings
from app.config.wording import place_of, worded
from app.core.errors import GatewayError
from app.gateway.discovery import Found
from app.store.errors import StoreUnusable

T = TypeVar("T")

CONFIG_OPTION: Final = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The YAML file; else TIERWAY_CONFIG.",
)
JSON_OPTION: Final = click.option("--json", "as_data", is_flag=True, help="Print JSON.")

EVERYWHERE: Final = ("0.0.0.0", "::")


def local_url(host: str, port: int) -> str:
    """Where somebody on this machine reaches what listens there."""
    host = "127.0.0.1" if host in EVERYWHERE else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def url_of_environment() -> str:
    """The gateway of this environment, which need not be named where it was configured."""
    environment = Environment(os.environ)
    return local_url(environment.value("TIERWAY_HOST"), environment.value("TIERWAY_PORT"))


URL_OPTION: Final = click.option(
    "--url",
    default=url_of_environment,
    show_default=False,
    callback=lambda _context, _option, url: url if "://" in url else f"http://{url}",
    help="The running gateway; else that of TIERWAY_HOST and TIERWAY_PORT, else http://127.0.0.1:8080.",
)


def state_of(found: Found, settings: UpstreamSettings | None, cause: str = "") -> str:
    """What an upstream said last, for the operator, who may see addresses. `settings` None: nobody configured it."""
    if found.error is None:
        return f"{found.models} model{'' if found.models == 1 else 's'}"
    where = f" at {', '.join(settings.base_urls)}" if settings else ""
    return f"away{where}: {found.error}{f' ({cause})' if cause else ''}"


def settings_of(config_path: Path | None) -> Settings:
    """The settings, or the end of the command with everything that is wrong with them (exit status 2)."""
    try:
        return load(os.environ, config_path=config_path)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        sys.exit(2)


def checked(make: Callable[[], T]) -> T:
    """What `make` makes of the arguments, or the end of the command with what is wrong with them."""
    try:
        return make()
    except ValidationError as error:
        said = (f"{'.'.join(map(str, place_of(each)))}: {worded(each)}" for each in error.errors())
        fail("\n".join(said), status=2)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end; an expected error ends the command with its message."""
    try:
        return uvloop.run(work)
    except StoreUnusable as error:
        fail(str(error))
    except GatewayError as error:
        fail(error.message)


def no_gateway(url: str, error: Exception) -> NoReturn:
    """The end of a command whose gateway does not answer."""
    why = str(error).rstrip(".")
    fail(f"No gateway answers at {url}: {why}. Name another by --url, or start one with: tierway serve")


def fail(message: str, status: int = 1) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(status)
