"""Errors of the Messages API, both ways: what its error bodies mean to us, and ours as it would write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from app.core.errors import AccountFault, BadReply, ContextLengthExceeded, GatewayError, Rejected
from app.wire import fields
from app.wire.errors import NO_HEADERS, STATUS_OF_WORD, clean, error_of

_SPENT_CODES: Final = frozenset({"enforced_spend_limit_reached", "contract_spend_limit_reached"})
_SPENT_WORDS: Final = ("spend limit", "api usage limits", "credit balance")
_OVERFLOW_WORDS: Final = ("prompt is too long", "exceed context limit", "exceeds the context window")
_REQUEST_STATUS: Final = frozenset({400, 422, 429})

_TYPE_OF_STATUS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """What a reply with another status than 200 means."""
    try:
        parsed = fields.parse(body)
    except ValueError:
        parsed = None
    return error_in(parsed, status=status, headers=headers)


def error_in(body: Any, *, status: int | None = None, headers: Mapping[str, str] = NO_HEADERS) -> GatewayError:
    """The core error for an error body. Without a status (an error inside a 200) its type decides."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        error = {"message": error}
    message, kind = (value if isinstance(value, str) else "" for value in (error.get("message"), error.get("type")))
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    code = code if isinstance(code, str) else None
    if status is None:
        status = STATUS_OF_WORD.get(kind, 500)
    words = message[:4096].lower()
    if status in _REQUEST_STATUS and (code in _SPENT_CODES or any(each in words for each in _SPENT_WORDS)):
        return AccountFault("the upstream refused for reasons of spend or billing")
    if status == 400 and any(each in words for each in _OVERFLOW_WORDS):
        return ContextLengthExceeded(clean(message), param="messages")
    return error_of(status, message, headers, code=code, kind=kind or None)


def write_error(error: GatewayError) -> bytes:
    """The error as a JSON body, and as the data of an `error` event."""
    status = error.upstream_status if isinstance(error, Rejected) else error.status
    kind = "api_error" if status >= 500 else "invalid_request_error"
    message = error.message.encode("utf-8", "replace").decode()
    body = {"type": "error", "error": {"type": _TYPE_OF_STATUS.get(status, kind), "message": message}}
    return orjson.dumps(body)


def parse(data: bytes) -> dict[str, Any]:
    """A JSON object from an upstream. Raises `BadReply` for anything else."""
    try:
        value = fields.parse(data)
    except ValueError:
        raise BadReply("the upstream sent broken JSON") from None
    if not isinstance(value, dict):
        raise BadReply("the upstream sent something else than a JSON object")
    return value
