"""What a model can do, and what to tell a client when it cannot."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from app.core.card import PARAM_OF, Ability
from app.core.request import Request
from tests.core.nouns import card

ABILITIES = st.frozensets(st.sampled_from(Ability))
OPENAI_FIELDS = {"modalities", "response_format", "reasoning_effort", "logprobs"}


@given(needs=ABILITIES, has=ABILITIES)
def test_a_model_lacks_exactly_what_it_does_not_have(needs: frozenset[Ability], has: frozenset[Ability]) -> None:
    """A model that lacks something would answer another question than the one asked."""
    lacking = card("gpu/qwen", abilities=has).lacks(needs)
    assert lacking == {ability for ability in needs if ability not in has}
    assert lacking | has >= needs


def test_every_ability_names_the_field_that_asks_for_it() -> None:
    """A client is told which field to change; an ability without one would end in a KeyError instead."""
    assert set(PARAM_OF) == set(Ability)
    known = {field.name for field in fields(Request)} | OPENAI_FIELDS
    assert set(PARAM_OF.values()) <= known


def test_unknown_is_not_zero() -> None:
    """A model nobody said the price or the window of must not look free, or too small for everything."""
    plain = card("gpu/qwen")
    assert plain.price is None
    assert plain.context_window is None
    assert plain.max_output is None
    assert plain.complexity == (0.0, 1.0)
