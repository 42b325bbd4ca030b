"""The hard rules: who may not serve at all, and what a client is told when nobody may."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.card import PARAM_OF, Ability, Card
from app.core.errors import BudgetExceeded, GatewayError, ModelNotAllowed, Unavailable, UnsupportedParameter
from app.core.request import EmbeddingRequest, Request
from app.routing.policy import plan
from app.routing.registry import Registry
from app.routing.rules import Rules
from tests.core.nouns import card, chat, paid, terms
from tests.routing.cases import ids, price, why

CHAT = frozenset({Ability.CHAT})
TOOLS, BOTH = CHAT | {Ability.TOOLS}, CHAT | {Ability.TOOLS, Ability.IMAGES}
EMBEDDER = card("tierway/static", abilities=frozenset({Ability.EMBEDDINGS}))
"""The built-in embedder, which every registry has, at its end."""


def told(request: Request | EmbeddingRequest, cards: list[Card], **how: Any) -> GatewayError:
    """The error instead of a plan."""
    rules, caller = Rules(**how.pop("rules", {})), Caller(**how)
    with pytest.raises(GatewayError) as raised:
        plan(request, caller, Registry([*cards, EMBEDDER]), rules)
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


# --- limits that come with the request ------------------------------------------------------------------------------

OPUS = paid("claude/opus", price=price(4_000_000, 20_000_000))
NO_PRICE = paid("vendor/mystery")


def limited(most: int, model: str = "auto") -> Request:
    return chat(model, input_bytes=400, terms=terms(max_cost_nano=most))


def test_what_costs_more_than_the_request_may_is_left_out() -> None:
    """And what cannot be priced cannot be promised to stay below it."""
    made = plan(limited(1_000), ANONYMOUS, Registry([card("gpu/a"), OPUS, NO_PRICE]), Rules())
    assert ids(made) == ["gpu/a"]
    assert why(made)["claude/opus"] == "it costs more than this request may"
    assert why(made)["vendor/mystery"] == "its price is not known, and this request has a limit"


def test_a_limit_that_is_just_enough_is_enough() -> None:
    cost = (100 * 4_000_000 + 400 * 20_000_000) // 1_000
    assert ids(plan(limited(cost), ANONYMOUS, Registry([OPUS]), Rules())) == ["claude/opus"]
    with pytest.raises(BudgetExceeded):
        plan(limited(cost - 1), ANONYMOUS, Registry([OPUS]), Rules())


@pytest.mark.parametrize("model", ["auto", "claude/opus"])
def test_a_limit_that_nobody_keeps_is_said(model: str) -> None:
    """Before what another model lacks: the one that is too dear had passed every other rule."""
    error = told(limited(1, model), [OPUS, card("gpu/mute", abilities=frozenset({Ability.CHAT}))], models=("claude/*",))
    assert isinstance(error, BudgetExceeded)
    assert (error.status, error.param, error.client_may_retry) == (429, "x-tierway-max-cost", False)
    assert "claude/opus" in error.message


def test_a_fallback_keeps_the_limit_too() -> None:
    asked = card("gpu/a", fallback=("claude/opus",))
    made = plan(limited(1, "gpu/a"), ANONYMOUS, Registry([asked, OPUS]), Rules())
    assert (ids(made), why(made)["claude/opus"]) == (["gpu/a"], "it costs more than this request may")


def test_a_window_that_is_certainly_too_small_is_left_out_while_another_is_not() -> None:
    """It would cut the prompt, or cost an attempt to say no; but a guess never leaves nobody."""
    small, large = card("gpu/s", context_window=100), card("gpu/l", context_window=10_000)
    request = chat(input_bytes=12_000)
    made = plan(request, ANONYMOUS, Registry([small, large]), Rules())
    assert (ids(made), why(made)["gpu/s"]) == (["gpu/l"], "its window is too small for this")
    assert ids(plan(request, ANONYMOUS, Registry([small]), Rules())) == ["gpu/s"]


def test_what_is_remembered_of_one_caller_is_not_told_another() -> None:
    """Hard rules are worked out once per kind of request: the kind must hold all they depend on."""
    registry = Registry([card("gpu/a"), OPUS])
    assert ids(plan(chat(), Caller(models=("gpu/*",)), registry, Rules())) == ["gpu/a"]
    assert ids(plan(chat(), ANONYMOUS, registry, Rules())) == ["gpu/a", "claude/opus"]
    assert ids(plan(chat(), Caller(models=("auto",)), registry, Rules())) == ["gpu/a", "claude/opus"]
    assert ids(plan(chat(), Caller(models=("claude/*",)), registry, Rules())) == ["claude/opus"]
    assert ids(plan(chat(), Caller(privacy="local"), registry, Rules())) == ["gpu/a"]
    assert ids(plan(chat(), ANONYMOUS, registry, Rules(local=False))) == ["claude/opus"]
    assert ids(plan(chat(), ANONYMOUS, registry, Rules(paid=False))) == ["gpu/a"]
