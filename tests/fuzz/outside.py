"""What strangers, operators and other programs hand in: files, variables, headers, keys, and the bytes of upstreams'
HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Final

import yaml

from app.access.idempotency import asked_of
from app.access.keys import KeyRing
from app.api.auth import Door, bearer
from app.api.streams import number_of
from app.api.terms import EFFECTIVE, read_terms
from app.config.file import parse
from app.config.imported import as_file
from app.config.litellm import read as read_litellm
from app.config.load import load
from app.config.problems import ConfigError
from app.core.caller import ANONYMOUS, Caller
from app.core.clock import SystemClock
from app.core.errors import BadReply, Broken
from app.core.secret import holds_key
from app.telemetry.traceparent import read_traceparent, trace_of
from app.wire.errors import LONGEST_WAIT, clean, retry_after
from tests.api.wire import Wire
from tests.config.test_load import CONTRACT
from tests.fuzz.mutating import in_bytes, in_yaml, pieces
from tests.fuzz.parser import Parser
from tests.upstreams.test_connection import CHUNKED, HEAD, PLAIN, connected, whole

ENVIRONS: Final = [
    b"REDIS_URL=rediss://u:p@h:6379/0?ssl_ca_certs=/x\nTIERWAY_PORT=8080\nTIERWAY_WORKERS=2\nFEATURE_STREAMING=50%\n",
    b"OLLAMA_BASE_URL=http://127.0.0.1:1\nVLLM_BASE_URL=http://a:1,http://b:2\nTIERWAY_LOG_LEVEL=info\nFEATURE_LOCK=true\n",
    b"ANTHROPIC_API_KEY=sk-x\nANTHROPIC_BASE_URL=https://[::1]:1/x\nTIERWAY_ADMIN_KEY=0123456789abcdef0123456789abcdef\n",
]
LITELLM: Final = [
    yaml.safe_dump(
        {
            "model_list": [
                {
                    "model_name": "small",
                    "litellm_params": {"model": "ollama/rnj-1", "api_base": "http://127.0.0.1:11434", "timeout": 30},
                    "model_info": {"max_input_tokens": 4096, "supports_vision": True},
                },
                {
                    "model_name": "large",
                    "litellm_params": {
                        "model": "anthropic/claude-opus-5-5",
                        "api_key": "os.environ/ANTHROPIC_API_KEY",
                        "input_cost_per_token": 4e-06,
                        "output_cost_per_token": 2e-05,
                    },
                },
                {"model_name": "azure", "litellm_params": {"model": "azure/g", "api_base": "https://a.example/openai"}},
            ],
            "litellm_settings": {"num_retries": 2, "fallbacks": [{"large": ["small"]}], "request_timeout": 60},
            "router_settings": {"routing_strategy": "cost-based-routing", "model_group_alias": {"gpt-4": "large"}},
            "general_settings": {"master_key": "sk-1234", "max_budget": 5, "budget_duration": "30d"},
        }
    ).encode(),
]
TRACES: Final = [
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more",
]
HEADERS: Final = [
    *(b"cost", b"privacy", b"0.05", b"30", b"new", b"batch", b"true", b"truncate", b"a-session", b"sub agent \xc3\xa9"),
    *(b"Wed, 21 Oct 2026 07:28:00 GMT", b"120", b"1.5", b"42", b"inf", b"1e3", b"9" * 50),
]
KEYS: Final = [b"Bearer tw-" + b"A" * 43, b"bearer sk-" + b"b" * 40, b"Basic dTpw", b"Bearer  ", b"tw-" + b"_" * 43]
REPLIES: Final = [
    PLAIN,
    CHUNKED,
    HEAD + b"connection: close\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED,
    b"HTTP/1.1 204 No Content\r\nset-cookie: a=b\r\n\r\n",
    HEAD + b"transfer-encoding: chunked\r\ntrailer: x\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
    HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\x1f\r\n0\r\n\r\n",
]
OURS: Final = sorted({*EFFECTIVE, b"traceparent", b"x-request-id", b"x-tierway-resumable", b"x-tierway-cache"})


def config(data: bytes, dice: Random) -> None:
    load({"TIERWAY_CONFIG": "/nowhere", "ANTHROPIC_API_KEY": "k"}, text=data)


def environ(data: bytes, dice: Random) -> None:
    """As a shell would hand it over: text, whatever its bytes."""
    rows = (line.partition("=") for line in data.decode("utf-8", "surrogateescape").replace("\x00", "").splitlines())
    load({name: value for name, _, value in rows if name and not name.endswith("_FILE")})


def litellm(data: bytes, dice: Random) -> None:
    """What comes of it is a file that loads: an import that ends in one the gateway refuses is none."""
    document = parse(data, "config.yaml")
    found = read_litellm(document, {})
    text = as_file(found)
    if not document.problems:
        load({"TIERWAY_CONFIG": "/nowhere", **dict.fromkeys(found.variables, "set")}, text=text.encode())


def traceparent(data: bytes, dice: Random) -> None:
    text = data.decode("latin-1")
    found = read_traceparent(text)
    if found is not None:
        assert read_traceparent(found.header) == found
    assert read_traceparent(trace_of(text).header) is not None


async def terms(data: bytes, dice: Random) -> None:
    """Any of our headers with any value, and several at once."""
    wire = Wire()
    wire.scope["headers"] = [(dice.choice(OURS), piece) for piece in pieces(dice, data)]
    read_terms(wire.inbound(), dice.choice((ANONYMOUS, Caller(key_id="k", name="k", privacy="local"))))


def others(data: bytes, dice: Random) -> None:
    """Headers of upstreams, and those that single endpoints read."""
    text = data.decode("latin-1")
    for headers in ({"retry-after": text}, {"retry-after-ms": text}, {"retry-after": text, "date": text}):
        wait = retry_after(headers)
        assert wait is None or 0 <= wait <= LONGEST_WAIT
    assert len(clean(text)) <= len(text) + 1_000
    assert 0 <= number_of("Last-Event-ID", text) < 10**15
    asked_of(ANONYMOUS, data, "/v1/\ud800", {b"x-tierway-strategy": data}, data)


def key(data: bytes, dice: Random) -> None:
    """Whatever a caller sends as its key, it is no key."""
    headers = {dice.choice((b"authorization", b"x-api-key")): data}
    bearer(headers)
    holds_key(data.decode("latin-1"))
    door = Door(lambda: KeyRing(SystemClock(), any_created=True), admin_key="k" * 32, open_at_first=False)
    enter = dice.choice((door.caller, door.viewer, door.admin))
    enter(headers, "192.0.2.1")
    raise AssertionError("it was let in")


async def http(data: bytes, dice: Random) -> None:
    """A reply as any upstream might send it, in any pieces, with or without its end."""
    connection, _ = connected()
    reading = asyncio.get_running_loop().create_task(whole(connection))
    try:
        for piece in pieces(dice, data):
            connection.data_received(piece)
            if dice.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection.connection_lost(None)
        async with asyncio.timeout(10):
            await reading
    finally:
        reading.cancel()
        with contextlib.suppress(BaseException):
            await reading


PARSERS: Final = (
    Parser("configurations", [CONTRACT.encode()], in_yaml, config, (ConfigError,)),
    Parser("configuration files", [CONTRACT.encode()], in_bytes, config, (ConfigError,)),
    Parser("environments", ENVIRONS, in_bytes, environ, (ConfigError,)),
    Parser("litellm configurations", LITELLM, in_yaml, litellm, ()),
    Parser("litellm files", LITELLM, in_bytes, litellm, ()),
    Parser("traceparent", TRACES, in_bytes, traceparent, ()),
    Parser("headers of ours", HEADERS, in_bytes, terms),
    Parser("other headers", HEADERS, in_bytes, others),
    Parser("keys", KEYS, in_bytes, key),
    Parser("replies in http", REPLIES, in_bytes, http, (BadReply, Broken)),
)
