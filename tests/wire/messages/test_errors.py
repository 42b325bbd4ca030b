"""What Claude's errors mean: a wrong class retries what cannot work, or blames the caller for our bill."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import (
    AccountFault,
    BadReply,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    InternalError,
    InvalidApiKey,
    InvalidValue,
    ModelNotFound,
    Rejected,
    RequestTooLarge,
    ServerFault,
    Throttled,
    TimedOut,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.wire.messages.errors import error_in, parse, read_error, write_error


def body(kind: str, message: str = "m", **details: Any) -> bytes:
    error: dict[str, Any] = {"type": kind, "message": message}
    if details:
        error["details"] = details
    return orjson.dumps({"type": "error", "error": error, "request_id": "req_1"})


@pytest.mark.parametrize(
    ("status", "reply", "error"),
    [
        (400, body("invalid_request_error", "messages.0: bad"), Rejected),
        (
            400,
            body("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
            ContextLengthExceeded,
        ),
        (
            400,
            body("invalid_request_error", "input length and `max_tokens` exceed context limit: 190000 + 32000"),
            ContextLengthExceeded,
        ),
        (
            400,
            body("invalid_request_error", "You have reached your specified workspace API usage limits."),
            AccountFault,
        ),
        (400, body("invalid_request_error", "Your credit balance is too low to access the API."), AccountFault),
        (401, body("authentication_error"), AccountFault),
        (402, body("billing_error"), AccountFault),
        (403, body("permission_error"), AccountFault),
        (404, body("not_found_error"), AccountFault),
        (409, body("conflict_error"), Rejected),
        (413, body("request_too_large"), RequestTooLarge),
        (422, body("invalid_request_error"), Rejected),
        (429, body("rate_limit_error"), Throttled),
        (429, body("rate_limit_error", error_code="ramp_limit_exceeded"), Throttled),
        (429, body("rate_limit_error", error_code="enforced_spend_limit_reached"), AccountFault),
        (429, body("rate_limit_error", error_code="contract_spend_limit_reached"), AccountFault),
        (500, body("api_error"), ServerFault),
        (503, b"", Busy),
        (504, body("timeout_error"), TimedOut),
        (529, body("overloaded_error"), Busy),
        (500, b"<html>", ServerFault),
        (400, b'{"error": "plain"}', Rejected),
        (400, b"[]", Rejected),
        (302, b"", BadReply),
    ],
)
def test_what_a_failed_reply_means(status: int, reply: bytes, error: type[GatewayError]) -> None:
    assert type(read_error(status, {}, reply)) is error


def test_how_long_to_wait_is_kept() -> None:
    for status in (429, 529):
        assert read_error(status, {"retry-after": "7"}, body("x")).retry_after == 7


def test_a_rejection_says_what_was_wrong_and_with_which_status() -> None:
    error = read_error(422, {}, body("invalid_request_error", "Not\nright"))
    assert isinstance(error, Rejected)
    assert (error.message, error.upstream_status) == ("Not right", 422)


@given(
    st.dictionaries(st.sampled_from(["error", "type"]), st.recursive(st.none() | st.text() | st.integers(), st.lists))
)
def test_any_json_is_some_error(reply: dict[str, Any]) -> None:
    assert isinstance(error_in(reply), GatewayError)
    assert isinstance(error_in({"error": reply, "details": reply}, status=429), GatewayError)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidValue("x"), 400, anthropic.BadRequestError),
        (InvalidApiKey("x"), 401, anthropic.AuthenticationError),
        (ModelNotFound("x"), 404, anthropic.NotFoundError),
        (Rejected("x", status=413), 413, anthropic.APIStatusError),
        (Throttled("x"), 429, anthropic.RateLimitError),
        (Busy("x"), 503, anthropic.InternalServerError),
        (UpstreamFailed("x"), 502, anthropic.InternalServerError),
        (UpstreamTimeout("x"), 504, anthropic.InternalServerError),
        (InternalError("\ud800"), 500, anthropic.InternalServerError),
    ],
)
def test_our_errors_come_back_as_they_were_meant(
    error: GatewayError, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    """The official client picks its exception, and whether it tries again, by these."""
    reply = httpx2.MockTransport(lambda _: httpx2.Response(status, content=write_error(error)))
    with (
        httpx2.Client(transport=reply) as http,
        anthropic.Anthropic(api_key="k", http_client=http, max_retries=0) as client,
        pytest.raises(kind) as caught,
    ):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    assert type(caught.value.body) is dict and caught.value.body["type"] == "error"


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (418, "invalid_request_error")])
def test_what_has_no_type_of_its_own_is_an_invalid_request(status: int, kind: str) -> None:
    assert orjson.loads(write_error(Rejected("x", status=status)))["error"]["type"] == kind


def test_parse_takes_objects_only() -> None:
    assert parse(b'{"a":1}') == {"a": 1}
    for wrong in (b"", b"[]", b"nan", b'{"a":' * 200 + b"1" + b"}" * 200):
        with pytest.raises(BadReply):
            parse(wrong)
