"""The one tree of errors.

Each class states the HTTP status, type and code a client sees, whose fault it was (`blame`), and whether a client may
try again. Adapters turn whatever an upstream or a transport does into one of the `UpstreamFault`s; the retry loop reads
`blame` and `again`; the edge renders the error once, in the caller's dialect.

Messages are written for the person who reads them: no secrets, no addresses of upstreams, no stack traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

from app.core.spending import RateState


class Blame(StrEnum):
    """Whose fault a failure was; only `UPSTREAM` counts against an upstream's health."""

    CALLER = "caller"
    UPSTREAM = "upstream"
    US = "us"


class Again(StrEnum):
    """What the retry loop may do after a failure."""

    NEVER = "never"  # nobody else would answer differently
    SAME = "same"  # another try at the same candidate may work, and so may the next
    NEXT = "next"  # the same candidate would fail again, another may not
    LARGER = "larger"  # only a candidate with a larger window


class GatewayError(Exception):
    """Base of all errors a client can see.

    `param` names the field of the request, `retry_after` is in seconds. `billed` says whether an attempt that ended so,
    before anything of an answer came, may be on the upstream's bill all the same.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    blame: ClassVar[Blame] = Blame.US
    again: ClassVar[Again] = Again.NEVER
    client_may_retry: ClassVar[bool | None] = None  # None: leave it to the client's own rules
    billed: bool = False

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class InternalError(GatewayError):
    """A fault of ours; the client learns the request id and nothing else."""

    billed = True


# --- the caller's ---------------------------------------------------------------------------------------------------


class CallerError(GatewayError):
    status, type, code, blame = 400, "invalid_request_error", "invalid_value", Blame.CALLER


class InvalidValue(CallerError): ...


class InvalidJson(CallerError):
    code = "invalid_json"


class UnsupportedParameter(CallerError):
    """The request demands what this model or upstream cannot do; another may."""

    code = "unsupported_parameter"
    again = Again.NEXT


class Unbounded(UnsupportedParameter):
    """What the request asks for may cost anything at this model, and it counts against a limit on spend."""


class ContextLengthExceeded(CallerError):
    code = "context_length_exceeded"
    again = Again.LARGER


class InvalidApiKey(CallerError):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class ModelNotAllowed(CallerError):
    status, type, code = 403, "permission_error", "model_not_allowed"


class NotFound(CallerError):
    status, code = 404, "not_found"


class ModelNotFound(CallerError):
    status, code = 404, "model_not_found"


class MethodNotAllowed(CallerError):
    """`allow` names the methods that would do."""

    status, code = 405, "method_not_allowed"

    def __init__(self, message: str, *, param: str | None = None, allow: str = "POST") -> None:
        super().__init__(message, param=param)
        self.allow = allow


class RequestTimeout(CallerError):
    status, code = 408, "request_timeout"


class RequestTooLarge(CallerError):
    status, code = 413, "request_too_large"


class Unprocessable(CallerError):
    status = 422


class BudgetExceeded(CallerError):
    """A limit on spend; the message says which."""

    status, type, code, client_may_retry = 429, "insufficient_quota", "budget_exceeded", False


class RateLimited(CallerError):
    """The caller asks more often, or for more tokens, than its key allows. `rates` are how its limits stand."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        rates: tuple[RateState, ...] = (),
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.rates = rates


class TooLargeForRate(RateLimited):
    """One request that needs more than a whole minute's tokens."""

    client_may_retry = False


class IdempotencyInFlight(CallerError):
    """The first request with this idempotency key is not answered yet."""

    status, code = 409, "idempotency_in_flight"


class IdempotencyMismatch(CallerError):
    """The idempotency key was used with another body."""

    status, code = 422, "idempotency_mismatch"


class IdempotencyNotKept(Unprocessable):
    """The first request with this idempotency key was answered, but its answer could not be kept."""


class StreamExpired(CallerError):
    """The events of a stream are not kept any more. `about` is what is still told of it."""

    status, code = 410, "stream_expired"

    def __init__(self, message: str, *, about: Mapping[str, str]) -> None:
        super().__init__(message)
        self.about = about


class StreamOrphaned(CallerError):
    """Nobody read a resumable stream for so long that it was ended; seen only by who comes back too late."""

    status, code = 410, "stream_orphaned"


class HeadersTooLarge(CallerError):
    status, code = 431, "headers_too_large"


class ClientGone(CallerError):
    """The client left; seen only in logs and metrics."""

    status, code, billed = 499, "client_gone", True


# --- ours, or the sum of what upstreams did -------------------------------------------------------------------------


class Unavailable(GatewayError):
    status, type, code = 503, "service_unavailable", "no_upstream_available"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class Overloaded(Unavailable):
    code = "overloaded"


class Shed(Overloaded):
    """Refused because we, or an upstream's line, have too much. `cause` is the label of `tierway_shed_total`."""

    def __init__(self, message: str, *, cause: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.cause = cause


class StoreUnavailable(Unavailable):
    """The store did not answer in time."""

    code = "store_unavailable"


class BudgetStoreUnavailable(Unavailable):
    """What may be spent cannot be asked, so nothing is."""

    code = "budget_store_unavailable"


class StreamBroken(GatewayError):
    """The gateway that made a resumable stream is gone; seen only in streams."""

    status, code = 502, "stream_broken"


class UpstreamRateLimited(GatewayError):
    """Every candidate is throttled; `retry_after` is the shortest of their waits."""

    status, type, code, blame = 429, "rate_limit_error", "upstream_rate_limited", Blame.UPSTREAM


class UpstreamFailed(GatewayError):
    """Every candidate failed; the message says what was tried."""

    status, type, code, blame = 502, "upstream_error", "upstream_failed", Blame.UPSTREAM
    client_may_retry: ClassVar[bool | None] = False


class UpstreamStumbled(UpstreamFailed):
    """The same, but of servers that are well otherwise: that was chance, and a client may try again."""

    client_may_retry = None


class UpstreamTimeout(GatewayError):
    status, type, code, blame, client_may_retry = 504, "upstream_error", "upstream_timeout", Blame.UPSTREAM, False


# --- what one upstream did to one attempt ---------------------------------------------------------------------------


class UpstreamFault(GatewayError):
    """One attempt failed through the upstream. `kind` is the label of `tierway_upstream_errors_total`."""

    status, type, code, blame, again = 502, "upstream_error", "upstream_failed", Blame.UPSTREAM, Again.SAME
    kind: ClassVar[str] = "failed"


class Refused(UpstreamFault):
    """No connection could be made: refused, unreachable, unknown host, TLS, or the connect clock."""

    kind, again = "refused", Again.NEXT


class Broken(UpstreamFault):
    """The connection broke before the reply was whole."""

    kind, billed = "broken", True


class TimedOut(UpstreamFault):
    """One of the four clocks ran out; `phase` is `first_token`, `idle`, `total`, or `upstream` (its own)."""

    status, code, kind, again = 504, "upstream_timeout", "timeout", Again.NEXT

    def __init__(self, message: str, *, phase: str) -> None:
        super().__init__(message)
        self.phase = phase
        self.billed = phase != "upstream"  # which is an error status, and those are not billed


class OutOfTime(TimedOut):
    """The request's own deadline came first, which says nothing about the upstream."""

    blame, again = Blame.CALLER, Again.NEVER


class BadReply(UpstreamFault):
    """What came is not the wire we know: HTML, wrong content type, broken JSON, a line beyond all bounds."""

    kind, again, billed = "bad_reply", Again.NEXT, True


class Incomplete(UpstreamFault):
    """The reply ended without saying why (no finish reason): a truncated answer must not look whole."""

    kind, billed = "incomplete", True


class Truncated(UpstreamFault):
    """The upstream dropped part of what it was sent."""

    kind, again, billed = "truncated", Again.LARGER, True


class ServerFault(UpstreamFault):
    """A 5xx, or an error object inside a 200."""

    kind = "server"


class Busy(UpstreamFault):
    """503 or 529: overloaded, queue full, loading, asleep."""

    status, type, code, kind = 503, "service_unavailable", "overloaded", "busy"


class Throttled(UpstreamFault):
    """429 from an upstream; not a failure of its health. `retry_after` when it said so."""

    status, type, code, kind, again = 429, "rate_limit_error", "upstream_rate_limited", "throttled", Again.NEXT


class AccountFault(UpstreamFault):
    """Our key, our bill or our configuration there: 401, 402, 403, a missing model, a spend limit dressed as 400."""

    kind, again = "account", Again.NEXT


class Rejected(CallerError):
    """The upstream says that the request itself is wrong (400, 413, 422)."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.upstream_status = status
