"""What the operator and the flags decide reaches the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.config.schema import Overrides, Routing
from app.config.settings import FlagSettings
from app.core.caller import ANONYMOUS, Caller
from app.core.card import Card
from app.core.errors import GatewayError, Unavailable
from app.core.request import EmbeddingRequest, Request
from app.flags import Flags, is_in_share
from app.gateway.planning import Planning
from app.routing.registry import Registry
from tests.core.nouns import card, chat, paid, terms

QWEN, BACKUP = card("gpu/qwen"), card("gpu/backup")
OPUS = paid("claude/opus", fallback=("gpu/backup",))
REGISTRY = Registry([OPUS, QWEN, BACKUP])
START = Flags.start(FlagSettings())


def well(each: Card) -> str | None:
    return None


def planned(
    request: Request | EmbeddingRequest | None = None,
    *,
    flags: Flags = START,
    caller: Caller = ANONYMOUS,
    demoted: Any = well,
    **routing: Any,
) -> list[str]:
    made = Planning(Routing(**routing), lambda: flags, demoted)(request or chat(), caller, REGISTRY)
    return [candidate.card.id for candidate in made.candidates]


def flagged(**shares: float) -> Flags:
    return replace(START, shares={**START.shares, **shares})


def test_nothing_said_is_everything_allowed() -> None:
    assert planned() == ["gpu/qwen", "gpu/backup", "claude/opus"]


def test_the_cloud_is_used_only_by_name_when_it_is_off() -> None:
    """By flag or in the file; a bill that comes all the same is the operator's worst surprise."""
    ways: list[dict[str, Any]] = [{"flags": flagged(CLOUD_FALLBACK=0.0)}, {"cloud": "never"}]
    for how in ways:
        assert planned(**how) == ["gpu/qwen", "gpu/backup"]
        assert planned(chat("claude/opus"), **how) == ["claude/opus", "gpu/backup"]


def test_local_models_are_used_only_by_name_when_they_are_off() -> None:
    off = flagged(LOCAL_MODELS=0.0)
    assert planned(flags=off) == ["claude/opus"]
    assert planned(chat("claude/opus"), flags=off) == ["claude/opus"], "what stands in was not asked for by name"
    assert planned(chat("gpu/qwen"), flags=off) == ["gpu/qwen"]


def test_with_both_off_there_is_nothing() -> None:
    with pytest.raises(Unavailable):
        planned(flags=flagged(LOCAL_MODELS=0.0, CLOUD_FALLBACK=0.0))


def test_without_the_router_auto_is_the_default_model() -> None:
    off = flagged(MULTI_MODEL_ROUTER=0.0)
    assert planned(flags=off, default_model="claude/opus") == ["claude/opus", "gpu/backup"]
    assert planned(flags=off) == ["gpu/qwen"]


@pytest.mark.parametrize("model", ["auto", "claude/opus"])
def test_with_fallback_off_nobody_else_is_tried(model: str) -> None:
    """Not even for a model asked by name that is failing: the answer would not be its own."""
    off: dict[str, Any] = {"fallback": {"on": False}}
    sick = {"gpu/qwen", "claude/opus"}

    def demoted(each: Card) -> str | None:
        return "failing lately" if each.id in sick else None

    assert planned(chat(model), **off) == ["gpu/qwen" if model == "auto" else model]
    assert planned(chat(model), demoted=demoted, **off) == ["gpu/backup" if model == "auto" else model]


def test_the_strategy_is_the_files() -> None:
    """Also the one that never leaves local upstreams."""
    assert planned(strategy="privacy") == ["gpu/qwen", "gpu/backup"]


def test_a_share_is_the_same_for_a_session_then_a_key_then_a_request() -> None:
    """A conversation must not change its model from turn to turn because a flag is at half."""
    half = flagged(CLOUD_FALLBACK=0.5)
    for number in range(20):
        on = is_in_share("CLOUD_FALLBACK", f"unit-{number}", 0.5)
        by_session = chat(terms=terms(request_id="other", session=f"unit-{number}"))
        by_request = chat(terms=terms(request_id=f"unit-{number}"))
        assert ("claude/opus" in planned(by_session, caller=Caller(key_id="key-1"), flags=half)) is on
        assert ("claude/opus" in planned(caller=Caller(key_id=f"unit-{number}"), flags=half)) is on
        assert ("claude/opus" in planned(by_request, flags=half)) is on


def test_a_flag_may_be_another_for_an_agent_or_a_key() -> None:
    """One agent that spends too much is taken off the cloud, and nobody else."""
    overrides = Overrides.model_validate({"agent": {"greedy": {"cloud_fallback": False}}, "key": {}, "tenant": {}})
    flags = replace(START, overrides=overrides)
    assert planned(chat(terms=terms(agent="greedy")), flags=flags) == ["gpu/qwen", "gpu/backup"]
    assert "claude/opus" in planned(chat(terms=terms(agent="modest")), flags=flags)


def test_the_flags_of_the_moment_count() -> None:
    """A rollback takes effect with the next request, without a restart."""
    now = [flagged(LOCAL_MODELS=0.0)]
    planning = Planning(Routing(), lambda: now[0], well)
    assert len(planning(chat(), ANONYMOUS, REGISTRY).candidates) == 1
    now[0] = START
    assert len(planning(chat(), ANONYMOUS, REGISTRY).candidates) == 3


def test_who_is_sick_is_asked_for_every_request() -> None:
    made = planned(demoted=lambda each: "throttled" if each is QWEN else None)
    assert made == ["gpu/backup", "claude/opus", "gpu/qwen"]


def test_errors_of_the_plan_are_the_clients() -> None:
    with pytest.raises(GatewayError, match="does not exist"):
        planned(chat("gpu/none"))
