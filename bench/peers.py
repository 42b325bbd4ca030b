"""The other gateways that are compared where they are installed, each as its own documents say it is to run.

Nothing is installed here: `bench/README.md` says how, into folders of these names in one folder.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Final

from bench.targets import BEARER, KEY, Target
from bench.workloads import PAUSES

_LITELLM_YAML: Final = f"""\
model_list:
  - model_name: "bench-*"
    litellm_params: {{model: "openai/bench-*", api_base: "{{upstream}}/v1", api_key: sk-up}}
general_settings: {{master_key: {KEY}, disable_spend_logs: true, disable_error_logs: true}}
litellm_settings: {{request_timeout: 600, set_verbose: false, telemetry: false}}
router_settings: {{num_retries: 0}}
"""
_LITELLM_ENVIRONMENT: Final = MappingProxyType(
    {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DONT_SHOW_FEEDBACK_BOX": "True",
        "LITELLM_TELEMETRY": "False",
        "NO_DOCS": "True",
        "NO_REDOC": "True",
        "NO_PROXY": "*",
    }
)

_TENSORZERO_TOML: Final = "[gateway]\nobservability.enabled = false\n" + "".join(
    f"""\
[models.{name}]
routing = ["up"]
[models.{name}.providers.up]
type = "openai"
model_name = "{name}"
api_base = "{{upstream}}/v1"
api_key_location = "none"
"""
    for name in PAUSES
)
_TENSORZERO_SERVE: Final = """\
import asyncio, sys, tensorzero


async def main(config, url_file):
    gateway = await tensorzero._start_http_gateway(
        config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=True
    )
    open(url_file, "w").write(gateway.base_url)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
"""


def litellm(folder: Path) -> Target:
    """It checks its master key; logs of spend are off."""
    serving = ("--host", "127.0.0.1", "--port", "{port}", "--num_workers", "1", "--keepalive_timeout", "600")
    return Target(
        "litellm",
        (str(folder / "bin" / "litellm"), "--config", "{run}/litellm.yaml", *serving),
        headers=(BEARER,),
        environment=_LITELLM_ENVIRONMENT,
        files={"litellm.yaml": _LITELLM_YAML},
    )


def portkey(folder: Path) -> Target:
    """It checks no key, prices nothing, logs nothing."""
    server = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Target(
        "portkey",
        ("node", str(server), "--headless", "--port={port}"),
        headers=("Authorization: Bearer sk-up", "x-portkey-provider: openai", "x-portkey-custom-host: {upstream}/v1"),
        environment={"NODE_ENV": "production"},
    )


def tensorzero(folder: Path) -> Target:
    """It checks no key, prices nothing, logs nothing; it chooses its port itself."""
    return Target(
        "tensorzero",
        (str(folder / "bin" / "python"), "{run}/serve.py", "{run}/tensorzero.toml", "{url_file}"),
        model="tensorzero::model_name::{model}",
        path="",
        environment={"RUST_LOG": "error"},
        files={"tensorzero.toml": _TENSORZERO_TOML, "serve.py": _TENSORZERO_SERVE},
    )


PEERS: Final = {"litellm": litellm, "portkey": portkey, "tensorzero": tensorzero}


def installed(folder: Path | None) -> list[Target]:
    """Those that have a folder of their name in it."""
    if folder is None:
        return []
    return [make(folder / name) for name, make in PEERS.items() if (folder / name).is_dir()]
