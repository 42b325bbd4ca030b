"""What the file may say, and what it means."""

from __future__ import annotations

import copy
from decimal import Decimal

import pytest
from pydantic import ValidationError

from app.config.schema import (
    Breaker,
    BudgetRule,
    FileSettings,
    Model,
    Part,
    Rollout,
    Routing,
    Target,
    Upstream,
)
from app.config.validate import keys, model_at
from app.core.card import Ability


def test_nothing_can_be_changed_after_loading() -> None:
    settings = FileSettings.model_validate({"models": {"a/b": {"num_ctx": 4096}}, "aliases": {"x": "a/b"}})
    with pytest.raises(ValidationError):
        settings.only_listed_models = True
    with pytest.raises(TypeError):
        settings.aliases["y"] = "z"  # type: ignore[index]
    assert copy.deepcopy(settings) is settings


def test_every_key_says_what_it_is() -> None:
    """The guide and `--help` are made from these words."""
    silent = []
    for key in keys():
        holder, _, name = key.rpartition(".")
        path = tuple(0 if part == "[]" else part for part in holder.replace("[]", ".[]").split(".") if part)
        model = model_at(FileSettings, path)
        assert model is not None, key
        if not model.model_fields[name].description:
            silent.append(key)
    assert silent == []


def test_values_are_not_converted() -> None:
    """`num_ctx: "4096"` or `on: 1` hides a mistake."""
    for wrong in ({"num_ctx": "4096"}, {"num_ctx": 4096.5}, {"num_ctx": True}, {"num_ctx": 0}, {"fallback": "a/b"}):
        with pytest.raises(ValidationError):
            Model.model_validate(wrong)


def test_abilities_are_those_that_cards_have() -> None:
    assert Model.model_validate({"abilities": ["tools", "n"]}).abilities == (Ability.TOOLS, Ability.MANY)


def test_a_pool_needs_an_address_unless_its_kind_has_one() -> None:
    assert Upstream(kind="ollama").base_url is None
    with pytest.raises(ValidationError, match="base_url is required for kind vllm"):
        Upstream(kind="vllm")


def test_a_breaker_opens_for_longer_not_shorter() -> None:
    with pytest.raises(ValidationError, match="max_open"):
        Breaker(open=60, max_open=10)


def test_a_rollout_goes_to_one_place() -> None:
    assert Target(model="a/b").strategy is None
    for wrong in ({}, {"model": "a/b", "strategy": "cost"}):
        with pytest.raises(ValidationError, match="either model or strategy"):
            Target.model_validate(wrong)


def rollout(**fields: object) -> Rollout:
    return Rollout.model_validate({"kind": "canary", "share": "80%", "to": {"model": "a/b"}, **fields})


def test_a_rollout_may_have_steps() -> None:
    assert rollout().steps == () == rollout(steps=False).steps
    assert rollout(steps=True).steps == ("20% shadow", "50%", "80%")
    assert rollout(steps=["1%", "2%"]).steps == ("1%", "2%")
    for wrong in (["2%", "1%"], ["1%", "1%"], ["x%"], ["101%"], [5], "5%", ["5% shady"]):
        with pytest.raises(ValidationError):
            rollout(steps=wrong)


def test_only_a_model_can_be_a_shadow() -> None:
    """A strategy has no answer of its own to compare."""
    for wrong in ({"kind": "shadow"}, {"steps": True}):
        with pytest.raises(ValidationError, match="only a model can be a shadow"):
            rollout(to={"target_local": 0.5}, **wrong)
    assert rollout(to={"target_local": 0.5}, steps=["50%"]).to.target_local == 0.5


def test_a_rollouts_name_is_a_plain_one() -> None:
    """It is part of labels, of paths and of the arm's name."""
    said = {"kind": "ab", "share": "5%", "to": {"strategy": "cost"}}
    assert Routing.model_validate({"rollouts": {"new-1": said}}).rollouts["new-1"].share == 0.05
    for name in ("a:b", "a,b", "", "a b"):
        with pytest.raises(ValidationError):
            Routing.model_validate({"rollouts": {name: said}})


def test_a_budget_has_an_id_and_an_exact_limit() -> None:
    rule = BudgetRule.model_validate({"scope": "agent", "match": "qe-*", "period": "day", "limit": 0.1})
    assert (rule.id, rule.limit_nano) == ("agent:qe-*:day", 100_000_000)
    assert rule.limit == Decimal("0.1")
    with pytest.raises(ValidationError, match="no match"):
        BudgetRule.model_validate({"scope": "global", "match": "x", "period": "day", "limit": 1})


def test_defaults_are_those_we_promise() -> None:
    settings = FileSettings()
    assert settings.routing == Routing(strategy="cost", cloud="normal")
    assert settings.routing.fallback.max_attempts == 3
    assert settings.streaming.commit_after == 15
    assert settings.limits.body_bytes == 20 * 1024 * 1024
    assert settings.budget.alert_at == (0.8, 1.0)
    assert settings.sessions.ttl_days == 30
    assert settings.upstreams is None


def test_all_parts_are_strict() -> None:
    assert all(each.model_config["extra"] == "forbid" and each.model_config["frozen"] for each in Part.__subclasses__())
