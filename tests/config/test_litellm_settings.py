"""What an operator relied on must hold here, or be said not to: above all a limit on spend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.config.litellm_settings import period_of
from app.config.settings import Settings
from tests.config.foreign import deployment, imported, loaded, notes

MODELS = [deployment("a", "openai/a"), deployment("b", "openai/b"), deployment("c", "anthropic/c")]


def settings(folder: Path, **sections: Any) -> tuple[Settings, dict[str, str]]:
    found = imported({"model_list": MODELS, **sections})
    return loaded(found, folder), notes(found)


@pytest.mark.parametrize(
    ("said", "period", "exact"),
    [
        (None, "total", True),
        ("1d", "day", True),
        ("24h", "day", True),
        ("30s", "day", False),
        ("7d", "month", False),
        ("1w", "month", False),
        ("30d", "month", True),
        ("1mo", "month", True),
        ("90d", "total", False),
        ("1y", "total", False),
        ("soon", "total", False),
        (30, "total", False),
    ],
)
def test_a_limit_never_lets_more_through_than_it_did(said: Any, period: str, exact: bool) -> None:
    assert period_of(said) == (period, exact)


@pytest.mark.parametrize("section", ["litellm_settings", "general_settings"])
def test_a_budget_is_kept(tmp_path: Path, section: str) -> None:
    made, said = settings(tmp_path, **{section: {"max_budget": 12.5, "budget_duration": "7d"}})
    (budget,) = made.budgets
    assert (budget.scope, budget.period, float(budget.limit)) == ("global", "month", 12.5)
    assert "which is less" in said[f"{section}.budget_duration"]


def test_fallbacks_name_models_in_order(tmp_path: Path) -> None:
    made, said = settings(
        tmp_path,
        litellm_settings={
            "fallbacks": [{"a": ["b"]}, {"gone": ["a"]}, {"b": ["gone"]}],
            "context_window_fallbacks": [{"a": ["c", "b"]}],
            "default_fallbacks": ["c"],
        },
    )
    assert made.models["openai/a"].fallback == ("openai/b", "claude/c")
    assert made.models["openai/b"].fallback == ("claude/c",)
    assert made.models["claude/c"].fallback == ()
    assert "not carried over" in said["litellm_settings.fallbacks[1]"]
    assert "not carried over" in said["litellm_settings.fallbacks[2]"]


def test_a_rule_for_all_counts_for_all(tmp_path: Path) -> None:
    made, _ = settings(tmp_path, router_settings={"fallbacks": [{"*": ["c"]}]})
    assert [model.fallback for model in made.models.values()] == [("claude/c",), ("claude/c",), ()]


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (2, 3), (50, 10), (None, 3)])
def test_retries_are_attempts(tmp_path: Path, retries: int | None, attempts: int) -> None:
    made, _ = settings(tmp_path, litellm_settings={} if retries is None else {"num_retries": retries})
    assert made.routing.fallback.max_attempts == attempts


def test_every_model_that_may_stand_in_gets_its_turn(tmp_path: Path) -> None:
    rows = [deployment(name, f"openai/{name}") for name in "abcdef"]
    data = {"model_list": rows, "litellm_settings": {"num_retries": 0, "fallbacks": [{"a": list("bcdef")}]}}
    assert loaded(imported(data), tmp_path).routing.fallback.max_attempts == 6


def test_clocks_and_breakers_count_for_every_upstream(tmp_path: Path) -> None:
    made, _ = settings(
        tmp_path,
        litellm_settings={"request_timeout": 200},
        router_settings={"stream_timeout": 20, "allowed_fails": 2, "cooldown_time": 400},
    )
    for upstream in made.upstreams.values():
        assert (upstream.timeouts.total, upstream.timeouts.first_token) == (200, 20)
        assert (upstream.breaker.failures, upstream.breaker.open, upstream.breaker.max_open) == (3, 400, 400)


def test_other_names_and_bounds(tmp_path: Path) -> None:
    made, said = settings(
        tmp_path,
        router_settings={"model_group_alias": {"gpt-4": "a", "hidden": {"model": "c", "hidden": True}, "lost": "gone"}},
        general_settings={"global_max_parallel_requests": 50},
    )
    assert (made.aliases["gpt-4"], made.aliases["hidden"], made.limits.in_flight) == ("openai/a", "claude/c", 50)
    assert "router_settings.model_group_alias.lost" in said and "lost" not in made.aliases


def test_everything_else_is_listed_with_what_to_do(tmp_path: Path) -> None:
    _, said = settings(
        tmp_path,
        litellm_settings={"cache": True, "odd": 1},
        router_settings={"routing_strategy": "latency-based-routing"},
        general_settings={"master_key": "sk-1"},
        guardrails=[],
        nonsense={},
    )
    assert "not cached" in said["litellm_settings.cache"] and "no counterpart" in said["litellm_settings.odd"]
    assert "max_local_latency" in said["router_settings.routing_strategy"]
    assert "TIERWAY_ADMIN_KEY" in said["general_settings.master_key"]
    assert {"guardrails", "nonsense"} <= said.keys()
