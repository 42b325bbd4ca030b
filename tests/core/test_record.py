"""What is remembered of a request: unknown stays unknown, and nothing is changed afterwards."""

from __future__ import annotations

import dataclasses

from app.core.record import Record, Served

RECORD = Record("req-1", None, "req-1", 0, "chat", "auto", False, 200, 1_700_000_000.0, 0.5, 0.1)


def test_what_nobody_said_is_unknown() -> None:
    """A missing cost that reads as 0 would be reported as savings."""
    unknown = (RECORD.cost_nano, RECORD.tokens, RECORD.model, RECORD.local, RECORD.error_code, RECORD.score)
    assert unknown == (None,) * 6
    assert not RECORD.usage_estimated
    assert not RECORD.client_gone
    assert RECORD.attempts == ()


def test_flags_are_not_shared_between_records() -> None:
    other = dataclasses.replace(RECORD, request_id="req-2")
    assert Record("a", None, "a", 0, "chat", "auto", False, 200, 0.0, 0.0, 0.0).flags is not RECORD.flags
    assert other == dataclasses.replace(RECORD, request_id="req-2")


def test_served_says_only_what_is_known() -> None:
    served = Served("req-1", "gpu/qwen", "gpu", "asked for by name", 1)
    assert (served.tier, served.score, served.fallback, served.session, served.simulated) == (None,) * 4 + (False,)
