"""What holds of the plan for every registry, request, rule, signal and verdict."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from app.core.card import Card
from app.core.errors import BudgetExceeded, GatewayError, ModelNotAllowed, Unavailable, UnsupportedParameter
from app.core.messages import ThinkingPart
from app.core.money import Price
from app.core.request import EmbeddingRequest, Request
from app.core.tokens import estimate
from app.routing.registry import Registry
from app.routing.signals import QUIET
from tests.routing.cases import EVERY, Case, cases, planned, verdict


def routed() -> st.SearchStrategy[Case]:
    return planned(named=False, routed=True)


def plain(case: Case) -> Case:
    """Nothing but the registry, the request and the operator's switches; no verdict."""
    rules = replace(case.rules, emergency=False, max_local_latency=None, prefer={}, chains={})
    return replace(case, rules=rules, loads=None, waits=None, signals=QUIET, verdict=None)


@EVERY
@given(planned())
def test_what_must_stay_local_stays_local(case: Case) -> None:
    """Whether a header, a key or the strategy says so, and whether asked by name, routed, in a rollout, in an
    emergency, explored or standing in."""
    if case.private:
        assert all(candidate.card.local for candidate in case.plan().candidates)


@EVERY
@given(planned())
def test_no_model_is_planned_that_cannot_do_it(case: Case) -> None:
    """It would answer something else than what was asked."""
    for candidate in case.plan().candidates:
        assert not candidate.card.lacks(case.request.needs)


@EVERY
@given(planned())
def test_no_model_is_planned_that_the_key_may_not_use(case: Case) -> None:
    """What a key may call also covers what its word stands for, but not what stands in for that."""
    for candidate in case.plan().candidates:
        names = [candidate.card.id, candidate.card.name]
        if case.asked is None or candidate.stands_in_for is None:
            names.append(case.request.model)
        assert case.caller.may_use(*names)


@EVERY
@given(planned())
def test_what_is_switched_off_is_used_only_when_asked_for_by_name(case: Case) -> None:
    """An operator who switches the cloud off wants no bill, neither from `auto` nor from what stands in."""
    for candidate in case.plan().candidates:
        on = case.rules.local if candidate.card.local else case.rules.paid
        assert on or candidate.card is case.asked


@EVERY
@given(planned())
def test_no_model_is_planned_that_costs_more_than_the_request_may(case: Case) -> None:
    """`x-tierway-max-cost` binds fallbacks, favourites and chance as well; what cannot be priced cannot be promised."""
    limit = case.request.terms.max_cost_nano
    for candidate in case.plan().candidates:
        cost = candidate.estimate.cost_nano
        assert limit is None or (cost is not None and cost <= limit)


@EVERY
@given(routed())
def test_in_an_emergency_mode_paid_models_need_a_trigger(case: Case) -> None:
    """Each use of the cloud is an event with its trigger; without one there is no use."""
    made = case.plan()
    some_paid = any(not candidate.card.local for candidate in made.candidates)
    assert (made.trigger is not None) == (case.rules.emergency and some_paid)


@EVERY
@given(routed())
def test_who_may_follow_in_an_emergency_breaks_no_other_rule(case: Case) -> None:
    """Privacy, abilities, keys, limits and switches bind the reserve as well; and called up, it is accounted for."""
    made = case.plan()
    for candidate in made.reserve:
        card, cost, limit = candidate.card, candidate.estimate.cost_nano, case.request.terms.max_cost_nano
        assert case.rules.emergency and case.rules.paid and case.rules.fallback and made.trigger is None
        assert not (card.local or case.private or card.lacks(case.request.needs))
        assert case.caller.may_use(card.id, card.name, case.request.model)
        assert limit is None or (cost is not None and cost <= limit)
    called = made.called_up("gone")
    considered = [candidate.card.id for candidate in called.candidates] + [left.model for left in called.excluded]
    assert sorted(considered) == sorted(each.id for each in case.registry.cards)


@EVERY
@given(routed())
def test_every_model_is_a_candidate_or_left_out_with_a_reason(case: Case) -> None:
    """Whoever asks why a model did not answer gets an answer."""
    made = case.plan()
    considered = [candidate.card.id for candidate in made.candidates]
    left_out = [excluded.model for excluded in made.excluded]
    assert sorted(considered + left_out) == sorted(each.id for each in case.registry.cards)
    assert all(excluded.reason for excluded in made.excluded)
    assert all(candidate.reason for candidate in made.candidates)


@EVERY
@given(planned())
def test_the_same_decision_is_made_twice(case: Case) -> None:
    """A decision can be explained afterwards, also by a registry that has made none before."""
    made = case.plan()
    assert made == case.plan()
    assert made == replace(case, registry=Registry(case.registry.cards, {"word": "auto"})).plan()


@EVERY
@given(planned(fallback=True))
def test_sick_models_go_to_the_end_and_are_never_shut_out(case: Case) -> None:
    """When all are sick the best of them is still tried; otherwise an outage would outlast its cause."""
    case = replace(case, signals=replace(case.signals, draw=1.0))
    made, order = case.plan().candidates, [each.id for each in case.when_all_are_well()]
    well = [id_ for id_ in order if id_ not in case.sick]
    sick = [id_ for id_ in order if id_ in case.sick]
    assert [candidate.card.id for candidate in made] == well + sick
    for candidate in made:
        assert candidate.reason.endswith("; failing lately") is (candidate.card.id in case.sick)


@EVERY
@given(planned())
def test_neither_load_nor_waiting_shuts_anybody_out(case: Case) -> None:
    """What is slow or full is still better than nothing."""
    idle = replace(case, loads=None, waits=None, signals=replace(case.signals, draw=1.0))
    assert {each.card.id for each in case.plan().candidates} == {each.card.id for each in idle.plan().candidates} or (
        not case.rules.fallback
    )


@EVERY
@given(planned())
def test_no_model_is_planned_twice(case: Case) -> None:
    """A list that names a model twice, or itself, must not spend the attempts on one."""
    ids = [candidate.card.id for candidate in case.plan().candidates]
    assert len(ids) == len(set(ids))


MORE = st.sampled_from([0, 0, 1, 1_000_000, 30_000_000])


@EVERY
@given(routed(), st.data())
def test_raising_a_price_never_makes_a_model_come_earlier_under_cost(case: Case, data: st.DataObject) -> None:
    """A vendor must not gain traffic by asking for more."""
    request = replace(case.request, model="auto", terms=replace(case.request.terms, strategy=None))
    rules = replace(case.rules, strategy="cost", fallback=True)
    case = replace(case, request=request, rules=rules, verdict=case.verdict or verdict(0.5))
    priced = [each for each in case.registry.cards if each.price is not None]
    assume(priced and case.plannable())
    before, card = case.plan(), data.draw(st.sampled_from(priced))
    assert before.strategy == "cost" and card.price is not None
    dearer = replace(card, price=raised(card.price, *data.draw(st.tuples(MORE, MORE, MORE))))
    cards = [dearer if each is card else each for each in case.registry.cards]
    try:
        after = replace(case, registry=Registry(cards, {"word": "auto"})).plan()
    except GatewayError:
        return
    assert place(before.candidates, card.id) <= place(after.candidates, card.id)


def raised(price: Price, input_: int, output: int, cache_read: int) -> Price:
    return replace(
        price,
        input=price.input + input_,
        output=price.output + output,
        cache_read=price.cache_read + cache_read,
        above=tuple((tokens, raised(dearer, input_, output, cache_read)) for tokens, dearer in price.above),
    )


def place(candidates: tuple[object, ...], id_: str) -> int:
    ids = [candidate.card.id for candidate in candidates]  # type: ignore[attr-defined]
    return ids.index(id_) if id_ in ids else len(ids) + 1


@EVERY
@given(routed())
def test_a_running_tool_loop_keeps_its_model(case: Case) -> None:
    """Half a tool loop told by one model and half by another makes no sense to either."""
    case = replace(case, signals=replace(case.signals, in_tool_loop=True), sick=frozenset())
    made = case.plan()
    previous = case.signals.previous
    if case.rules.fallback and previous in [candidate.card.id for candidate in made.candidates]:
        assert made.candidates[0].card.id == previous


@EVERY
@given(routed())
def test_signed_thinking_never_goes_to_another_model(case: Case) -> None:
    """Its signature holds for its own model only; another would refuse the request or be misled."""
    signer = case.registry.get(case.signals.previous or "")
    ids = [candidate.card for candidate in case.plan().candidates]
    if signer is not None and signer in ids and is_signed(case.request):
        assert all((card.name, card.kind) == (signer.name, signer.kind) for card in ids)


def is_signed(request: Request | EmbeddingRequest) -> bool:
    return isinstance(request, Request) and any(
        isinstance(part, ThinkingPart) for message in request.messages for part in message.parts
    )


@EVERY
@given(routed())
def test_the_probability_is_that_of_the_choice(case: Case) -> None:
    """Only chance makes it less than one, and only `adaptive` takes chances."""
    made = case.plan()
    assert 0 < made.probability <= 1
    if made.strategy != "adaptive" or made.verdict is None:
        assert made.probability == 1


@EVERY
@given(routed())
def test_without_a_verdict_local_comes_before_paid_in_the_order_of_the_file(case: Case) -> None:
    """When the classifier fails requests go on: the free ones first, and the operator's order is kept."""
    case = plain(case)
    assume(case.plannable() and case.rules.fallback)
    places = {each.id: place for place, each in enumerate(case.registry.cards)}
    fits = [each for each in case.when_all_are_well() if large_enough(each, case.request)]
    assert fits == sorted(fits, key=lambda each: (not each.local, places[each.id]))


@EVERY
@given(planned(named=False, routed=True, fallback=True))
def test_too_small_a_window_goes_behind(case: Case) -> None:
    """The estimate may be wrong: the largest of those that look too small is tried first."""
    case = replace(case, signals=replace(QUIET, draw=1.0), loads=None)
    assume(case.plannable())
    cards = case.when_all_are_well()
    small = [each for each in cards if not large_enough(each, case.request)]
    assert cards[len(cards) - len(small) :] == small
    windows = [each.context_window or 0 for each in small]
    assert windows == sorted(windows, reverse=True)


def large_enough(each: Card, request: Request | EmbeddingRequest) -> bool:
    if isinstance(request, EmbeddingRequest) or each.context_window is None:
        return True
    return each.context_window >= estimate(request.input_bytes) + (request.max_tokens or 0)


@EVERY
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


@EVERY
@given(planned(fallback=False))
def test_without_fallback_there_is_one_candidate(case: Case) -> None:
    """And for a model asked by name it is that model, sick or not."""
    (only,) = case.plan().candidates
    assert case.asked in (None, only.card)


@EVERY
@given(cases())
def test_whoever_cannot_be_served_is_told_in_the_contracts_words(case: Case) -> None:
    """Any registry and any rule: a plan with candidates, or one of four errors."""
    try:
        assert case.plan().candidates
    except (UnsupportedParameter, ModelNotAllowed, BudgetExceeded) as error:
        assert error.param is not None
    except Unavailable as error:
        assert error.retry_after is not None
