"""Makes the upstreams: from the file if it has any, else from the environment, with the defaults of their kinds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pydantic import SecretStr

from app.config.environment import ANTHROPIC_DEFAULT, OLLAMA_DEFAULT, WHERE, Environment
from app.config.file import Document
from app.config.problems import Problem
from app.config.schema import Kind, Timeouts, Upstream
from app.config.settings import UpstreamSettings


class KindDefaults(NamedTuple):
    base_url: str | None
    local: bool
    max_concurrency: int
    timeouts: Timeouts = Timeouts()


KINDS: Final[Mapping[Kind, KindDefaults]] = {
    "ollama": KindDefaults(OLLAMA_DEFAULT, True, 8),
    "vllm": KindDefaults(None, True, 64),
    # nothing is loaded there: a long wait for the first token is a fault
    "anthropic": KindDefaults(ANTHROPIC_DEFAULT, False, 32, Timeouts(cold_start=60.0)),
    "openai": KindDefaults(None, False, 32),
}


class Found(NamedTuple):
    """The upstreams, what was wrong, and which variable each one's key came from."""

    upstreams: Mapping[str, UpstreamSettings]
    problems: list[Problem]
    sources: dict[tuple[str, ...], str]


class _FromEnvironment(NamedTuple):
    name: str
    kind: Kind
    url: str
    key: str | None
    wanted_by: str
    """The variable without which it is not used."""


_FROM_ENVIRONMENT: Final = (
    _FromEnvironment("ollama", "ollama", "OLLAMA_BASE_URL", None, ""),
    _FromEnvironment("vllm", "vllm", "VLLM_BASE_URL", None, "VLLM_BASE_URL"),
    _FromEnvironment("claude", "anthropic", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
    _FromEnvironment(
        "openai", "openai", "OPENAI_COMPATIBLE_BASE_URL", "OPENAI_COMPATIBLE_API_KEY", "OPENAI_COMPATIBLE_BASE_URL"
    ),
)
ENVIRONMENT_NAMES: Final = tuple(each.name for each in _FROM_ENVIRONMENT)


def from_environment(environment: Environment) -> Found:
    """What the variables name, and an Ollama that is only tried."""
    found = Found({}, [], {})
    upstreams: dict[str, UpstreamSettings] = {}
    for name, kind, url, key, wanted_by in _FROM_ENVIRONMENT:
        secret = environment.secret(key) if key else None
        if wanted_by and not environment.names(wanted_by) and not (wanted_by == key and secret):
            if secret:
                message = f"has no effect without {wanted_by}"
                found.problems.append(Problem(WHERE, None, secret[1], message))
            continue
        urls = environment.value(url)
        if urls is None:  # it was wrong, and is a problem already
            continue
        probed = not wanted_by and not environment.names(url)
        upstreams[name] = _make(name, Upstream(kind=kind, base_url=urls), secret, found.sources, probed)
    return found._replace(upstreams=MappingProxyType(upstreams))


def from_file(entries: Mapping[str, Upstream], environment: Environment, document: Document) -> Found:
    """What the file names; a key that it refers to must be there."""
    found = Found({}, [], {})
    upstreams: dict[str, UpstreamSettings] = {}
    for name, entry in entries.items():
        secret = environment.secret(entry.api_key_env) if entry.api_key_env else None
        upstreams[name] = made = _make(name, entry, secret, found.sources)
        if secret is None and (message := _key_missing(entry, made, environment)):
            found.problems.append(document.problem(("upstreams", name, "api_key_env"), message))
    return found._replace(upstreams=MappingProxyType(upstreams))


def _key_missing(entry: Upstream, made: UpstreamSettings, environment: Environment) -> str | None:
    if entry.api_key_env:
        in_file = entry.api_key_env + "_FILE"  # when that is set, what is wrong with it has been said
        return None if environment.names(in_file) else f"neither {entry.api_key_env} nor {in_file} is set"
    if made.base_urls == (ANTHROPIC_DEFAULT,):
        return "is required: name the variable that holds the key, like ANTHROPIC_API_KEY"
    return None


def _make(
    name: str,
    entry: Upstream,
    secret: tuple[SecretStr, str] | None,
    sources: dict[tuple[str, ...], str],
    probed: bool = False,
) -> UpstreamSettings:
    kind = KINDS[entry.kind]
    if secret:
        sources["upstreams", name, "api_key"] = secret[1]
    said = {key: getattr(entry.timeouts, key) for key in entry.timeouts.model_fields_set}
    return UpstreamSettings(
        name=name,
        kind=entry.kind,
        base_urls=entry.base_url or (kind.base_url or "",),
        api_key=secret[0] if secret else None,
        local=kind.local if entry.local is None else entry.local,
        max_concurrency=entry.max_concurrency or kind.max_concurrency,
        ceiling_said=entry.max_concurrency is not None,
        timeouts=kind.timeouts.model_copy(update=said),
        breaker=entry.breaker,
        cost_per_hour=entry.cost_per_hour,
        probed=probed,
    )
