"""What an upstream's failure means, whatever its dialect: one table from HTTP status to core error, one from error
words to status, the reading of Retry-After, and the cleaning of messages that a caller may see.

Each codec finds the pieces of its own error shape and hands them to `error_of` or `error_from`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from app.core.errors import (
    AccountFault,
    BadReply,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    Rejected,
    RequestTooLarge,
    ServerFault,
    Throttled,
    TimedOut,
)

MESSAGE_LIMIT: Final = 500
LONGEST_WAIT: Final = 86_400.0
NO_HEADERS: Final[Mapping[str, str]] = {}

STATUS_OF_WORD: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "bad_request": 400,
    "bad request": 400,
    "exceed_context_size_error": 400,
    "context_length_exceeded": 400,
    "invalid_value": 400,
    "unprocessableentityerror": 422,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthorized": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "model_not_found": 404,
    "timeout_error": 504,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "tokens": 429,
    "requests": 429,
    "overloaded_error": 529,
    "overloaded": 503,
    "service_unavailable": 503,
    "service unavailable": 503,
    "unavailable_error": 503,
    "slow_down": 503,
}
"""HTTP status of the `type` or `code` words that servers put into error objects; all lower case."""

_SPENT: Final = frozenset({400, 413, 422, 429})
_OVERFLOW: Final = frozenset({400, 413, 422, 500})  # some servers know an overflow only as a crash
_ACCOUNT: Final[Mapping[int, str]] = {
    401: "the upstream did not accept our credentials",
    402: "the upstream refused for reasons of billing",
    403: "the upstream did not permit this",
    404: "the upstream does not have this model or endpoint",
    405: "the upstream does not have this endpoint",
}
_QUOTA_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "enforced_spend_limit_reached",
    }
)
_QUOTA_WORDS: Final = (
    "exceeded your current quota",
    "plan and billing",
    "credit balance is too low",
    "spend limit",
    "specified api usage limits",
)
_CONTEXT_WORDS: Final = (
    "context_length_exceeded",
    "exceed_context_size",
    "maximum context length",
    "context length currently available",
    "exceeds the context length",
    "exceeds the available context size",
    "exceed context window",
    "exceeds context window",
    "prompt is too long",
    "prompt is longer than the context",
    "longer than the maximum model length",
)
_SECRET: Final = re.compile(
    r"(?P<key>\bsk-[\w*.-]+)"
    r"|[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>]+"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
    r"|\[[0-9a-f:]*:[0-9a-f:]*\](?::\d+)?"
    r"|\b(?:[a-z0-9-]+\.)+[a-z]{2,}:\d+\b"
    r"|\blocalhost(?::\d+)?\b"
    r"|(?<![\w.-])(?=[\w.-]*[a-z])[\w.-]+:\d{2,5}(?!\w|\.\w|:\d)"  # not the tag of a model, `qwen3:14b`
    r"|(?P<path>(?<![\w<])/[^\s\"'<>/]+[/.][^\s\"'<>]+|\b[a-z]:[\\/][^\s\"'<>]+|\\\\[^\s\"'<>]+)",
    re.IGNORECASE,
)
_FIELD: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")


def error_of(
    status: int,
    message: str,
    headers: Mapping[str, str] = NO_HEADERS,
    *,
    code: str | None = None,
    kind: str | None = None,
    param: str | None = None,
) -> GatewayError:
    """The core error for a failed reply. `code` and `kind` are the upstream's own words, `headers` lower case."""
    words = f"{code or ''} {kind or ''} {message[:4096]}".lower()
    if status == 400 and code == "model_not_found":
        status = 404
    if status in _SPENT and ({code, kind} & _QUOTA_CODES or _any(_QUOTA_WORDS, words)):
        return AccountFault("the upstream refused for reasons of quota or billing")
    if status in _OVERFLOW and (param == "input_tokens" or _any(_CONTEXT_WORDS, words)):
        return ContextLengthExceeded(clean(message) or "the request does not fit the context", param="messages")
    if status == 429:
        return Throttled("the upstream is limiting our requests", retry_after=retry_after(headers))
    if status in _ACCOUNT:
        return AccountFault(_ACCOUNT[status])
    if status in (503, 529):
        return Busy("the upstream is overloaded or not ready", retry_after=retry_after(headers))
    if status == 504:
        return TimedOut("the upstream timed out on its own side", phase="upstream")
    if status >= 500 or status == 408:
        return ServerFault(f"the upstream failed with status {status}")
    if status >= 400:
        text = clean(message) or f"the upstream refused the request with status {status}"
        named = param if param is not None and _FIELD.fullmatch(param) else None
        return RequestTooLarge(text) if status == 413 else Rejected(text, status=status, param=named)
    return BadReply(f"the upstream answered with the unexpected status {status}")


def error_from(
    error: Any, headers: Mapping[str, str] = NO_HEADERS, *, status: int | None = None, default: int = 500
) -> GatewayError:
    """The core error for an error object (or string) of any of the usual shapes. `status` is that of the reply;
    without one (an error inside a 200) the object's own code, status or words decide, else `default`."""
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {"message": error}
    code, kind, param = (_word(fields.get(name)) for name in ("code", "type", "param"))
    message = fields.get("message")
    if not isinstance(message, str):
        message = _word(message) or code or kind or ""
    if status is None:
        status = _status(fields) or default
    return error_of(status, message, headers, code=code, kind=kind, param=param)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds, or a date measured against the reply's own
    `date`), a day at most. None where nothing usable is said."""
    wait = _wait(headers)
    return None if wait is None else min(wait, LONGEST_WAIT)


def _wait(headers: Mapping[str, str]) -> float | None:
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1_000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        until, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def clean(message: str) -> str:
    """An upstream's message as a caller may see it: one bounded line without addresses, file paths or keys."""
    masked = _SECRET.sub(lambda found: f"[{found.lastgroup or 'address'}]", message[: 2 * MESSAGE_LIMIT])
    line = " ".join(masked.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


def _any(words: tuple[str, ...], text: str) -> bool:
    return any(word in text for word in words)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _word(value: Any) -> str | None:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    return None


def _status(fields: Mapping[str, Any]) -> int | None:
    for name in ("code", "status", "status_code", "type"):
        word = (_word(fields.get(name)) or "").lower()
        status = STATUS_OF_WORD.get(word)
        if status is None and word.isascii() and word.isdigit() and len(word) == 3:
            status = int(word)
        if status is not None and 400 <= status <= 599:
            return status
    return None
