"""What the token paths look like in the OpenAPI document, and where a key is wanted. They are plain ASGI and the keys
are looked at by ourselves, so FastAPI cannot tell by itself."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI

from app.api.statuses import described, document_errors
from app.api.terms import CONTEXTS, PRIORITIES, TIMEOUT_MAX_SECONDS
from app.routing.registry import STRATEGIES

Json = dict[str, Any]

ERRORS: Final = {
    "400": "The request is wrong: `error.param` names the field.",
    "401": "The API key is missing or not valid.",
    "403": "The key may not use this model.",
    "404": "There is no such model.",
    "409": "The first request with this idempotency key is still being answered; see `retry-after`.",
    "413": "The body is too large.",
    "422": "The idempotency key was used for another request, or its answer was too large to be kept.",
    "429": "A limit of the key is reached, or every candidate is throttled; see `retry-after`.",
    "502": "Every candidate failed; the message says what was tried.",
    "503": "No upstream, overloaded, or shutting down; see `retry-after`.",
    "504": "No candidate answered in time.",
}
TOKEN_PATHS: Final = ("/v1/chat/completions", "/v1/embeddings", "/v1/route")
"""First in the document: what people come for."""
TEXT: Final[Json] = {"type": "string", "minLength": 1, "maxLength": 256}
USD: Final[Json] = {"type": "number", "minimum": 0, "maximum": 1_000_000}
TRUTH: Final[Json] = {"enum": ["true", "false"]}
HEADERS: Final[dict[str, tuple[str, Json]]] = {
    "x-request-id": ("An id of your own for this request; it is in the reply and in our log.", TEXT),
    "idempotency-key": (
        "A word of yours for this request: asked again with it, the first answer comes again.",
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
    ),
    "x-tierway-strategy": ("How `auto` chooses.", {"enum": [*STRATEGIES]}),
    "x-tierway-timeout": (
        "Seconds this request may take in all.",
        {"type": "number", "exclusiveMinimum": 0, "maximum": TIMEOUT_MAX_SECONDS},
    ),
    "x-tierway-max-cost": ("USD that this request and all it causes may cost.", USD),
    "x-tierway-session-max-cost": ("USD that its session may cost in all.", USD),
    "x-tierway-agent": ("The type of agent that asks, for the log.", TEXT),
    "x-tierway-priority": ("Who waits for whom where there is a line.", {"enum": [*PRIORITIES]}),
    "x-tierway-session": ("The conversation this goes on with, kept by the gateway; `new` makes one.", TEXT),
    "x-tierway-resumable": (
        "`true`: the stream can be read on, at `/v1/streams/{id}`, after its connection broke.",
        TRUTH,
    ),
    "x-tierway-continue": ("`true`: another model may go on with an answer that broke off.", TRUTH),
    "x-tierway-context": ("`truncate`: shorten what fits no window, instead of refusing it.", {"enum": [*CONTEXTS]}),
}
PART: Final[Json] = {
    "anyOf": [
        {
            "type": "object",
            "required": ["type", "text"],
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        },
        {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": ["image_url", "input_audio", "file", "refusal"]}},
        },
    ]
}
CONTENT: Final[Json] = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": PART}]}
CALL: Final[Json] = {
    "type": "object",
    "required": ["id", "type", "function"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name", "arguments"],
            "properties": {"name": {"type": "string", "minLength": 1}, "arguments": {"type": "string"}},
        },
    },
}
SAID: Final[Json] = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": {"enum": ["system", "developer", "user"]}, "content": CONTENT},
}
ANSWERED: Final[Json] = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"const": "assistant"},
        "content": {"anyOf": [CONTENT, {"type": "null"}]},
        "tool_calls": {"type": "array", "items": CALL},
    },
}
RESULT: Final[Json] = {
    "type": "object",
    "required": ["role", "content", "tool_call_id"],
    "properties": {
        "role": {"const": "tool"},
        "content": CONTENT,
        "tool_call_id": {"type": "string", "minLength": 1},
    },
}
MESSAGE: Final[Json] = {"anyOf": [SAID, ANSWERED, RESULT]}
TOOL: Final[Json] = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1}, "parameters": {"type": "object"}},
        },
    },
}
FORMAT: Final[Json] = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}, "json_schema": {"type": "object"}},
}
CHAT: Final[Json] = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": True,
    "description": "OpenAI's chat request; every parameter of it is taken, unknown ones reach upstreams that speak it.",
    "properties": {
        "model": {"type": "string", "description": "`auto`, an id of /v1/models, or an alias.", "examples": ["auto"]},
        "messages": {"type": "array", "minItems": 1, "items": MESSAGE},
        "stream": {"type": "boolean", "default": False},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "tools": {"type": "array", "items": TOOL},
        "response_format": FORMAT,
        "reasoning_effort": {"enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max"]},
    },
    "example": {"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]},
}
TOKEN: Final[Json] = {"type": "integer", "minimum": 0}
INPUT: Final[Json] = {"anyOf": [{"type": "string", "minLength": 1}, TOKEN, {"type": "array", "items": TOKEN}]}
EMBEDDINGS: Final[Json] = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": {"type": "string", "examples": ["tierway/static"]},
        "input": {
            "description": "A text, texts, or token lists.",
            "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": INPUT}],
        },
        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        "dimensions": {"type": "integer", "minimum": 1},
    },
    "example": {"model": "tierway/static", "input": "Hello!"},
}
KEYS: Final[Json] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key; none is needed while none was ever made."},
    "admin": {"type": "http", "scheme": "bearer", "description": "The key of TIERWAY_ADMIN_KEY."},
}
KEY_OF_PATHS: Final = {"v1": "key", "admin": "admin"}
"""Which of them, by how a path begins."""


ROUTED: Final[Json] = {
    "type": "object",
    "description": "Which model would answer, and why. What is not known is null.",
    "properties": {
        "score": {"type": ["number", "null"], "description": "How hard the request looks, 0 to 1."},
        "tier": {"type": ["string", "null"], "description": "simple, moderate, complex or very_complex."},
        "task_type": {"type": ["string", "null"]},
        "confidence": {"type": ["number", "null"]},
        "strategy": {"type": "string"},
        "model": {"type": "string", "description": "The one that would be asked first."},
        "memory_hits": {"type": "integer"},
        "explanation": {"type": "string", "description": "The same in words."},
        "candidates": {
            "type": "array",
            "description": "In the order in which they would be tried.",
            "items": {
                "type": "object",
                "properties": {
                    "model": {"type": "string"},
                    "cost_usd": {"type": ["number", "null"]},
                    "latency_ms": {"type": ["integer", "null"], "description": "To the first token."},
                    "predicted": {"type": ["number", "null"], "description": "Success to expect, 0 to 1."},
                    "reason": {"type": "string"},
                },
            },
        },
        "excluded": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"model": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}


def document_token_paths(app: FastAPI) -> None:
    """Adds them, and the keys, to the document FastAPI makes."""
    made = app.openapi

    def openapi() -> Json:
        document = made()
        made_here = ({"post": _chat()}, {"post": _embeddings()}, {"post": _route()})
        document["paths"] = {**dict(zip(TOKEN_PATHS, made_here, strict=True)), **document["paths"]}
        document.setdefault("components", {})["securitySchemes"] = KEYS
        for path, operations in document["paths"].items():
            if key := KEY_OF_PATHS.get(path.split("/")[1]):
                for operation in operations.values():
                    operation["security"] = [{key: []}]
        document_errors(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _chat() -> Json:
    reply = {
        "application/json": {"schema": {"type": "object", "description": "OpenAI's chat.completion."}},
        "text/event-stream": {"schema": {"description": "With `stream`: a chat.completion.chunk in each event."}},
    }
    return _operation("Answer a conversation", "chat", CHAT, reply)


def _embeddings() -> Json:
    reply = {"application/json": {"schema": {"type": "object", "description": "OpenAI's list of embeddings."}}}
    return _operation("Embed texts", "embeddings", EMBEDDINGS, reply)


def _route() -> Json:
    reply = {"application/json": {"schema": ROUTED}}
    return _operation("Say which model would answer a chat request, and why; nothing is called", "chat", CHAT, reply)


def _operation(summary: str, tag: str, body: Json, reply: Json) -> Json:
    return {
        "summary": summary,
        "tags": [tag],
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": words}
            for name, (words, schema) in HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "The answer", "content": reply}, **described(ERRORS)},
    }
