"""The strategies, by what an operator who chooses one expects of it."""

from __future__ import annotations

import pytest

from app.core.caller import ANONYMOUS
from app.core.card import Card
from app.core.plan import Plan
from app.routing.emergency import FAILURES, GONE, QUALITY, SLOW
from app.routing.policy import plan
from app.routing.registry import STRATEGIES, Registry
from app.routing.rules import Rules
from app.routing.signals import QUIET, Observed, Signals
from app.routing.strategies import LOCAL, PAID, RANKS, WORDS, side_of
from tests.core.nouns import card, chat, paid
from tests.routing.cases import CHEAP, DEAR, ids, price, verdict, why

SMALL, MEDIUM = card("gpu/small", complexity=(0.0, 0.4)), card("gpu/medium", complexity=(0.2, 0.7))
HAIKU = paid("claude/haiku", complexity=(0.0, 0.4), price=CHEAP)
SONNET = paid("claude/sonnet", complexity=(0.3, 0.8), price=price(2_000_000, 10_000_000))
OPUS = paid("claude/opus", complexity=(0.6, 1.0), price=DEAR)
ALL = [SMALL, MEDIUM, HAIKU, SONNET, OPUS]


def ranked(strategy: str, score: float, cards: list[Card] = ALL, signals: Signals = QUIET, **rules: object) -> Plan:
    made = Rules(strategy=strategy, **rules)  # type: ignore[arg-type]
    return plan(chat(input_bytes=4_000), ANONYMOUS, Registry(cards), made, signals, verdict(score, "code"))


def seen(**means: float) -> Signals:
    return Signals(observed=lambda each, task, tier: Observed(means[each.name], 1_000) if each.name in means else None)


# --- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "first"),
    [(0.0, "gpu/small"), (0.4, "gpu/small"), (0.41, "gpu/medium"), (0.71, "claude/sonnet"), (0.81, "claude/opus")],
)
def test_cost_takes_the_cheapest_whose_range_covers_the_score(score: float, first: str) -> None:
    assert ids(ranked("cost", score))[0] == first


def test_behind_the_able_come_the_weak_the_nearest_first() -> None:
    """The tail is what is tried when the others fail: better a good guess than an error."""
    made = ranked("cost", 0.75)
    assert ids(made) == ["claude/sonnet", "claude/opus", "gpu/medium", "gpu/small", "claude/haiku"]
    assert [candidate.reason for candidate in made.candidates] == [
        "cheapest that can do it",
        "can do it too",
        *["weaker than it asks for"] * 3,
    ]


def test_what_was_seen_to_fail_is_not_cheap() -> None:
    """A local model that is in range, but whose answers were bad, hands over to the next."""
    assert ids(ranked("cost", 0.5, signals=seen(medium=0.3)))[0] == "claude/sonnet"
    assert ids(ranked("cost", 0.5, signals=seen(medium=0.9)))[0] == "gpu/medium"


def test_the_bar_is_not_higher_than_the_best_can_reach() -> None:
    """Where the quality signal is stern with everyone, the dearest must not get all traffic for it."""
    everyone = {"small": 0.6, "medium": 0.6, "haiku": 0.6, "sonnet": 0.6, "opus": 0.61}
    assert ids(ranked("cost", 0.5, signals=seen(**everyone)))[0] == "gpu/medium"


def test_an_unknown_price_is_not_a_low_one() -> None:
    assert ids(ranked("cost", 0.9, [paid("vendor/mystery"), OPUS]))[0] == "claude/opus"


def test_among_free_models_the_smaller_saves_the_machine() -> None:
    assert ids(ranked("cost", 0.3, [MEDIUM, SMALL])) == ["gpu/small", "gpu/medium"]


# --- quality, privacy -----------------------------------------------------------------------------------------------


def test_quality_takes_the_best_whatever_it_costs() -> None:
    made = ranked("quality", 0.1)
    assert ids(made)[0] == "claude/opus"
    assert (made.candidates[0].reason, made.candidates[1].reason) == ("best for it", "next best for it")


def test_quality_learns_who_is_best() -> None:
    assert ids(ranked("quality", 0.1, signals=seen(opus=0.6, haiku=0.99)))[0] == "claude/haiku"


def test_quality_among_equals_takes_the_cheaper() -> None:
    twin = paid("vendor/opus", complexity=(0.6, 1.0), price=CHEAP)
    assert ids(ranked("quality", 0.9, [OPUS, twin])) == ["vendor/opus", "claude/opus"]


def test_a_conversation_under_quality_changes_for_a_clear_gain_only() -> None:
    near = Signals(previous="claude/sonnet")
    assert ids(ranked("quality", 0.5, signals=near))[0] == "claude/sonnet"
    assert ids(ranked("quality", 0.95, signals=near))[0] == "claude/opus"


def test_privacy_is_local_only_and_otherwise_like_cost() -> None:
    made = ranked("privacy", 0.5)
    assert ids(made) == ["gpu/medium", "gpu/small"]
    assert [candidate.reason for candidate in made.candidates] == [
        "local, and can do it",
        "local, but weaker than it asks for",
    ]
    assert why(made)["claude/opus"] == "it is not local"
    assert ranked("privacy", 0.95).candidates[0].reason == "strongest local one"


# --- adaptive -------------------------------------------------------------------------------------------------------


def test_adaptive_weighs_success_against_cost() -> None:
    """What is nearly as good for nothing wins; what is clearly better is paid for."""
    assert not ranked("adaptive", 0.5).candidates[0].card.price
    assert ids(ranked("adaptive", 0.9))[0] == "claude/opus"
    assert ids(ranked("adaptive", 0.9, signals=seen(medium=0.95, opus=0.96)))[0] == "gpu/medium"


def test_adaptive_weighs_waiting() -> None:
    twin = card("ollama/medium", complexity=(0.2, 0.7))
    slow = Signals(first_token=lambda each: 8.0 if each.upstream == "gpu" else 0.5)
    assert ids(ranked("adaptive", 0.5, [MEDIUM, twin], slow))[0] == "ollama/medium"


def test_adaptive_takes_an_unknown_price_for_the_dearest() -> None:
    twin = paid("vendor/opus", complexity=(0.6, 1.0))
    assert ids(ranked("adaptive", 0.9, [twin, OPUS])) == ["vendor/opus", "claude/opus"]
    assert ids(ranked("adaptive", 0.9, [twin, paid("b/opus", complexity=(0.6, 1.0), price=CHEAP), OPUS]))[0] == "b/opus"


def test_adaptive_explores_now_and_then_but_not_within_a_conversation() -> None:
    """A new model would have to read it all."""
    lucky = Signals(draw=0.0)
    made = ranked("adaptive", 0.3, signals=lucky)
    assert (made.candidates[0].reason, made.probability) == ("explored", 0.05)
    usual = ranked("adaptive", 0.3)
    assert (usual.candidates[0].reason, round(usual.probability, 9)) == ("best by experience", 0.94)
    in_it = ranked("adaptive", 0.3, signals=Signals(draw=0.0, previous="gpu/small"))
    assert (ids(in_it)[0], in_it.probability) == ("gpu/small", 1.0)


# --- the words ------------------------------------------------------------------------------------------------------


def test_every_strategy_has_its_order_and_its_words() -> None:
    assert set(RANKS) == set(WORDS) == set(STRATEGIES)


def test_reasons_are_few_short_and_without_figures() -> None:
    """They are labels of a metric; what is of the moment comes after a semicolon."""
    for words in WORDS.values():
        for reason in words:
            assert len(reason) < 40
            assert not set(reason) & set("0123456789;")


@pytest.mark.parametrize(
    ("score", "threshold", "trigger", "side"),
    [
        (0.5, None, None, None),
        (0.5, 0.6, None, LOCAL),
        (0.6, 0.6, None, PAID),
        (0.1, 0.6, SLOW, PAID),
        (0.9, 0.6, GONE, LOCAL),
        (None, 0.6, None, None),
        (None, None, QUALITY, PAID),
        (None, None, FAILURES, LOCAL),
    ],
)
def test_the_side_that_goes_first(
    score: float | None, threshold: float | None, trigger: str | None, side: str | None
) -> None:
    said = None if score is None else verdict(score)
    assert side_of(said, Rules(threshold=threshold), None, trigger) == side
