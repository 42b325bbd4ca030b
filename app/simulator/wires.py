"""What differs between the four wires below the level of a message: how a stream is framed, where its content and its
end are, and how each server words an error. Pure tables and functions; faces and faults share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

Json = dict[str, Any]
SSE: Final = "text/event-stream; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error before it has a shape. `word` overrides the type the server uses for that status."""

    status: int
    message: str
    word: str | None = None
    param: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """`has_content` and `has_finish` look at one parsed frame of a stream; `error` makes an error's body."""

    kind: str
    stream_type: str
    separator: bytes
    encode: Callable[[Json], bytes]
    has_content: Callable[[Json], bool]
    has_finish: Callable[[Json], bool]
    error: Callable[[Problem], Json]

    def split(self, data: bytes) -> list[bytes]:
        """The frames in bytes that hold whole frames, each with its separator."""
        return [frame + self.separator for frame in data.split(self.separator) if frame]

    def decode(self, frame: bytes) -> Json | None:
        """The object in a frame; None where there is none (`[DONE]`, a comment)."""
        _, found, data = frame.partition(b"data: ") if self.separator == b"\n\n" else (b"", b"-", frame)
        try:
            value = orjson.loads(data) if found else None
        except orjson.JSONDecodeError:
            return None
        return value if isinstance(value, dict) else None

    def error_body(self, problem: Problem) -> bytes:
        return orjson.dumps(self.error(problem))

    def error_frame(self, problem: Problem) -> bytes:
        """The error as it comes inside a stream."""
        return self.encode(self.error(problem))


# --- framing --------------------------------------------------------------------------------------------------------


def _data(value: Json) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


def _line(value: Json) -> bytes:
    return orjson.dumps(value) + b"\n"


def _named(value: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(value.get("type", "message")).encode(), orjson.dumps(value))


# --- where content and end are --------------------------------------------------------------------------------------


def _chunk_content(value: Json) -> bool:
    fields = ("content", "reasoning", "reasoning_content", "tool_calls", "refusal")
    return any(choice["delta"].get(name) for choice in value.get("choices", ()) for name in fields)


def _chunk_finish(value: Json) -> bool:
    return any(choice.get("finish_reason") for choice in value.get("choices", ()))


def _ollama_content(value: Json) -> bool:
    message = value.get("message", {})
    return any(message.get(name) for name in ("content", "thinking", "tool_calls"))


def _ollama_finish(value: Json) -> bool:
    return value.get("done") is True


def _claude_content(value: Json) -> bool:
    return value.get("type") == "content_block_delta"


def _claude_finish(value: Json) -> bool:
    return value.get("type") == "message_delta"


# --- how each server words an error ---------------------------------------------------------------------------------

_OPENAI_TYPES: Final[Mapping[int, tuple[str, str | None]]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "billing_not_active"),
    403: ("permission_error", "model_not_allowed"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("service_unavailable", "overloaded"),
    529: ("service_unavailable", "overloaded"),
}
_VLLM_TYPES: Final = {
    401: "Unauthorized",
    404: "NotFoundError",
    500: "InternalServerError",
    503: "Service Unavailable",
}
_CLAUDE_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
REQUEST_ID: Final = "req_simulated"


def _openai_error(problem: Problem) -> Json:
    default = "server_error" if problem.status >= 500 else "invalid_request_error"
    kind, code = _OPENAI_TYPES.get(problem.status, (default, None))
    names = {"type": problem.word or kind, "param": problem.param, "code": problem.code or code}
    return {"error": {"message": problem.message, **names}}


def _vllm_error(problem: Problem) -> Json:
    kind = problem.word or _VLLM_TYPES.get(problem.status, "BadRequestError")
    return {"error": {"message": problem.message, "type": kind, "param": problem.param, "code": problem.status}}


def _ollama_error(problem: Problem) -> Json:
    return {"error": problem.message}


def _claude_error(problem: Problem) -> Json:
    default = "api_error" if problem.status >= 500 else "invalid_request_error"
    error: Json = {"type": problem.word or _CLAUDE_TYPES.get(problem.status, default), "message": problem.message}
    if problem.code:
        error["details"] = {"error_code": problem.code}
    return {"type": "error", "error": error, "request_id": REQUEST_ID}


OPENAI: Final = Wire("openai", SSE, b"\n\n", _data, _chunk_content, _chunk_finish, _openai_error)
VLLM: Final = Wire("vllm", SSE, b"\n\n", _data, _chunk_content, _chunk_finish, _vllm_error)
OLLAMA: Final = Wire("ollama", NDJSON, b"\n", _line, _ollama_content, _ollama_finish, _ollama_error)
CLAUDE: Final = Wire("anthropic", SSE, b"\n\n", _named, _claude_content, _claude_finish, _claude_error)
