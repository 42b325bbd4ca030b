"""Decides the feature flags of one request, once for all who ask, and says to whom its shares stick."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.core.caller import Caller
from app.core.request import AnyRequest
from app.flags import Flags


def unit_of(request: AnyRequest, caller: Caller) -> str:
    """Whom shares stick to: the session, else the key, else this request alone."""
    return request.terms.session or caller.key_id or request.terms.request_id


def decided_flags(flags: Callable[[], Flags], request: AnyRequest, caller: Caller) -> Mapping[str, bool]:
    """All feature flags as they are for this request: decided when the first is asked, by the snapshot of then."""
    terms = request.terms
    if not terms.flags:
        terms.flags.update(flags().decide(unit_of(request, caller), caller=caller, agent=terms.agent))
    return terms.flags
