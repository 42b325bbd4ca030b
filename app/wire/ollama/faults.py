"""What Ollama's errors mean, as a reply of their own or as a line inside a 200.

Its shape is `{"error": "text"}`; newer releases hand on the error object of the llama-server underneath, as an object
or as JSON inside the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.core.errors import Broken, Busy, ContextLengthExceeded, GatewayError, UnsupportedParameter
from app.wire.errors import NO_HEADERS, clean, error_of, retry_after

CLIENT_CLOSED: Final = 499

_CONTEXT: Final = (
    "exceed_context_size",
    "exceeds the available context size",
    "context size has been exceeded",
    "longer than the context length",
    "exceeds the context length",
    "exceeds maximum context length",
)
_LACKS: Final[Mapping[str, str]] = {
    "does not support tools": "tools",
    "does not support thinking": "reasoning_effort",
    "think value": "reasoning_effort",
    "does not support chat": "model",
    "does not support generate": "model",
    "does not support embeddings": "model",
    "does not support image": "messages",
    "does not support vision": "messages",
    "image input is not supported": "messages",
    "logprobs are not supported": "logprobs",
}
"""Words of an error that says what a model cannot do -> the field of the request to name."""
_BUSY: Final = ("server busy", "maximum pending requests exceeded")


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """What a reply with another status than 200 means."""
    try:
        error = orjson.loads(body)
    except orjson.JSONDecodeError:
        error = body.decode("utf-8", "replace")
    return fault(error, status, headers)


def fault(error: Any, status: int | None = None, headers: Mapping[str, str] = NO_HEADERS) -> GatewayError:
    """The core error for an error's text or object; without a status, of one inside a 200."""
    fields = _unwrapped(error)
    message = fields.get("message")
    message = message if isinstance(message, str) else ""
    kind = fields.get("type")
    kind = kind if isinstance(kind, str) else None
    words = f"{kind} {message[:4096]}".lower()
    if any(word in words for word in _CONTEXT):
        return ContextLengthExceeded(_too_long(fields, message), param="messages")
    for lacking, param in _LACKS.items():
        if lacking in words:
            return UnsupportedParameter(clean(message), param=param)
    if any(word in words for word in _BUSY):
        return Busy("the upstream's queue is full", retry_after=retry_after(headers))
    if status == CLIENT_CLOSED:
        return Broken("the upstream cancelled the request")
    if status is None:
        status = 404 if message.startswith("model ") and "not found" in words else 500
    return error_of(status, message, headers, kind=kind)


def _unwrapped(error: Any) -> Mapping[str, Any]:
    """The innermost error object; a text becomes the `message` of one."""
    for _ in range(4):  # an object, a text of JSON within it, and once more each
        if isinstance(error, dict):
            if "error" not in error:
                return error
            error = error["error"]
        elif isinstance(error, str) and error.lstrip().startswith("{"):
            try:
                error = orjson.loads(error)
            except orjson.JSONDecodeError:
                break
        else:
            break
    return {"message": error if isinstance(error, str) else ""}


def _too_long(fields: Mapping[str, Any], message: str) -> str:
    sent, window = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if isinstance(sent, int) and isinstance(window, int):
        return f"the request has {sent} tokens, the model's context window is {window}"
    return clean(message) or "the request does not fit the model's context window"
