"""The tree of errors against the contract: clients, retry loops and alerts are built on these words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.core import errors
from app.core.errors import Again, Blame, GatewayError

CALLERS, UPSTREAMS, OURS = Blame.CALLER, Blame.UPSTREAM, Blame.US
NEVER, SAME, NEXT, LARGER = Again.NEVER, Again.SAME, Again.NEXT, Again.LARGER
INVALID, UNAVAILABLE, UPSTREAM = "invalid_request_error", "service_unavailable", "upstream_error"

TREE = {
    "GatewayError": (500, "server_error", "internal_error", OURS, NEVER),
    "InternalError": (500, "server_error", "internal_error", OURS, NEVER),
    "CallerError": (400, INVALID, "invalid_value", CALLERS, NEVER),
    "InvalidValue": (400, INVALID, "invalid_value", CALLERS, NEVER),
    "InvalidJson": (400, INVALID, "invalid_json", CALLERS, NEVER),
    "UnsupportedParameter": (400, INVALID, "unsupported_parameter", CALLERS, NEXT),
    "Unbounded": (400, INVALID, "unsupported_parameter", CALLERS, NEXT),
    "ContextLengthExceeded": (400, INVALID, "context_length_exceeded", CALLERS, LARGER),
    "InvalidApiKey": (401, "authentication_error", "invalid_api_key", CALLERS, NEVER),
    "ModelNotAllowed": (403, "permission_error", "model_not_allowed", CALLERS, NEVER),
    "NotFound": (404, INVALID, "not_found", CALLERS, NEVER),
    "ModelNotFound": (404, INVALID, "model_not_found", CALLERS, NEVER),
    "MethodNotAllowed": (405, INVALID, "method_not_allowed", CALLERS, NEVER),
    "RequestTimeout": (408, INVALID, "request_timeout", CALLERS, NEVER),
    "RequestTooLarge": (413, INVALID, "request_too_large", CALLERS, NEVER),
    "Unprocessable": (422, INVALID, "invalid_value", CALLERS, NEVER),
    "BudgetExceeded": (429, "insufficient_quota", "budget_exceeded", CALLERS, NEVER),
    "RateLimited": (429, "rate_limit_error", "rate_limit_exceeded", CALLERS, NEVER),
    "TooLargeForRate": (429, "rate_limit_error", "rate_limit_exceeded", CALLERS, NEVER),
    "IdempotencyInFlight": (409, INVALID, "idempotency_in_flight", CALLERS, NEVER),
    "IdempotencyMismatch": (422, INVALID, "idempotency_mismatch", CALLERS, NEVER),
    "IdempotencyNotKept": (422, INVALID, "invalid_value", CALLERS, NEVER),
    "StreamExpired": (410, INVALID, "stream_expired", CALLERS, NEVER),
    "StreamOrphaned": (410, INVALID, "stream_orphaned", CALLERS, NEVER),
    "HeadersTooLarge": (431, INVALID, "headers_too_large", CALLERS, NEVER),
    "ClientGone": (499, INVALID, "client_gone", CALLERS, NEVER),
    "Unavailable": (503, UNAVAILABLE, "no_upstream_available", OURS, NEVER),
    "ShuttingDown": (503, UNAVAILABLE, "shutting_down", OURS, NEVER),
    "Overloaded": (503, UNAVAILABLE, "overloaded", OURS, NEVER),
    "Shed": (503, UNAVAILABLE, "overloaded", OURS, NEVER),
    "BudgetStoreUnavailable": (503, UNAVAILABLE, "budget_store_unavailable", OURS, NEVER),
    "StoreUnavailable": (503, UNAVAILABLE, "store_unavailable", OURS, NEVER),
    "StreamBroken": (502, "server_error", "stream_broken", OURS, NEVER),
    "UpstreamRateLimited": (429, "rate_limit_error", "upstream_rate_limited", UPSTREAMS, NEVER),
    "UpstreamFailed": (502, UPSTREAM, "upstream_failed", UPSTREAMS, NEVER),
    "UpstreamStumbled": (502, UPSTREAM, "upstream_failed", UPSTREAMS, NEVER),
    "UpstreamTimeout": (504, UPSTREAM, "upstream_timeout", UPSTREAMS, NEVER),
    "UpstreamFault": (502, UPSTREAM, "upstream_failed", UPSTREAMS, SAME),
    "Refused": (502, UPSTREAM, "upstream_failed", UPSTREAMS, NEXT),
    "Broken": (502, UPSTREAM, "upstream_failed", UPSTREAMS, SAME),
    "TimedOut": (504, UPSTREAM, "upstream_timeout", UPSTREAMS, NEXT),
    "OutOfTime": (504, UPSTREAM, "upstream_timeout", CALLERS, NEVER),
    "BadReply": (502, UPSTREAM, "upstream_failed", UPSTREAMS, NEXT),
    "Incomplete": (502, UPSTREAM, "upstream_failed", UPSTREAMS, SAME),
    "Truncated": (502, UPSTREAM, "upstream_failed", UPSTREAMS, LARGER),
    "ServerFault": (502, UPSTREAM, "upstream_failed", UPSTREAMS, SAME),
    "Busy": (503, UNAVAILABLE, "overloaded", UPSTREAMS, SAME),
    "Throttled": (429, "rate_limit_error", "upstream_rate_limited", UPSTREAMS, NEXT),
    "AccountFault": (502, UPSTREAM, "upstream_failed", UPSTREAMS, NEXT),
    "Rejected": (400, INVALID, "invalid_value", CALLERS, NEVER),
}

CONTRACT = {
    (400, INVALID): {"invalid_json", "invalid_value", "unsupported_parameter", "context_length_exceeded"},
    (401, "authentication_error"): {"invalid_api_key"},
    (403, "permission_error"): {"model_not_allowed"},
    (404, INVALID): {"model_not_found", "not_found"},
    (405, INVALID): {"method_not_allowed"},
    (408, INVALID): {"request_timeout"},
    (409, INVALID): {"idempotency_in_flight"},
    (413, INVALID): {"request_too_large"},
    (422, INVALID): {"idempotency_mismatch", "invalid_value"},
    (429, "insufficient_quota"): {"budget_exceeded"},
    (429, "rate_limit_error"): {"rate_limit_exceeded", "upstream_rate_limited"},
    (431, INVALID): {"headers_too_large"},
    (500, "server_error"): {"internal_error"},
    (502, UPSTREAM): {"upstream_failed"},
    (503, UNAVAILABLE): {"no_upstream_available", "budget_store_unavailable", "shutting_down", "overloaded"},
    (504, UPSTREAM): {"upstream_timeout"},
}
"""Section 9, row by row."""

BEYOND = {"client_gone", "store_unavailable", "stream_expired", "stream_orphaned", "stream_broken"}
"""Seen in logs alone, by an operator whose store is away, and by who comes back to a stream."""

KINDS = {
    "UpstreamFault": "failed",
    "Refused": "refused",
    "Broken": "broken",
    "TimedOut": "timeout",
    "OutOfTime": "timeout",
    "BadReply": "bad_reply",
    "Incomplete": "incomplete",
    "Truncated": "truncated",
    "ServerFault": "server",
    "Busy": "busy",
    "Throttled": "throttled",
    "AccountFault": "account",
}


def tree(top: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    if top.__module__ == errors.__name__:
        yield top
    for below in top.__subclasses__():
        yield from tree(below)


CLASSES = list(tree())


def test_the_tree_is_the_table() -> None:
    """A new error states all five, and whoever adds one decides them here as well."""
    stated = {each.__name__: (each.status, each.type, each.code, each.blame, each.again) for each in CLASSES}
    assert stated == TREE


def test_clients_see_the_contracts_errors_and_no_others() -> None:
    """A status or code that the contract does not know breaks clients that act on it."""
    said = {(each.status, each.type, each.code) for each in CLASSES if each.code not in BEYOND}
    assert said == {(status, type_, code) for (status, type_), codes in CONTRACT.items() for code in codes}


def test_kinds_of_upstream_faults_are_the_metrics_labels() -> None:
    """Alerts name these."""
    kinds = {each.__name__: each.kind for each in CLASSES if issubclass(each, errors.UpstreamFault)}
    assert kinds == KINDS


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__name__)
def test_a_status_says_whose_fault_it_was(each: type[GatewayError]) -> None:
    """4xx is the caller's own to change; a caller is never told so for what an upstream did."""
    if each.blame is Blame.CALLER and each is not errors.OutOfTime:
        assert 400 <= each.status < 500
    if each.blame is Blame.US:
        assert each.status >= 500
    if each.blame is Blame.UPSTREAM:
        assert each.status in (429, 502, 503, 504)


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__name__)
def test_only_attempts_are_tried_again(each: type[GatewayError]) -> None:
    """The sum of all attempts must not be attempted again, nor what is wrong with the request itself."""
    if each.again is not Again.NEVER:
        assert issubclass(each, (errors.UpstreamFault, errors.UnsupportedParameter, errors.ContextLengthExceeded))


def test_clients_do_not_retry_what_was_already_retried() -> None:
    """Official clients retry 5xx by themselves, which would multiply the gateway's own tries while something is down;
    and 429, which helps nobody once a budget is spent, or where a request alone is too large for its rate."""
    assert {each.__name__ for each in CLASSES if each.client_may_retry is False} == {
        "UpstreamFailed",
        "UpstreamTimeout",
        "BudgetExceeded",
        "TooLargeForRate",
    }
    assert not [each for each in CLASSES if each.client_may_retry is True]


def test_an_error_carries_what_a_client_needs() -> None:
    error = errors.InvalidValue("n must be 1 to 128.", param="n", retry_after=1.5)
    assert (str(error), error.message, error.param, error.retry_after) == (error.message, str(error), "n", 1.5)
    assert errors.MethodNotAllowed("Not so.").allow == "POST"
    assert errors.MethodNotAllowed("Not so.", allow="GET, DELETE").allow == "GET, DELETE"
    timeout = errors.TimedOut("Too late.", phase="idle")
    assert (timeout.phase, timeout.param, timeout.retry_after) == ("idle", None, None)


def test_a_rejection_remembers_the_upstreams_own_words() -> None:
    """A client gets 400 whatever the upstream called it; the log says what that was."""
    error = errors.Rejected("temperature is too high", status=422, param="temperature")
    assert (error.status, error.upstream_status) == (400, 422)
    assert error.param == "temperature"
