"""Without these an operator changes a strategy on figures that are not so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from app.core.card import Card
from app.core.money import FREE, Price
from app.lab.replay import Otherwise, Replayed, replay
from app.learning.decision import Considered, Decision, of_plan
from app.routing.emergency import GONE, SLOW
from app.routing.registry import Registry
from tests.routing.cases import EVERY, Case, cases

SMALL, MEDIUM, LARGE = "ollama/small", "gpu/medium", "claude/large"
THREE = (
    Considered(SMALL, "cheapest that can do it", True, 0, 0.2, 0.88, 0.4),
    Considered(MEDIUM, "can do it too", True, 0, 0.4, 0.91, 0.7),
    Considered(LARGE, "can do it too", False, 8_000_000, 0.8, 0.96, 1.0),
)
LIST_PRICE = Price(4_000_000, 20_000_000, 4_000_000, 5_000_000, 8_000_000)


def made(candidates: tuple[Considered, ...] = THREE, **more: Any) -> Decision:
    """A request that the first candidate answered, with 1,000 tokens in and 100 out."""
    about: dict[str, Any] = {
        "model_requested": "auto",
        "strategy": "cost",
        "score": 0.3,
        "task_type": "code",
        "model": candidates[0].model,
        "cost_nano": candidates[0].cost_nano,
        "expected_in": 1_000,
        "expected_out": 200,
        "tokens_in": 1_000,
        "tokens_out": 100,
    }
    return Decision("r", 1.0, candidates=more.pop("candidates", candidates), **{**about, **more})


def known(model: str) -> Price | None:
    return {SMALL: FREE, MEDIUM: FREE, LARGE: LIST_PRICE}.get(model)


def again(*decisions: Decision, **otherwise: Any) -> Replayed:
    return replay(decisions, Otherwise(**{"known": known, **otherwise}))


def would(*decisions: Decision, **otherwise: Any) -> list[str]:
    """The models that would have answered."""
    return [each.model for each in again(*decisions, **otherwise).models if each.would]


def like_then(case: Case) -> Case:
    """As far as a decision remembers it: without windows, load, chance, chains, and shares that are aimed at."""
    cards: list[Card] = [replace(card, context_window=None) for card in case.registry.cards]
    return replace(
        case,
        registry=Registry(cards, {"word": "auto"}),
        rules=replace(case.rules, threshold=None, degrade=False, emergency=False, chains={}),
        loads={},
        seen={},
    )


@EVERY
@given(cases(named=False, routed=True, fallback=True).map(like_then).filter(Case.plannable))
def test_where_nothing_is_different_nothing_changes(case: Case) -> None:
    """It ranks as a plan does, or every figure would be of another router than the one that runs."""
    plan = case.plan(draw=1.0)
    rules = case.rules
    found = again(
        of_plan(plan, "r", case.request.model, 1.0),
        prefer=rules.prefer,
        max_local_latency=rules.max_local_latency,
        known=lambda model: None,
    )
    assert found.changed == 0 and found.requests == 1
    assert [each.model for each in found.models] == [plan.candidates[0].card.id]


def test_another_strategy_chooses_another_model_and_costs_what_it_costs() -> None:
    found = again(made(), made(), strategy="quality")
    assert (found.requests, found.changed, found.unpriced, found.unanswered) == (2, 2, 0, 0)
    assert found.was.cost_nano == 0 and found.was.local == 1.0 and found.was.success == pytest.approx(0.88)
    cost = 1_000 * 4_000 + 100 * 20_000  # nano-dollars, of the tokens that the answers really had
    assert found.would.cost_nano == 2 * cost and found.would.local == 0 and found.would.success == 0.96
    assert [tuple(each) for each in found.models] == [(SMALL, 2, 0, 0, 0), (LARGE, 0, 2, 0, 2 * cost)]


def test_with_an_unknown_price_the_plans_estimate_counts() -> None:
    found = again(made(), strategy="quality", known=lambda model: None)
    assert found.would.cost_nano == 8_000_000


def test_without_another_strategy_each_keeps_its_own() -> None:
    by_quality = (THREE[2], THREE[1], THREE[0])
    decisions = made(), made(by_quality, strategy="quality", cost_nano=5)
    found = again(*decisions)
    assert found.changed == 0 and found.was == found.would
    assert again(*decisions, strategy="cost").changed == 1


def test_who_asks_for_a_strategy_by_name_means_it() -> None:
    assert again(made(model_requested="auto:cost"), strategy="quality").changed == 0


def test_privacy_stays_at_home() -> None:
    """Also where the paid model is all there was: then nobody could have answered."""
    by_quality = (THREE[2], THREE[1], THREE[0])
    assert would(made(by_quality), strategy="privacy") == [SMALL]
    found = again(made((THREE[2],)), strategy="privacy")
    assert (found.unanswered, found.changed, found.unpriced) == (1, 1, 1)
    assert found.would.local is None and found.would.cost_nano == 0


def test_a_target_moves_the_threshold() -> None:
    """Four of five stay local, the hardest fifth goes to a model that can do it."""
    decisions = [made(score=at / 100) for at in range(100)]
    found = again(*decisions, target_local=0.8)
    assert found.threshold == pytest.approx(0.79, abs=0.001)
    assert found.would.local == pytest.approx(0.8)
    assert again(*decisions[:20], target_local=0.8).threshold is None


def test_another_price_list_is_ranked_by_and_charged() -> None:
    """A machine that is priced at last loses to one that costs less."""
    dear = Price(10_000_000, 50_000_000, 1, 1, 1)
    found = again(made(), prices={SMALL: dear})
    assert [each.model for each in found.models if each.would] == [MEDIUM] and found.changed == 1
    everyone = again(made(), prices={SMALL: dear, MEDIUM: dear})
    assert [each.model for each in everyone.models if each.would] == [LARGE]
    stays = again(made((THREE[2],)), prices={LARGE: dear})
    assert stays.changed == 0 and stays.would.cost_nano == 1_000 * 10_000 + 100 * 50_000


def test_without_a_size_the_estimate_of_the_plan_ranks() -> None:
    dear = Price(10_000_000, 50_000_000, 1, 1, 1)
    assert again(made(expected_in=None), prices={SMALL: dear}).changed == 0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"strategy": "named"}, "asked for by name"),
        ({"score": None}, "not classified"),
        ({"candidates": (replace(THREE[0], reason="keeps the tool loop's model"), *THREE[1:])}, "in a tool loop"),
    ],
)
def test_what_could_not_be_chosen_is_kept_and_said(more: dict[str, Any], why: str) -> None:
    found = again(made(**more), strategy="quality")
    assert (found.changed, dict(found.kept)) == (0, {why: 1})


def test_a_conversation_keeps_its_model_unless_another_is_much_better() -> None:
    own = THREE[1]
    assert would(made((own, THREE[0], THREE[2]), previous=MEDIUM), strategy="cost") == [MEDIUM]
    assert would(made((own, replace(THREE[2], success=0.92)), previous=MEDIUM), strategy="quality") == [MEDIUM]
    assert would(made((own, replace(THREE[2], success=0.99)), previous=MEDIUM), strategy="quality") == [LARGE]


def test_the_conversations_model_counts_also_where_it_was_not_the_first_choice() -> None:
    """Here one that is ill would have been; no reason of a candidate speaks of the conversation then."""
    ill = replace(THREE[0], cost_nano=0, reason="cheapest that can do it; failing lately")
    alike = [replace(THREE[1], model=model, reason="can do it too") for model in (MEDIUM, "gpu/other")]
    candidates = (*alike, ill)
    assert would(made(candidates, previous="gpu/other")) == ["gpu/other"]
    assert again(made(candidates, previous=MEDIUM)).changed == 0


@pytest.mark.parametrize("reason", ["can do it too; throttled", "emergency; local upstream gone; failing lately"])
def test_who_was_ill_then_waits(reason: str) -> None:
    ill = replace(THREE[2], reason=reason)
    assert would(made((THREE[0], THREE[1], ill)), strategy="quality") == [MEDIUM]


@pytest.mark.parametrize("reason", ["can do it too; busy", "emergency; local upstream gone"])
def test_who_was_only_busy_does_not(reason: str) -> None:
    assert would(made((THREE[0], THREE[1], replace(THREE[2], reason=reason))), strategy="quality") == [LARGE]


def test_an_emergency_stays_one() -> None:
    """Local models are slow in one, and failing in the other: then they wait behind."""
    late = (replace(THREE[2], reason=f"emergency; {SLOW}"), *THREE[:2])
    ill = [replace(each, reason=f"{each.reason}; failing lately") for each in THREE[:2]]
    for candidates, trigger in ((late, SLOW), ((replace(THREE[2], reason=f"emergency; {GONE}"), *ill), GONE)):
        assert again(made(candidates, trigger=trigger)).changed == 0


def test_preferences_count() -> None:
    """By full id, or by the bare name."""
    for name in (LARGE, "large"):
        assert would(made(), prefer={"code": ["gone", name]}) == [LARGE]
    assert would(made(), prefer={"docs": [LARGE]}) == [SMALL]


def test_who_stood_in_is_who_was_paid() -> None:
    """A choice that stays is counted with the model that answered in the end."""
    found = again(made(model=LARGE, cost_nano=6))
    assert (found.changed, found.was.cost_nano, found.would.cost_nano) == (0, 6, 6)
    assert [tuple(each) for each in found.models] == [(LARGE, 1, 1, 6, 6)]
    gone = again(made(model="old/gone", cost_nano=6))
    assert gone.was.local is None and gone.was.cost_nano == 6


def test_what_nobody_answered_is_in_no_cost() -> None:
    failed = made(model=None, cost_nano=None, tokens_in=None, tokens_out=None)
    found = again(failed, made(tokens_in=None), strategy="quality")
    assert (found.requests, found.changed, found.unpriced) == (2, 2, 2)
    assert found.would.cost_nano == 0


def test_nothing_to_replay_is_no_crash() -> None:
    found = again(Decision("r", 1.0, "auto", "cost", ()))
    assert (found.requests, found.models, found.was.local) == (0, (), None)
