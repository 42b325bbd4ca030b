"""Without these a client retries what it should not, or reads about our insides."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.api.errors import error_headers, send_error, shown
from app.core.errors import (
    GatewayError,
    InternalError,
    InvalidApiKey,
    InvalidValue,
    MethodNotAllowed,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    UpstreamFailed,
    UpstreamRateLimited,
)
from app.wire.objects import write_error
from tests.api.wire import Wire


def headers(error: GatewayError) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in error_headers(error, "req_1", b"12345")}


@pytest.mark.parametrize(
    "error", [InternalError("the password is x"), RuntimeError("the password is x"), KeyError("x")]
)
def test_of_a_fault_of_ours_only_the_id_is_told(error: Exception) -> None:
    seen = shown(error, "req_1")
    assert (seen.status, seen.code) == (500, "internal_error")
    assert "req_1" in seen.message and "password" not in seen.message


def test_other_errors_are_told_as_they_are() -> None:
    error = InvalidValue("`n` must be a number.", param="n")
    assert shown(error, "req_1") is error


def test_a_request_that_the_servers_end_cut_may_be_tried_elsewhere() -> None:
    """Rolling out a new version must look like what it is to the clients of the old one."""
    seen = shown(asyncio.CancelledError(), "req_1")
    assert (seen.status, seen.code) == (503, "shutting_down") and seen.retry_after


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.001, "2"), (2.0, "2"), (2.5, "3"), (30, "30")]
)
def test_a_wait_is_rounded_up(seconds: float, told: str) -> None:
    """Rounded down, every client comes back too early; a whole second is not made two."""
    assert headers(UpstreamRateLimited("Wait.", retry_after=seconds))["retry-after"] == told


@pytest.mark.parametrize(
    ("error", "extra"),
    [
        (InvalidApiKey("No."), {}),
        (UpstreamFailed("All failed."), {"x-should-retry": "false"}),
        (Overloaded("Full.", retry_after=1), {"retry-after": "1"}),
        (RequestTooLarge("Large."), {"connection": "close"}),
        (RequestTimeout("Late."), {"connection": "close"}),
        (MethodNotAllowed("No.", allow="GET"), {"allow": "GET"}),
        (MethodNotAllowed("No."), {"allow": "POST"}),
    ],
)
def test_headers_say_what_to_do_next(error: GatewayError, extra: dict[str, Any]) -> None:
    always = {"content-type": "application/json", "content-length": "5", "x-request-id": "req_1"}
    assert headers(error) == always | extra


def test_a_client_that_is_told_to_retry_is_told_so() -> None:
    class Again(GatewayError):
        client_may_retry = True

    assert headers(Again("Try again."))["x-should-retry"] == "true"


async def test_the_whole_reply_goes_out() -> None:
    wire = Wire(headers={"x-request-id": "mine"})
    inbound = wire.inbound()
    await send_error(inbound, InvalidValue("Bad.", param="n"), write_error)
    assert inbound.answered and wire.complete
    assert wire.status == 400 and wire.headers["x-request-id"] == "mine"
    assert wire.headers["content-length"] == str(len(wire.body))
    assert wire.error == {"message": "Bad.", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}
