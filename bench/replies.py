"""What the mock upstream answers, as bytes that are made once: the wires of OpenAI (and vLLM), Ollama and Claude.

Answers depend on the model and on the tokens of prompt and answer: a gateway may check what its upstream says it read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from bench.workloads import PAUSES

CREATED: Final = 1_780_000_000
DATE: Final = "2026-06-01T00:00:00Z"
TOKEN: Final = " word"
WINDOW: Final = 131_072


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream in chunked coding: its head with the frames that need no token, the frame of a token, and its end."""

    start: bytes
    token: bytes
    end: bytes


def plain(body: Any, status: str = "200 OK") -> bytes:
    content = orjson.dumps(body)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _stream(content_type: str, first: Iterable[bytes], token: bytes, last: Iterable[bytes]) -> Stream:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    start = head.encode() + b"".join(map(_chunk, first))
    return Stream(start, _chunk(token), b"".join(map(_chunk, last)) + b"0\r\n\r\n")


# --- OpenAI and vLLM -------------------------------------------------------------------------------------------------


@cache
def chat(model: str, prompt: int, tokens: int) -> bytes:
    message = {"role": "assistant", "content": TOKEN * tokens, "refusal": None}
    return plain(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": CREATED,
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _chat_usage(prompt, tokens),
        }
    )


@cache
def chat_stream(model: str, prompt: int, tokens: int, usage: bool) -> Stream:
    base = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": CREATED, "model": model}

    def frame(choices: list[Any], **more: Any) -> bytes:
        return b"data: %b\n\n" % orjson.dumps({**base, "choices": choices, **more})

    def choice(delta: dict[str, str], finish: str | None = None) -> bytes:
        more = {"usage": None} if usage else {}
        return frame([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], **more)

    last = [choice({}, "stop"), *([frame([], usage=_chat_usage(prompt, tokens))] if usage else []), b"data: [DONE]\n\n"]
    first = [choice({"role": "assistant", "content": ""})]
    return _stream("text/event-stream; charset=utf-8", first, choice({"content": TOKEN}), last)


def _chat_usage(prompt: int, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


# --- Ollama ----------------------------------------------------------------------------------------------------------


@cache
def ollama(model: str, prompt: int, tokens: int) -> bytes:
    return plain(_ollama_end(model, TOKEN * tokens, prompt, tokens))


@cache
def ollama_stream(model: str, prompt: int, tokens: int) -> Stream:
    message = {"role": "assistant", "content": TOKEN}
    token = {"model": model, "created_at": DATE, "message": message, "done": False}
    last = [_line(_ollama_end(model, "", prompt, tokens))]
    return _stream("application/x-ndjson", [], _line(token), last)


def _ollama_end(model: str, content: str, prompt: int, tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "created_at": DATE,
        "message": {"role": "assistant", "content": content},
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_000_000,
        "prompt_eval_count": prompt,
        "eval_count": tokens,
    }


def _line(value: Any) -> bytes:
    return orjson.dumps(value) + b"\n"


# --- Claude ----------------------------------------------------------------------------------------------------------


@cache
def messages(model: str, prompt: int, tokens: int) -> bytes:
    content = [{"type": "text", "text": TOKEN * tokens}]
    return plain(_message(model, content=content, stop_reason="end_turn", usage=_claude_usage(prompt, tokens)))


@cache
def messages_stream(model: str, prompt: int, tokens: int) -> Stream:
    def frame(kind: str, **more: Any) -> bytes:
        return f"event: {kind}\ndata: ".encode() + orjson.dumps({"type": kind, **more}) + b"\n\n"

    first = [
        frame("message_start", message=_message(model, content=[], stop_reason=None, usage=_claude_usage(prompt, 1))),
        frame("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    token = frame("content_block_delta", index=0, delta={"type": "text_delta", "text": TOKEN})
    last = [
        frame("content_block_stop", index=0),
        frame(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage=_claude_usage(prompt, tokens),
        ),
        frame("message_stop"),
    ]
    return _stream("text/event-stream; charset=utf-8", first, token, last)


def _message(model: str, **more: Any) -> dict[str, Any]:
    return {"id": "msg_bench", "type": "message", "role": "assistant", "model": model, "stop_sequence": None, **more}


def _claude_usage(prompt: int, tokens: int) -> dict[str, int]:
    return {"input_tokens": prompt, "output_tokens": tokens}


# --- what there is ---------------------------------------------------------------------------------------------------


def _listed(name: str) -> dict[str, Any]:
    """One entry for OpenAI, vLLM and Claude: each reads its own fields."""
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": "bench",
        "max_model_len": WINDOW,
        "type": "model",
        "display_name": name,
        "created_at": DATE,
        "max_input_tokens": WINDOW,
        "max_tokens": WINDOW,
    }


_SHOWN: Final[dict[str, Any]] = {
    "details": {"format": "gguf", "family": "bench", "parameter_size": "8.0B"},
    "model_info": {"general.architecture": "bench", "bench.context_length": WINDOW},
    "capabilities": ["completion", "tools"],
    "modified_at": DATE,
}
_TAGS: Final = [{"name": name, "model": name, "modified_at": DATE, "size": 1, "digest": "0"} for name in PAUSES]
_RUNNING: Final = [{**tag, "context_length": 32_768, "expires_at": DATE} for tag in _TAGS]

ABOUT: Final[dict[bytes, bytes]] = {
    b"/v1/models": plain(
        {
            "object": "list",
            "data": [_listed(name) for name in PAUSES],
            "has_more": False,
            "first_id": None,
            "last_id": None,
        }
    ),
    b"/api/tags": plain({"models": _TAGS}),
    b"/api/show": plain(_SHOWN),
    b"/api/ps": plain({"models": _RUNNING}),
    b"/api/version": plain({"version": "0.33.0"}),
}
"""What is answered without a look at the request."""
NOT_FOUND: Final = plain({"error": {"message": "not found", "type": "invalid_request_error"}}, "404 Not Found")
BAD_BODY: Final = plain({"error": {"message": "bad body", "type": "invalid_request_error"}}, "400 Bad Request")
