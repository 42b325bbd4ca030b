"""The plan: properties that hold for every registry, request and rule; then what a client is told when none is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.caller import ANONYMOUS, Caller
from app.core.card import PARAM_OF, Ability, Card
from app.core.errors import GatewayError, ModelNotAllowed, Unavailable, UnsupportedParameter
from app.core.plan import Plan
from app.core.request import EmbeddingRequest, Request
from app.core.tokens import estimate
from app.routing.policy import Demoted, Rules, plan
from app.routing.registry import STRATEGIES, Registry
from tests.core.nouns import card, chat, embedding, paid, terms

IDS = [f"{upstream}/{name}" for upstream in ("gpu", "ollama", "claude") for name in ("small", "org/large", "x")]
AUTO = st.sampled_from(["auto", "auto", "word", *(f"auto:{each}" for each in STRATEGIES)])
NEEDS = st.frozensets(st.sampled_from([Ability.TOOLS, Ability.IMAGES]), max_size=1)
STRATEGY = st.sampled_from(STRATEGIES)
MOSTLY, SELDOM = st.sampled_from([True, True, True, False]), st.sampled_from([False, False, False, True])


@st.composite
def cards(draw: st.DrawFn) -> list[Card]:
    def abilities() -> frozenset[Ability]:
        can = {Ability.CHAT} if draw(MOSTLY) else {Ability.EMBEDDINGS}
        return frozenset(can | {each for each in (Ability.TOOLS, Ability.IMAGES) if draw(MOSTLY)})

    return [
        card(
            each,
            local=draw(MOSTLY),
            abilities=abilities(),
            context_window=draw(st.none() | st.integers(0, 300)),
            fallback=tuple(draw(st.lists(st.sampled_from(IDS), max_size=4))),
        )
        for each in draw(st.lists(st.sampled_from(IDS), unique=True, min_size=3, max_size=7))
    ]


@dataclass(frozen=True)
class Case:
    """All a plan is made of."""

    request: Request | EmbeddingRequest
    caller: Caller
    registry: Registry
    rules: Rules
    sick: frozenset[str] = frozenset()

    def plan(self, demoted: Demoted | None = None) -> Plan:
        return plan(self.request, self.caller, self.registry, self.rules, demoted or self.demoted)

    def plannable(self) -> bool:
        try:
            return bool(self.plan().candidates)
        except GatewayError:
            return False

    def when_all_are_well(self) -> list[Card]:
        return [candidate.card for candidate in self.plan(lambda each: None).candidates]

    def demoted(self, each: Card) -> str | None:
        return "failing lately" if each.id in self.sick else None

    @property
    def asked(self) -> Card | None:
        return self.registry.find(self.request.model).card

    @property
    def private(self) -> bool:
        asked, own = self.registry.find(self.request.model), self.request.terms
        strategy = asked.strategy or own.strategy or self.rules.strategy
        by_strategy = own.strategy == "privacy" or (asked.card is None and strategy == "privacy")
        return own.local_only or self.caller.privacy == "local" or by_strategy


@st.composite
def cases(draw: st.DrawFn, named: bool | None = None, routed: bool | None = None, fallback: bool | None = None) -> Case:
    """Any case, or only those that ask by name (or not), with routing and fallback on or off."""
    known = draw(cards())
    ask_by_name = draw(st.booleans()) if named is None else named
    model = draw(st.sampled_from([each.id for each in known])) if ask_by_name else draw(AUTO)
    own = terms(local_only=draw(SELDOM), strategy=draw(st.none() | STRATEGY))
    request: Request | EmbeddingRequest = chat(
        model,
        *draw(NEEDS),
        terms=own,
        input_bytes=draw(st.integers(0, 800)),
        max_tokens=draw(st.none() | st.integers(0, 200)),
    )
    if draw(SELDOM):
        request = embedding(model, terms=own)
    keys = draw(st.sampled_from([(), (), ("gpu/*", "auto*"), ("small", "word"), ("auto", "claude/*")]))
    rules = Rules(
        strategy=draw(STRATEGY),
        routed=draw(MOSTLY) if routed is None else routed,
        default_model=draw(st.none() | st.sampled_from([each.id for each in known] + ["auto"])),
        local=draw(MOSTLY),
        paid=draw(MOSTLY),
        fallback=draw(MOSTLY) if fallback is None else fallback,
    )
    caller = Caller(models=keys, privacy="local" if draw(SELDOM) else "any")
    sick = draw(st.frozensets(st.sampled_from([each.id for each in known])))
    return Case(request, caller, Registry(known, {"word": "auto"}), rules, sick)


def planned(
    named: bool | None = None, routed: bool | None = None, fallback: bool | None = None
) -> st.SearchStrategy[Case]:
    return cases(named, routed, fallback).filter(Case.plannable)


# --- what holds for every plan --------------------------------------------------------------------------------------


@given(planned())
def test_what_must_stay_local_stays_local(case: Case) -> None:
    """Whether a header, a key or the strategy says so, and whether asked by name, routed, or standing in."""
    if case.private:
        assert all(candidate.card.local for candidate in case.plan().candidates)


@given(planned())
def test_no_model_is_planned_that_cannot_do_it(case: Case) -> None:
    """It would answer something else than what was asked."""
    for candidate in case.plan().candidates:
        assert not candidate.card.lacks(case.request.needs)


@given(planned())
def test_no_model_is_planned_that_the_key_may_not_use(case: Case) -> None:
    """What a key may call also covers what its word stands for, but not what stands in for that."""
    for candidate in case.plan().candidates:
        names = [candidate.card.id, candidate.card.name]
        if case.asked is None or candidate.stands_in_for is None:
            names.append(case.request.model)
        assert case.caller.may_use(*names)


@given(planned())
def test_what_is_switched_off_is_used_only_when_asked_for_by_name(case: Case) -> None:
    """An operator who switches the cloud off wants no bill, neither from `auto` nor from what stands in."""
    for candidate in case.plan().candidates:
        on = case.rules.local if candidate.card.local else case.rules.paid
        assert on or candidate.card is case.asked


@given(planned(named=False, routed=True))
def test_every_model_is_a_candidate_or_left_out_with_a_reason(case: Case) -> None:
    """Whoever asks why a model did not answer gets an answer."""
    made = case.plan()
    planned = [candidate.card.id for candidate in made.candidates]
    left_out = [excluded.model for excluded in made.excluded]
    assert sorted(planned + left_out) == sorted(each.id for each in case.registry.cards)
    assert all(excluded.reason for excluded in made.excluded)
    assert all(candidate.reason for candidate in made.candidates)


@given(planned())
def test_the_same_decision_is_made_twice(case: Case) -> None:
    """A decision can be explained afterwards."""
    assert case.plan() == case.plan()


@given(planned(fallback=True))
def test_sick_models_go_to_the_end_and_are_never_shut_out(case: Case) -> None:
    """When all are sick the best of them is still tried; otherwise an outage would outlast its cause."""
    made, order = case.plan().candidates, [each.id for each in case.when_all_are_well()]
    well = [id_ for id_ in order if id_ not in case.sick]
    sick = [id_ for id_ in order if id_ in case.sick]
    assert [candidate.card.id for candidate in made] == well + sick
    for candidate in made:
        assert candidate.reason.endswith("; failing lately") is (candidate.card.id in case.sick)


@given(planned())
def test_no_model_is_planned_twice(case: Case) -> None:
    """A list that names a model twice, or itself, must not spend the attempts on one."""
    ids = [candidate.card.id for candidate in case.plan().candidates]
    assert len(ids) == len(set(ids))


@given(planned(named=False, routed=True, fallback=True))
def test_local_comes_before_paid_in_the_order_of_the_file(case: Case) -> None:
    """Among the healthy whose window is large enough: the free ones first, and the operator's order is kept."""
    request, places = case.request, {each.id: place for place, each in enumerate(case.registry.cards)}
    fits = [each for each in case.when_all_are_well() if large_enough(each, request)]
    assert fits == sorted(fits, key=lambda each: (not each.local, places[each.id]))


@given(planned(named=False, routed=True, fallback=True))
def test_too_small_a_window_goes_behind_and_is_not_shut_out(case: Case) -> None:
    """The estimate may be wrong: the largest of those that look too small is tried first, none is lost."""
    cards = case.when_all_are_well()
    small = [each for each in cards if not large_enough(each, case.request)]
    assert cards[len(cards) - len(small) :] == small
    windows = [each.context_window or 0 for each in small]
    assert windows == sorted(windows, reverse=True)


def large_enough(each: Card, request: Request | EmbeddingRequest) -> bool:
    if isinstance(request, EmbeddingRequest) or each.context_window is None:
        return True
    return each.context_window >= estimate(request.input_bytes) + (request.max_tokens or 0)


@given(planned(named=True))
def test_a_named_model_heads_its_own_list(case: Case) -> None:
    """It is used as asked; only what its list names may stand in, and says for whom."""
    asked = case.asked
    assert asked is not None
    made = case.plan()
    allowed = [asked.id, *dict.fromkeys(id_ for id_ in asked.fallback if id_ != asked.id)]
    ids = [each.id for each in case.when_all_are_well()]
    assert ids == [id_ for id_ in allowed if id_ in ids]
    assert made.strategy == "named"
    for candidate in made.candidates:
        assert candidate.stands_in_for == (None if candidate.card is asked else asked.id)


@given(planned(fallback=False))
def test_without_fallback_there_is_one_candidate(case: Case) -> None:
    """And for a model asked by name it is that model, sick or not."""
    (only,) = case.plan().candidates
    assert case.asked in (None, only.card)


@given(cases())
def test_whoever_cannot_be_served_is_told_in_the_contracts_words(case: Case) -> None:
    """Any registry and any rule: a plan with candidates, or one of three errors."""
    try:
        assert case.plan().candidates
    except (UnsupportedParameter, ModelNotAllowed) as error:
        assert error.param is not None
    except Unavailable as error:
        assert error.retry_after is not None


# --- examples -------------------------------------------------------------------------------------------------------


def well(each: Card) -> str | None:
    return None


def ids(made: Plan) -> list[str]:
    return [candidate.card.id for candidate in made.candidates]


CHAT = frozenset({Ability.CHAT})
TOOLS, BOTH = CHAT | {Ability.TOOLS}, CHAT | {Ability.TOOLS, Ability.IMAGES}
EMBEDDER = card("tierway/static", abilities=frozenset({Ability.EMBEDDINGS}))
"""The built-in embedder, which every registry has, at its end."""


def told(request: Request | EmbeddingRequest, cards: list[Card], **how: Any) -> GatewayError:
    """The error instead of a plan."""
    rules, caller = Rules(**how.pop("rules", {})), Caller(**how)
    with pytest.raises(GatewayError) as raised:
        plan(request, caller, Registry([*cards, EMBEDDER]), rules, well)
    return raised.value


@pytest.mark.parametrize(
    ("needs", "has", "param"),
    [
        ([Ability.TOOLS], [CHAT], "tools"),
        ([Ability.TOOLS, Ability.IMAGES], [TOOLS, CHAT], "messages"),
        ([Ability.TOOLS, Ability.IMAGES], [CHAT, TOOLS], "messages"),
        ([Ability.TOOLS, Ability.IMAGES, Ability.JSON_SCHEMA], [BOTH, CHAT], "response_format"),
    ],
)
def test_a_client_is_told_the_field_that_no_model_can_do(needs: list[Ability], has: list[Any], param: str) -> None:
    """The nearest model decides: naming `model`, because an embedder cannot chat, would help nobody."""
    error = told(chat("auto", *needs), [card(f"gpu/{n}", abilities=each) for n, each in enumerate(has)])
    assert isinstance(error, UnsupportedParameter)
    assert error.param == param
    assert all(ability in error.message for ability in needs)


@pytest.mark.parametrize(("ability", "param"), PARAM_OF.items())
def test_a_model_asked_by_name_says_what_it_cannot_do(ability: Ability, param: str) -> None:
    error = told(chat("gpu/qwen", ability), [card("gpu/qwen", abilities=frozenset(Ability) - {ability})])
    assert isinstance(error, UnsupportedParameter)
    assert (error.param, f"gpu/qwen cannot do this: {ability}." == error.message) == (param, True)


def test_an_embedder_asked_to_chat_says_that_it_cannot_chat() -> None:
    """Also when the request needs more that comes earlier in the alphabet."""
    error = told(chat("tierway/static", Ability.AUDIO), [])
    assert (type(error), error.param) == (UnsupportedParameter, "model")


@pytest.mark.parametrize(
    ("cards", "how", "kind"),
    [
        ([], {}, Unavailable),
        ([paid("claude/opus")], {"privacy": "local"}, ModelNotAllowed),
        ([card("gpu/qwen")], {"models": ("claude/*",)}, ModelNotAllowed),
        ([paid("claude/opus")], {"rules": {"paid": False}}, Unavailable),
        ([card("gpu/qwen")], {"rules": {"local": False}}, Unavailable),
        ([card("gpu/qwen", abilities=CHAT), paid("claude/opus")], {"privacy": "local"}, UnsupportedParameter),
        ([paid("claude/opus"), card("gpu/qwen")], {"privacy": "local", "rules": {"local": False}}, ModelNotAllowed),
    ],
)
def test_what_a_client_can_change_is_said_before_what_it_cannot(
    cards: list[Card], how: dict[str, Any], kind: type[GatewayError]
) -> None:
    """400 says change the request, 403 the key, 503 come again: each sends somebody else to work."""
    assert type(told(chat("auto", Ability.TOOLS), cards, **how)) is kind


def test_nobody_is_told_of_models_of_another_kind() -> None:
    """With every chat model away, the embedder that is always there is no answer."""
    error = told(chat(), [])
    assert (error.code, error.retry_after) == ("no_upstream_available", 5.0)


def test_a_named_cloud_model_is_refused_to_a_private_request() -> None:
    error = told(chat("claude/opus", terms=terms(strategy="privacy")), [paid("claude/opus"), card("gpu/qwen")])
    assert (type(error), error.message) == (ModelNotAllowed, "claude/opus is not local, which this asks for.")


def test_the_default_model_answers_when_routing_is_off() -> None:
    """With its own fallback list behind it."""
    cards = [card("gpu/a"), paid("claude/opus", fallback=("gpu/b",)), card("gpu/b"), EMBEDDER]
    made = plan(chat(), ANONYMOUS, Registry(cards), Rules(routed=False, default_model="claude/opus"), well)
    assert ids(made) == ["claude/opus", "gpu/b"]
    assert [candidate.reason for candidate in made.candidates] == ["routing is off", "fallback of claude/opus"]


def test_without_a_default_the_first_local_model_answers() -> None:
    cards = [paid("claude/opus"), EMBEDDER, card("gpu/a"), card("gpu/b")]
    assert ids(plan(chat(), ANONYMOUS, Registry(cards), Rules(routed=False), well)) == ["gpu/a"]


def test_a_default_for_chats_says_nothing_about_embeddings() -> None:
    rules = Rules(routed=False, default_model="gpu/a")
    assert ids(plan(embedding(), ANONYMOUS, Registry([card("gpu/a"), EMBEDDER]), rules, well)) == ["tierway/static"]


def test_without_any_local_model_auto_is_routed_all_the_same() -> None:
    made = plan(chat(), ANONYMOUS, Registry([paid("claude/opus")]), Rules(routed=False), well)
    assert ids(made) == ["claude/opus"]


def test_a_default_model_that_is_away_is_not_the_clients_mistake() -> None:
    """404 for `auto` would send a developer looking for a typing mistake."""
    error = told(chat(), [card("gpu/a")], rules={"routed": False, "default_model": "ollama/away"})
    assert (type(error), error.retry_after) == (Unavailable, 5.0)


def test_privacy_holds_when_routing_is_off() -> None:
    """A paid default must not see what was asked with `auto:privacy`."""
    error = told(chat("auto:privacy"), [paid("claude/opus")], rules={"routed": False, "default_model": "claude/opus"})
    assert isinstance(error, ModelNotAllowed)


def test_the_strategy_of_the_model_comes_before_the_headers_and_that_before_the_files() -> None:
    registry, rules = Registry([card("gpu/a")]), Rules(strategy="adaptive")

    def strategy(model: str, own: str | None) -> str:
        return plan(chat(model, terms=terms(strategy=own)), ANONYMOUS, registry, rules, well).strategy

    assert strategy("auto:quality", "cost") == "quality"
    assert strategy("auto", "cost") == "cost"
    assert strategy("auto", None) == "adaptive"


def test_a_large_window_is_preferred_to_a_small_one_whatever_it_costs() -> None:
    """A local model that drops half of the prompt is no saving."""
    small, larger, opus = card("gpu/s", context_window=10), card("gpu/m", context_window=50), paid("claude/opus")
    request = chat(input_bytes=400)
    made = plan(request, ANONYMOUS, Registry([small, larger, opus]), Rules(), well)
    assert ids(made) == ["claude/opus", "gpu/m", "gpu/s"]
