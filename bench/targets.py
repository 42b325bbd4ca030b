"""The gateways that are compared: Tierway in some variants, nginx where it is installed, any other by its command.

A target is data; starting and stopping it is the business of `running`.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from app.config.features import FEATURES
from bench.workloads import PAUSES

DIRECT: Final = "direct"
KEY: Final = "sk-bench"
ADMIN_KEY: Final = "bench-7f3a19c0d2e84b65"
BEARER: Final = f"Authorization: Bearer {KEY}"


@dataclass(frozen=True, slots=True)
class Target:
    """One gateway. In `command`, `environment`, `files` and `headers` `{port}`, `{upstream}`, `{run}` (a folder of its
    own) and `{url_file}` are filled in, in `model` `{model}`. Without a command it is the upstream itself. `kind` is
    the wire of the upstream behind it. `key` is what is asked of Tierway for a key of each model, with `{model}`; from
    then on every request needs one."""

    name: str
    command: tuple[str, ...] = ()
    kind: str = "openai"
    model: str = "{model}"
    path: str = "/v1"
    headers: tuple[str, ...] = (BEARER,)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    key: Mapping[str, Any] | None = None

    @property
    def writes_url(self) -> bool:
        """Whether it chooses its port itself and tells it in a file."""
        return any("{url_file}" in part for part in self.command)


def filled(text: str, values: Mapping[str, str]) -> str:
    """Only the known names are filled in: other braces belong to somebody's configuration."""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


# --- what is always there --------------------------------------------------------------------------------------------

MOST_CALLS: Final = 4_000
MOST_A_MINUTE: Final = 60_000_000
LONGEST_ANSWER: Final = 4_096
_UPSTREAM: Final = "upstreams:\n  bench: {{kind: {kind}, base_url: '{{upstream}}', max_concurrency: {calls}{more}}}\n"
_ROOM: Final = "limits: {{in_flight: {calls}}}\n"
_PRICED: Final = (
    _ROOM
    + "budgets: [{{scope: global, period: day, limit: 1000000}}]\nmodels:\n"
    + "".join(
        f"  bench/{name}: {{{{price: {{{{input: 1.0, output: 2.0}}}}, max_output: {LONGEST_ANSWER}}}}}\n"
        for name in PAUSES
    )
)
_KEY: Final[Mapping[str, Any]] = MappingProxyType(
    {"name": "bench {model}", "models": ["bench/{model}"], "requests_per_minute": MOST_A_MINUTE}
)
"""It may use one model, so that `auto` is as fast or slow as the workload wants."""

_NGINX_CONF: Final = """\
daemon off;
worker_processes 1;
pid {run}/nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path {run}/body;
  proxy_temp_path {run}/proxy;
  fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi;
  scgi_temp_path {run}/scgi;
  keepalive_requests 1000000000;
  client_body_buffer_size 256k;
  client_max_body_size 64m;
  map $http_authorization $known { default 0; "Bearer sk-bench" 1; }
  upstream models { server {upstream_host}; keepalive 4096; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:{port} backlog=4096;
    location /v1/ {
      if ($known = 0) { return 401; }
      proxy_pass http://models;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
"""


def tierway(name: str, kind: str = "openai", *, plain: bool = False) -> Target:
    """Tierway over one kind of upstream, with all features on: the model is `auto`, the key is checked and has a rate
    limit, the model has a price, and there is a budget for all. So each request is classified, planned, admitted and
    settled in the embedded store, counted and logged. `plain`: a free model by its name, without a key."""
    more = ", api_key_env: BENCH_KEY" if kind == "anthropic" else ""
    text = _UPSTREAM + (_ROOM if plain else _PRICED)
    return Target(
        name,
        (str(Path(sys.executable).with_name("tierway")), "serve", "--config", "{run}/tierway.yaml"),
        kind,
        "{model}" if plain else "auto",
        environment={
            "TIERWAY_PORT": "{port}",
            "TIERWAY_DATA_DIR": "{run}/data",
            "TIERWAY_ADMIN_KEY": ADMIN_KEY,
            "BENCH_KEY": KEY,
        },
        files={
            "tierway.yaml": text.format(kind=kind, calls=MOST_CALLS, more=more + (", local: true" if plain else ""))
        },
        key=None if plain else _KEY,
    )


def switched_off(name: str) -> Target:
    """The plain one with every flag off, which is to cost no more than that; but for STREAMING, without which a stream
    is one chunk and cannot be compared."""
    plain = tierway(name, plain=True)
    flags = {f"FEATURE_{flag}": "false" for flag in FEATURES if flag != "STREAMING"}
    return replace(plain, environment={**plain.environment, **flags})


def nginx() -> Target:
    """What a proxy in C costs that passes bytes on and compares one key: the floor."""
    return Target("nginx", ("nginx", "-c", "{run}/nginx.conf", "-p", "{run}"), files={"nginx.conf": _NGINX_CONF})


def standard() -> list[Target]:
    return [
        Target(DIRECT),
        *([nginx()] if shutil.which("nginx") else []),
        tierway("tierway"),
        tierway("tierway-plain", plain=True),
        switched_off("tierway-off"),
        tierway("tierway-ollama", "ollama"),
        tierway("tierway-claude", "anthropic"),
    ]


STANDARD_NAMES: Final = (DIRECT, "nginx", "tierway", "tierway-plain")
"""Those that run when none are named; `make bench` is to stay below three minutes."""

# --- any other -------------------------------------------------------------------------------------------------------


def named(pair: str) -> tuple[str, str]:
    """`NAME=VALUE` of the command line. Raises `ValueError`."""
    name, found, value = pair.partition("=")
    if not found or not name or not value:
        raise ValueError(f"{pair!r} is not like NAME=VALUE")
    return name, value


def others(
    commands: Iterable[str], headers: Sequence[str], models: Sequence[str], paths: Sequence[str]
) -> list[Target]:
    """Targets of the command line. Raises `ValueError` for what belongs to none of them."""
    found = {name: Target(name, tuple(shlex.split(command))) for name, command in map(named, commands)}
    said: dict[str, list[str]] = {}
    for name, header in map(named, headers):
        said.setdefault(_known(found, name), []).append(header)
    for name, lines in said.items():
        found[name] = replace(found[name], headers=tuple(lines))
    for name, model in map(named, models):
        found[_known(found, name)] = replace(found[name], model=model)
    for name, path in map(named, paths):
        found[_known(found, name)] = replace(found[name], path=path.rstrip("/"))
    for target in found.values():
        if not target.writes_url and not any("{port}" in part for part in target.command):
            raise ValueError(f"the command of {target.name} says neither {{port}} nor {{url_file}}")
    return list(found.values())


def _known(found: Mapping[str, Target], name: str) -> str:
    if name not in found:
        raise ValueError(f"{name} is no --target")
    return name


def chosen(targets: Sequence[Target], only: str | None, added: Sequence[Target]) -> list[Target]:
    """Those named in `only`, else the standard ones and all that were added. Raises `ValueError`."""
    every = {target.name: target for target in (*targets, *added)}
    names = list(every) if only is None else only.split(",")
    if missing := [name for name in names if name not in every]:
        raise ValueError(f"no target {', '.join(missing)}; there are {', '.join(every)}")
    wanted = set(names) if only is not None else {*STANDARD_NAMES, *(target.name for target in added)}
    return [target for name, target in every.items() if name in wanted]
