"""Flags are decided once for a request, whoever asks first, and shares stick to whom they should."""

from __future__ import annotations

from dataclasses import replace

from app.config.settings import FlagSettings
from app.core.caller import ANONYMOUS, Caller
from app.flags import Flags
from app.gateway.deciding import decided_flags, unit_of
from tests.core.nouns import chat, embedding, terms

START = Flags.start(FlagSettings())


def flagged(**shares: float) -> Flags:
    return replace(START, shares={**START.shares, **shares})


def test_flags_are_decided_once_for_a_request_and_all_it_causes() -> None:
    """A flag that is flipped while a request runs must not let it begin in one way and end in another."""
    snapshots = [flagged(SESSIONS=0.0), flagged()]
    request = chat("auto")
    first = decided_flags(lambda: snapshots.pop(0), request, ANONYMOUS)
    child = replace(request, terms=replace(request.terms, parent_id="r", depth=1))
    assert not first["SESSIONS"] and decided_flags(lambda: snapshots.pop(0), child, ANONYMOUS) is first
    assert decided_flags(lambda: snapshots.pop(0), chat("auto"), ANONYMOUS)["SESSIONS"], "the next request is another"


def test_whom_shares_stick_to() -> None:
    own = terms(request_id="r", session="s")
    assert unit_of(chat(terms=own), Caller(key_id="k")) == "s"
    assert unit_of(chat(terms=terms(request_id="r")), Caller(key_id="k")) == "k"
    assert unit_of(embedding(terms=terms(request_id="r")), ANONYMOUS) == "r"
