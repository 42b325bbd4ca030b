"""Every dialect, both ways: what clients send, and what upstreams answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from random import Random
from types import ModuleType
from typing import Any, Final, cast

import orjson

from app.core.card import Card
from app.core.errors import GatewayError, InternalError
from app.core.events import Event, Fault, Start, fold
from app.core.request import EmbeddingRequest, Request, Terms
from app.routing.features import asked
from app.sessions.canonical import digest
from app.upstreams.vllm_state import read_metrics, says_sleeping
from app.wire import chat, embeddings, messages, ollama
from app.wire.codec import ClientCodec, Limits, Reader, UpstreamCodec
from app.wire.lines import LineSplitter
from app.wire.objects import read_models
from app.wire.ollama.models import read_running, read_show, read_tags, read_version
from app.wire.sse import SseDecoder
from tests.fuzz.mutating import in_bytes, in_json, in_lines, pieces
from tests.fuzz.parser import Parser
from tests.wire import chat_cases, messages_cases, ollama_cases
from tests.wire import test_embeddings as embedding_cases

TERMS: Final = Terms("req-1", "req-1")
CLAUDES: Final = [messages_cases.card(name) for name in ("claude-opus-5-5", "claude-haiku-4-5-20251001")]
TARGETS: Final[Sequence[tuple[ModuleType, Card]]] = (
    (chat, chat_cases.card()),
    (chat, chat_cases.card("rnj-1", reasoning_field="reasoning_content")),
    (ollama, ollama_cases.card()),
    *((messages, card) for card in CLAUDES),
)
TOOL: Final = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
RICH: Final[dict[str, Any]] = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ],
    "tools": [TOOL],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_completion_tokens": 100,
    "temperature": 0.5,
    "stop": ["x"],
    "logprobs": True,
    "top_logprobs": 2,
    "seed": 1,
    "metadata": {"a": "b"},
    "reasoning_effort": "low",
}
OLLAMA_REQUESTS: Final = [
    {
        "model": "rnj-1",
        "messages": [
            {"role": "user", "content": "Hello", "images": ["iVBORw0KGgo="]},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "42", "tool_name": "f"},
        ],
        "tools": [TOOL],
        "format": {"type": "object"},
        "options": {"temperature": 0.5, "num_predict": 5, "num_ctx": 4096, "stop": ["x"]},
        "think": "low",
        "stream": False,
    },
]


def chat_requests() -> list[bytes]:
    return [orjson.dumps({**chat_cases.SAY, **each.request}) for each in chat_cases.conversations()] + [
        orjson.dumps(RICH)
    ]


def ask_of(codec: ModuleType, data: bytes, dice: Random) -> None:
    """What can be read can be looked at, kept, and sent to every kind of upstream; each may refuse it, and says why."""
    request = cast(ClientCodec, codec).read_request(data, TERMS, Limits())
    asked(request)
    for message in request.body.get("messages", ()) if request.dialect == "chat" else ():
        digest(message)
    for to, card in TARGETS:
        with contextlib.suppress(GatewayError):
            orjson.loads(cast(UpstreamCodec, to).write_request(request, card).body)


def streamed(codec: ModuleType, request: Request, card: Card, data: bytes, dice: Random) -> None:
    """However the bytes come, they come to the same; and what was read until an error can be sent to a client."""
    split = pieces(dice, data)
    events, error = _read(_reader(codec, request, card), split)
    whole, other = _read(_reader(codec, request, card), [data])
    assert (error is None) == (other is None), (error, other)
    if error is None:
        assert chat_cases.as_one(events) == chat_cases.as_one(whole)
    render(events, request, error)
    if error is not None:
        raise error


def replied(codec: ModuleType, request: Request, card: Card, data: bytes, dice: Random) -> None:
    made = cast(UpstreamCodec, codec)
    render(made.read_reply(data, request, card, made.write_request(request, card)), request, None)


def refused(codec: ModuleType, data: bytes, dice: Random) -> None:
    """Every status with every body is an error that a client may see."""
    status = dice.choice((201, 301, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503, 529, 599))
    headers = {
        "retry-after": dice.choice(("1", "-1", "nan", "1e999", "Fri, 32 Nov 2026 00:00:00 GMT", "\x00", "9" * 400))
    }
    error = cast(UpstreamCodec, codec).read_error(status, headers, data)
    assert not isinstance(error, InternalError)
    raise error


def _reader(codec: ModuleType, request: Request, card: Card) -> Reader:
    made = cast(UpstreamCodec, codec)
    return made.reader(request, card, made.write_request(request, card))


def _read(reader: Reader, split: Iterable[bytes]) -> tuple[list[Event], GatewayError | None]:
    events: list[Event] = []
    try:
        for piece in split:
            events += reader.feed(piece)
        events += reader.end()
    except GatewayError as error:
        return events, error
    return events, None


def render(events: Sequence[Event], request: Request, error: GatewayError | None) -> None:
    """In every dialect that clients speak here or at a simulator."""
    for codec in (chat, messages, ollama):
        writer = cast(ClientCodec, codec).writer(request)
        for event in events:
            writer.write(event)
        writer.write(Fault(error)) if error is not None else writer.end()
        if error is None:
            orjson.loads(cast(ClientCodec, codec).write_reply(fold(events), request))
    assert not events or isinstance(events[0], Start)


def sse(data: bytes, dice: Random) -> None:
    split, whole = SseDecoder(65_536), SseDecoder(65_536)
    frames = [frame for piece in pieces(dice, data) for frame in split.feed(piece)] + split.end()
    assert frames == whole.feed(data) + whole.end()


def lines(data: bytes, dice: Random) -> None:
    split, whole = LineSplitter(65_536), LineSplitter(65_536)
    found = [line for piece in pieces(dice, data) for line in split.feed(piece)] + split.end()
    assert found == whole.feed(data) + whole.end()


def embedding_ask(data: bytes, dice: Random) -> None:
    request = embeddings.read_request(data, TERMS)
    for to in (embeddings, ollama):
        with contextlib.suppress(GatewayError):
            made = to.write_request if to is embeddings else to.write_embed
            orjson.loads(made(request, embedding_cases.CARD).body)


def embedding_reply(request: EmbeddingRequest, data: bytes, dice: Random) -> None:
    orjson.loads(embeddings.write_reply(embeddings.read_reply(data, request, embedding_cases.CARD), request))


def ollama_embedding_reply(request: EmbeddingRequest, data: bytes, dice: Random) -> None:
    outgoing = ollama.write_embed(request, embedding_cases.CARD)
    orjson.loads(embeddings.write_reply(ollama.read_embed(data, request, embedding_cases.CARD, outgoing), request))


def about_models(data: bytes, dice: Random) -> None:
    """All that is asked of upstreams besides answers."""
    read_metrics(data)
    says_sleeping(200, data)
    for read in (read_models, read_show, read_tags, read_running, read_version):
        with contextlib.suppress(GatewayError):
            read(data)


CHAT: Final = chat_cases.ask(**{key: value for key, value in RICH.items() if key not in ("model", "stop")})
TOOLS: Final = chat_cases.ask(**{name: RICH[name] for name in ("messages", "tools", "tool_choice")})
CLAUDE: Final = messages_cases.ask(stream=True)
OLLAMA: Final = ollama_cases.ask()
TEXTS: Final = embedding_cases.ask(["one", "two"], dimensions=2)

CHAT_REPLIES: Final = chat_cases.conversations()
CLAUDE_REPLIES: Final = [messages_cases.golden(name) for name in messages_cases.GOLDEN]
OLLAMA_REPLIES: Final = [ollama_cases.golden(path) for path in ollama_cases.GOLDEN]
ERRORS: Final = [
    b'{"error":{"message":"no","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}',
    b'{"type":"error","error":{"type":"overloaded_error","message":"busy"},"request_id":"r"}',
    b'{"error":"model not found, try pulling it first"}',
    b'{"detail":[{"loc":["body","messages"],"msg":"field required","type":"value_error"}]}',
    b'[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]',
    b"<html><body>502 Bad Gateway</body></html>",
]
ABOUT: Final = [
    b'{"object":"list","data":[{"id":"m","created":1,"owned_by":"o","max_model_len":4096,"capabilities":{"a":{"b":true}}}]}',
    b'{"models":[{"name":"rnj-1","modified_at":"2026-08-21T10:00:00Z","context_length":4096,"remote_host":""}]}',
    b'{"details":{"family":"l","parameter_size":"8B"},"model_info":{"general.architecture":"l","l.context_length":8192},'
    b'"parameters":"num_ctx    8192","capabilities":["tools"],"license":"MIT"}',
    b'{"version":"0.33.2"}',
    b'{"is_sleeping":true}',
    b'vllm:num_requests_waiting{engine="0"} 3.0\nvllm:engine_sleep_state{sleep_state="awake"} 1.0\n',
]
CLAUDE_REQUESTS: Final = [
    messages.write_request(messages_cases.ask(), CLAUDES[0]).body,
    messages.write_request(TOOLS, CLAUDES[1]).body,
]


def _json(values: Sequence[Any]) -> list[bytes]:
    return [orjson.dumps(value) for value in values]


PARSERS: Final = (
    Parser("chat requests", chat_requests(), in_json, partial(ask_of, chat)),
    Parser("messages requests", CLAUDE_REQUESTS, in_json, partial(ask_of, messages)),
    Parser("ollama requests", _json(OLLAMA_REQUESTS), in_json, partial(ask_of, ollama)),
    Parser(
        "embeddings requests", _json([{"model": "e5", "input": ["a", "b"], "dimensions": 2}]), in_json, embedding_ask
    ),
    Parser(
        "chat streams", [e.stream for e in CHAT_REPLIES], in_lines, partial(streamed, chat, CHAT, chat_cases.card())
    ),
    Parser(
        "messages streams", [e[0] for e in CLAUDE_REPLIES], in_lines, partial(streamed, messages, CLAUDE, CLAUDES[0])
    ),
    Parser(
        "ollama streams",
        [ollama_cases.lines(*each["stream"]) for each in OLLAMA_REPLIES],
        in_lines,
        partial(streamed, ollama, OLLAMA, ollama_cases.card()),
    ),
    Parser(
        "chat replies",
        _json([each.reply for each in CHAT_REPLIES]),
        in_json,
        partial(replied, chat, CHAT, chat_cases.card()),
    ),
    Parser(
        "messages replies",
        _json([each[1]["reply"] for each in CLAUDE_REPLIES]),
        in_json,
        partial(replied, messages, CLAUDE, CLAUDES[0]),
    ),
    Parser(
        "ollama replies",
        _json([each["reply"] for each in OLLAMA_REPLIES]),
        in_json,
        partial(replied, ollama, OLLAMA, ollama_cases.card()),
    ),
    Parser("chat errors", ERRORS, in_json, partial(refused, chat)),
    Parser("messages errors", ERRORS, in_json, partial(refused, messages)),
    Parser("ollama errors", ERRORS, in_json, partial(refused, ollama)),
    Parser("embeddings replies", [embedding_cases.reply([1, 2], [3, 4])], in_json, partial(embedding_reply, TEXTS)),
    Parser(
        "ollama embeddings",
        [b'{"embeddings":[[1,2],[3,4]],"prompt_eval_count":3}'],
        in_json,
        partial(ollama_embedding_reply, TEXTS),
    ),
    Parser("what upstreams say of models", ABOUT, in_json, about_models),
    Parser("server-sent events", [e.stream for e in CHAT_REPLIES], in_bytes, sse),
    Parser("lines", [ollama_cases.lines(*each["stream"]) for each in OLLAMA_REPLIES], in_bytes, lines),
)
