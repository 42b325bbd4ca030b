"""Environment and file in, `Settings` out, or a `ConfigError` with everything that is wrong."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson

from app.config.checks import check
from app.config.environment import Environment, default_data_dir
from app.config.explain import plain
from app.config.features import FEATURES
from app.config.file import Document, parse, read_file
from app.config.problems import ConfigError
from app.config.resolve import ENVIRONMENT_NAMES, from_environment, from_file
from app.config.schema import FileSettings
from app.config.settings import ALIASES_WITHOUT_FILE, FlagSettings, Settings
from app.config.validate import validate

_PROCESS: Final = (
    "host",
    "port",
    "workers",
    "data_dir",
    "log_level",
    "log_format",
    "config_path",
    "version",
    "sources",
)
"""What may differ between replicas that do the same with a request, and so is no part of the version."""


def load(environ: Mapping[str, str], *, config_path: Path | None = None, text: bytes | None = None) -> Settings:
    """The configuration of this environment and of the file at `config_path`, else the one `TIERWAY_CONFIG` names.
    `text`: what is to be taken for the file's."""
    environment = Environment(environ)
    path = config_path or environment.value("TIERWAY_CONFIG")
    document = Document() if not path else read_file(path) if text is None else parse(text, str(path))
    file, problems = validate(document)
    found = (
        from_environment(environment) if file.upstreams is None else from_file(file.upstreams, environment, document)
    )
    environment.check_names(entry.api_key_env for entry in (file.upstreams or {}).values() if entry.api_key_env)
    problems += found.problems + check(file, document, _upstream_names(document))
    settings = _settings(environ, environment, file, path)
    settings = replace(
        settings, upstreams=found.upstreams, sources=MappingProxyType({**settings.sources, **found.sources})
    )
    if problems or environment.problems:
        problems = sorted(problems, key=lambda each: each.line or 0) + environment.problems
        raise ConfigError(dict.fromkeys(problems))
    return replace(settings, version=version_of(settings))


def version_of(settings: Settings) -> str:
    """A short name for what this configuration does with requests; equal on replicas that are configured alike."""
    decides = {key: value for key, value in plain(settings).items() if key not in _PROCESS}
    return hashlib.sha256(orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def _upstream_names(document: Document) -> tuple[str, ...]:
    """As they are written, so that a name is known even where its settings are wrong."""
    written = document.data.get("upstreams")
    return tuple(written) if isinstance(written, dict) else ENVIRONMENT_NAMES


def _settings(environ: Mapping[str, str], environment: Environment, file: FileSettings, path: Path | None) -> Settings:
    secrets = {"admin_key": environment.secret("TIERWAY_ADMIN_KEY"), "redis_url": environment.secret("REDIS_URL")}
    values: dict[str, Any] = {name: secret[0] for name, secret in secrets.items() if secret}
    return Settings(
        **values,
        host=environment.value("TIERWAY_HOST"),
        port=environment.value("TIERWAY_PORT"),
        workers=environment.value("TIERWAY_WORKERS"),
        data_dir=environment.value("TIERWAY_DATA_DIR") or default_data_dir(environ),
        log_level=environment.value("TIERWAY_LOG_LEVEL"),
        log_format=environment.value("TIERWAY_LOG_FORMAT") or ("console" if sys.stderr.isatty() else "json"),
        allow_anonymous=environment.value("TIERWAY_ALLOW_ANONYMOUS"),
        config_path=path,
        openfeature=environment.value("TIERWAY_FLAG_PROVIDER"),
        models=file.models,
        only_listed_models=file.only_listed_models,
        aliases=file.aliases if path else ALIASES_WITHOUT_FILE,
        routing=file.routing,
        budgets=file.budgets,
        budget=file.budget,
        sessions=file.sessions,
        streaming=file.streaming,
        limits=file.limits,
        flags=_flags(environment, file),
        sources=MappingProxyType({(name,): secret[1] for name, secret in secrets.items() if secret}),
    )


def _flags(environment: Environment, file: FileSettings) -> FlagSettings:
    return FlagSettings(
        start=MappingProxyType({name: environment.value(f"FEATURE_{name}") for name in FEATURES}),
        named=frozenset(name for name in FEATURES if environment.names(f"FEATURE_{name}")),
        locked=environment.value("FEATURE_LOCK"),
        overrides=file.features.overrides,
    )
