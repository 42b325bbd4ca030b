"""The story of a plan, by examples: what is routed, what is named, what the moment changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.caller import ANONYMOUS
from app.core.card import Ability, Card
from app.core.errors import ModelNotAllowed, Unavailable
from app.core.messages import TextPart, ThinkingPart
from app.core.plan import Plan
from app.core.request import Request
from app.core.verdict import Verdict
from app.routing.emergency import FAILURES, GONE, QUALITY, UNABLE
from app.routing.policy import plan
from app.routing.registry import Registry
from app.routing.rules import Rules
from app.routing.signals import QUIET, Signals
from tests.core.nouns import card, chat, embedding, paid, terms
from tests.routing.cases import ids, price, thinking, verdict, why

EMBEDDER = card("tierway/static", abilities=frozenset({Ability.EMBEDDINGS}))
"""The built-in embedder, which every registry has, at its end."""
SMALL = card("ollama/small", complexity=(0.0, 0.4))
MEDIUM = card("gpu/medium", complexity=(0.2, 0.7))
LARGE = paid("claude/large", complexity=(0.6, 1.0), price=price(4_000_000, 20_000_000, 200_000), kind="anthropic")
TIERS = Registry([SMALL, MEDIUM, LARGE, EMBEDDER])


def routed(
    score: float | None,
    signals: Signals = QUIET,
    rules: Rules | None = None,
    request: Request | None = None,
    registry: Registry = TIERS,
) -> Plan:
    said: Verdict | None = None if score is None else verdict(score)
    return plan(request or chat(input_bytes=400), ANONYMOUS, registry, rules or Rules(), signals, said)


# --- from simple to complex -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "order"),
    [
        (0.05, ["ollama/small", "gpu/medium", "claude/large"]),
        (0.3, ["ollama/small", "gpu/medium", "claude/large"]),
        (0.5, ["gpu/medium", "claude/large", "ollama/small"]),
        (0.9, ["claude/large", "gpu/medium", "ollama/small"]),
    ],
)
def test_each_request_goes_to_the_cheapest_model_that_can_do_it(score: float, order: list[str]) -> None:
    """With everything that can stand in behind it, the able before the weak."""
    made = routed(score)
    assert ids(made) == order
    assert made.candidates[0].reason == "cheapest that can do it"
    assert (made.score, made.strategy, made.probability) == (score, "cost", 1.0)
    assert why(made)["tierway/static"] == "it cannot do this: chat"


def test_without_a_verdict_requests_go_on_in_the_files_order() -> None:
    made = routed(None)
    assert ids(made) == ["ollama/small", "gpu/medium", "claude/large"]
    assert why(made)["ollama/small"] == "local, and it can do this"
    assert why(made)["claude/large"] == "it can do this"
    assert made.tier is None


def test_every_candidate_says_what_it_would_cost_and_how_well_it_would_do() -> None:
    """This is what `POST /v1/route` shows."""
    made = routed(0.5, Signals(first_token=lambda each: 0.4 if each.local else None))
    estimates = {candidate.card.id: candidate.estimate for candidate in made.candidates}
    assert estimates["gpu/medium"].cost_nano == 0
    assert estimates["claude/large"].cost_nano == (100 * 4_000_000 + 400 * 20_000_000) // 1_000
    assert estimates["gpu/medium"].first_token_seconds == 0.4
    assert estimates["claude/large"].first_token_seconds is None
    assert (estimates["ollama/small"].success or 1) < 0.8 < (estimates["gpu/medium"].success or 0)


# --- chains ---------------------------------------------------------------------------------------------------------

CHAINS = Rules(chains={Ability.TOOLS: ("claude/large", "gone/x", "ollama/small"), Ability.IMAGES: ("gpu/medium",)})


def test_who_is_named_for_an_ability_stands_in_first_where_it_is_needed() -> None:
    """An operator knows which of his models calls tools well; behind them all others still help."""
    with_tools = routed(0.5, rules=CHAINS, request=chat("auto", Ability.TOOLS, input_bytes=400))
    assert ids(with_tools) == ["gpu/medium", "claude/large", "ollama/small"]
    assert why(with_tools)["claude/large"] == "in the chain for tools"
    assert with_tools.candidates[0].reason == "cheapest that can do it"
    other = paid("claude/other", complexity=(0.0, 1.0), price=price(1, 1))
    both = Registry([SMALL, MEDIUM, other, LARGE, EMBEDDER])
    made = routed(0.5, rules=CHAINS, request=chat("auto", Ability.TOOLS, input_bytes=400), registry=both)
    assert ids(made) == ["gpu/medium", "claude/large", "ollama/small", "claude/other"]


def test_chains_are_for_what_needs_the_ability_alone() -> None:
    plain = ids(routed(0.5))
    assert ids(routed(0.5, rules=CHAINS)) == plain == ["gpu/medium", "claude/large", "ollama/small"]
    assert "in the chain for tools" not in why(routed(0.5, rules=CHAINS)).values()


def test_a_chain_neither_hides_an_emergency_nor_puts_the_sick_in_front() -> None:
    request = chat("auto", Ability.TOOLS, input_bytes=400)
    signals = Signals(emergency=FAILURES, demoted=lambda each: "failing lately" if each.id == "ollama/small" else None)
    made = routed(0.5, signals, replace(CHAINS, emergency=True), request)
    assert ids(made) == ["gpu/medium", "claude/large", "ollama/small"]
    assert why(made)["claude/large"] == f"emergency; {FAILURES}"
    assert why(made)["ollama/small"] == "in the chain for tools; failing lately"
    assert why(routed(0.5, rules=replace(CHAINS, emergency=True), request=request))["claude/large"].startswith("paid")


# --- cloud ----------------------------------------------------------------------------------------------------------


def test_outside_an_emergency_hard_requests_stay_local() -> None:
    made = routed(0.9, rules=Rules(emergency=True))
    assert ids(made) == ["gpu/medium", "ollama/small"]
    assert made.candidates[0].reason == "nearest to what it asks for"
    assert why(made)["claude/large"] == "paid upstreams wait for an emergency"
    assert made.trigger is None


def test_paid_models_wait_in_the_order_in_which_an_emergency_would_try_them() -> None:
    """A request that finds out by itself that its local models are gone must have somewhere to go."""
    other = paid("claude/other", complexity=(0.0, 0.5), price=price(1_000_000, 5_000_000))
    registry = Registry([*TIERS.cards, other])
    hard, easy = (routed(score, rules=Rules(emergency=True), registry=registry).reserve for score in (0.9, 0.1))
    assert [each.card.id for each in hard] == ["claude/large", "claude/other"]
    assert [each.card.id for each in easy] == ["claude/other", "claude/large"]
    assert all(each.estimate.cost_nano for each in hard)
    assert routed(0.9, rules=Rules(emergency=True, fallback=False)).reserve == ()
    assert routed(0.9, Signals(emergency=QUALITY), Rules(emergency=True)).reserve == ()
    assert routed(0.9).reserve == ()


def test_an_emergency_brings_the_paid_model_first_and_says_why() -> None:
    """A local model of bad quality does not fail: behind it the paid one would never be asked."""
    made = routed(0.9, Signals(emergency=QUALITY), Rules(emergency=True))
    assert ids(made) == ["claude/large", "gpu/medium", "ollama/small"]
    assert made.candidates[0].reason == f"emergency; {QUALITY}"
    assert made.trigger == QUALITY


def test_while_local_models_fail_the_paid_one_stands_behind_those_that_are_well() -> None:
    """Else no local model would be asked again, and the emergency would never end."""
    rules, sick = Rules(emergency=True), "gpu/medium"
    signals = Signals(emergency=FAILURES, demoted=lambda each: "failing lately" if each.id == sick else None)
    made = routed(0.3, signals, rules)
    assert ids(made) == ["ollama/small", "claude/large", "gpu/medium"]
    assert why(made)["claude/large"] == f"emergency; {FAILURES}"
    assert (made.candidates[0].reason, made.trigger) == ("cheapest that can do it", FAILURES)


@pytest.mark.parametrize(
    ("cards", "trigger"),
    [
        ([LARGE], GONE),
        ([card("gpu/mute", abilities=frozenset({Ability.CHAT})), LARGE], UNABLE),
        ([card("gpu/narrow", context_window=10), LARGE], UNABLE),
    ],
)
def test_no_local_model_that_could_do_it_is_an_emergency(cards: list[Card], trigger: str) -> None:
    request = chat("auto", Ability.TOOLS, input_bytes=1_000)
    made = routed(0.3, rules=Rules(emergency=True), request=request, registry=Registry([*cards, EMBEDDER]))
    assert (ids(made), made.trigger) == (["claude/large"], trigger)


def test_local_models_that_were_switched_off_are_no_emergency() -> None:
    """It is what the operator wanted."""
    with pytest.raises(Unavailable):
        routed(0.3, rules=Rules(emergency=True, local=False))


# --- load and waiting -----------------------------------------------------------------------------------------------


def full(*busy: str) -> Signals:
    return Signals(load=lambda each: 0.95 if each.id in busy else 0.1)


def test_a_free_model_of_the_same_size_goes_before_a_busy_one() -> None:
    twin = card("gpu/twin", complexity=(0.2, 0.7))
    made = routed(0.5, full("gpu/medium"), registry=Registry([MEDIUM, twin, LARGE]))
    assert ids(made) == ["gpu/twin", "gpu/medium", "claude/large"]
    assert why(made)["gpu/twin"] == "free, while its like is busy"
    assert why(made)["gpu/medium"] == "cheapest that can do it; busy"


def test_a_busy_model_without_its_like_is_used_all_the_same() -> None:
    """Load alone makes nobody pay, and gives nobody a weaker model."""
    made = routed(0.5, full("gpu/medium"))
    assert ids(made) == ["gpu/medium", "claude/large", "ollama/small"]
    assert made.candidates[0].reason == "cheapest that can do it; busy"


def test_a_smaller_model_may_help_out_if_that_is_allowed() -> None:
    made = routed(0.5, full("gpu/medium"), Rules(degrade=True))
    assert ids(made) == ["ollama/small", "gpu/medium", "claude/large"]
    assert made.candidates[0].reason == "smaller, while the right one is busy"
    assert ids(routed(0.5, full("gpu/medium", "ollama/small"), Rules(degrade=True)))[0] == "gpu/medium"


def test_idle_upstreams_change_nothing() -> None:
    assert routed(0.5, full()) == routed(0.5)


def test_slow_local_models_wait_behind_paid_ones_that_can_do_it() -> None:
    slow = Signals(first_token=lambda each: 9.0 if each.local else 1.0)
    assert ids(routed(0.65, slow))[0] == "gpu/medium"
    assert ids(routed(0.65, slow, Rules(max_local_latency=5.0)))[:2] == ["claude/large", "gpu/medium"]


# --- the conversation -----------------------------------------------------------------------------------------------


def test_a_conversation_keeps_its_model_until_another_is_cheaper() -> None:
    """Also when a smaller one would do: it would have to read everything again."""
    made = routed(0.1, Signals(previous="gpu/medium"))
    assert ids(made)[0] == "gpu/medium"
    assert made.candidates[0].reason == "keeps the conversation's model"
    assert ids(routed(0.1, Signals(previous="claude/large")))[0] == "ollama/small"


def test_a_slightly_harder_turn_does_not_change_the_model() -> None:
    assert ids(routed(0.75, Signals(previous="gpu/medium")))[0] == "gpu/medium"
    assert ids(routed(0.85, Signals(previous="gpu/medium")))[0] == "claude/large"


def test_a_cheaper_model_must_be_cheaper_than_the_cache_that_would_be_lost() -> None:
    """The history is cheap to the model that has it in its cache, and dear to all others."""
    cheaper = paid("vendor/cheaper", complexity=(0.6, 1.0), price=price(2_000_000, 19_000_000))
    registry, request = Registry([LARGE, cheaper]), chat(input_bytes=400_000)
    assert ids(routed(0.9, request=request, registry=registry))[0] == "vendor/cheaper"
    cached = Signals(previous="claude/large", history_tokens=99_000)
    assert ids(routed(0.9, cached, request=request, registry=registry))[0] == "claude/large"


def test_a_tool_loop_keeps_its_model_whatever_the_score() -> None:
    """30 turns with tools are one piece of work."""
    loop = Signals(previous="claude/large", in_tool_loop=True)
    for score in (None, 0.05, 0.5, 0.95):
        made = routed(score, loop)
        assert ids(made)[0] == "claude/large"
        assert made.candidates[0].reason == "keeps the tool loop's model"


def test_a_tool_loop_goes_on_with_another_model_when_its_own_fails() -> None:
    """Better another model than none."""
    loop = Signals(demoted=lambda each: "failing lately" if not each.local else None, previous="claude/large")
    made = routed(0.9, Signals(demoted=loop.demoted, previous="claude/large", in_tool_loop=True))
    assert ids(made) == ["gpu/medium", "ollama/small", "claude/large"]
    assert made.candidates[-1].reason == "keeps the tool loop's model; failing lately"


SIGNED = thinking(ThinkingPart("hm", signature="s"), TextPart("yes"))


def test_signed_thinking_stays_with_its_model_wherever_that_is_offered() -> None:
    twin = paid("bedrock/large", complexity=(0.6, 1.0), kind="anthropic")
    registry = Registry([SMALL, MEDIUM, twin, LARGE])
    made = routed(0.1, Signals(previous="claude/large"), request=chat(messages=SIGNED), registry=registry)
    assert ids(made) == ["claude/large", "bedrock/large"]
    assert why(made)["ollama/small"] == "signed thinking does not move to another model"


@pytest.mark.parametrize("previous", [None, "claude/retired"])
def test_signed_thinking_of_nobody_we_know_stops_nobody(previous: str | None) -> None:
    """It is lost anyway, and a conversation that can go nowhere helps nobody."""
    made = routed(0.1, Signals(previous=previous), request=chat(messages=SIGNED))
    assert ids(made)[0] == "ollama/small"


def test_redacted_thinking_is_signed_and_plain_thinking_is_not() -> None:
    previous = Signals(previous="claude/large")
    redacted = routed(0.1, previous, request=chat(messages=thinking(ThinkingPart("", redacted="x"))))
    plain = routed(0.1, previous, request=chat(messages=thinking(ThinkingPart("hm"))))
    assert (ids(redacted), len(ids(plain))) == (["claude/large"], 3)


def test_who_stands_in_for_a_named_model_never_gets_its_signed_thinking() -> None:
    """Another Claude would refuse it; a model whose wire leaves it out, and says so, may go on."""
    opus = paid("claude/opus", kind="anthropic", fallback=("claude/sonnet", "gpu/qwen"))
    registry = Registry([opus, paid("claude/sonnet", kind="anthropic"), card("gpu/qwen")])
    made = routed(None, request=chat("claude/opus", messages=SIGNED), registry=registry)
    assert ids(made) == ["claude/opus", "gpu/qwen"]
    assert len(ids(routed(None, request=chat("claude/opus"), registry=registry))) == 3


# --- what the operator prefers, targets and tries -------------------------------------------------------------------


def test_what_is_preferred_for_a_kind_of_task_goes_first() -> None:
    """In the order given; names that are not there now, and modes, are passed over."""
    rules = Rules(prefer={"docs": ("ollama/away", "mode/refine", "large", "auto", "gpu/medium", "large")})
    made = plan(chat(), ANONYMOUS, TIERS, rules, QUIET, verdict(0.1, "docs"))
    assert ids(made) == ["claude/large", "gpu/medium", "ollama/small"]
    assert made.candidates[0].reason == "preferred for this kind of task"
    assert ids(plan(chat(), ANONYMOUS, TIERS, rules, QUIET, verdict(0.1, "code")))[0] == "ollama/small"


def test_a_threshold_decides_what_stays_local() -> None:
    easy, hard = routed(0.5, rules=Rules(threshold=0.6)), routed(0.65, rules=Rules(threshold=0.6))
    assert ids(easy) == ["gpu/medium", "ollama/small", "claude/large"]
    assert easy.candidates[0].reason == "easy enough to stay local"
    assert ids(hard)[0] == "claude/large"
    assert hard.candidates[0].reason == "too hard to stay local"


@pytest.mark.parametrize(("previous", "first"), [("gpu/medium", "gpu/medium"), ("claude/large", "claude/large")])
def test_near_the_threshold_a_conversation_stays_on_its_side(previous: str, first: str) -> None:
    assert ids(routed(0.6, Signals(previous=previous), Rules(threshold=0.6)))[0] == first


# --- routing off, and models by name --------------------------------------------------------------------------------


def test_the_default_model_answers_when_routing_is_off() -> None:
    """With its own fallback list behind it."""
    cards = [card("gpu/a"), paid("claude/opus", fallback=("gpu/b",)), card("gpu/b"), EMBEDDER]
    made = plan(chat(), ANONYMOUS, Registry(cards), Rules(routed=False, default_model="claude/opus"))
    assert ids(made) == ["claude/opus", "gpu/b"]
    assert [candidate.reason for candidate in made.candidates] == ["routing is off", "fallback of claude/opus"]


def test_without_a_default_the_first_local_model_answers() -> None:
    cards = [paid("claude/opus"), EMBEDDER, card("gpu/a"), card("gpu/b")]
    assert ids(plan(chat(), ANONYMOUS, Registry(cards), Rules(routed=False))) == ["gpu/a"]


def test_a_default_for_chats_says_nothing_about_embeddings() -> None:
    rules = Rules(routed=False, default_model="gpu/a")
    assert ids(plan(embedding(), ANONYMOUS, Registry([card("gpu/a"), EMBEDDER]), rules)) == ["tierway/static"]


def test_without_any_local_model_auto_is_routed_all_the_same() -> None:
    made = plan(chat(), ANONYMOUS, Registry([paid("claude/opus")]), Rules(routed=False))
    assert ids(made) == ["claude/opus"]


def test_a_default_model_that_is_away_is_not_the_clients_mistake() -> None:
    """404 for `auto` would send a developer looking for a typing mistake."""
    with pytest.raises(Unavailable) as raised:
        plan(chat(), ANONYMOUS, Registry([card("gpu/a")]), Rules(routed=False, default_model="ollama/away"))
    assert raised.value.retry_after == 5.0


def test_privacy_holds_when_routing_is_off() -> None:
    """A paid default must not see what was asked with `auto:privacy`."""
    rules = Rules(routed=False, default_model="claude/opus")
    with pytest.raises(ModelNotAllowed):
        plan(chat("auto:privacy"), ANONYMOUS, Registry([paid("claude/opus")]), rules)


def test_the_strategy_of_the_model_comes_before_the_headers_and_that_before_the_files() -> None:
    registry, rules = Registry([card("gpu/a")]), Rules(strategy="adaptive")

    def strategy(model: str, own: str | None) -> str:
        return plan(chat(model, terms=terms(strategy=own)), ANONYMOUS, registry, rules).strategy

    assert strategy("auto:quality", "cost") == "quality"
    assert strategy("auto", "cost") == "cost"
    assert strategy("auto", None) == "adaptive"


def test_a_large_window_is_preferred_to_a_small_one_whatever_it_costs() -> None:
    """A local model that drops half of the prompt is no saving."""
    small, larger, opus = card("gpu/s", context_window=40), card("gpu/m", context_window=50), paid("claude/opus")
    request = chat(input_bytes=400)
    made = plan(request, ANONYMOUS, Registry([small, larger, opus]), Rules())
    assert ids(made) == ["claude/opus", "gpu/m", "gpu/s"]
