"""What the operator wrote counts more than what an upstream says, and what nobody said stays unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.schema import Model
from app.core.card import Ability, Card
from app.core.money import FREE, Price
from app.gateway.cards import OF_THE_MODEL, annotated, registered
from tests.core.nouns import card, paid

QWEN, LLAMA, OPUS = card("gpu/qwen"), card("ollama/llama3"), paid("claude/opus")
ABILITIES = st.frozensets(st.sampled_from(Ability))


def unpriced(each: Card, note: Model | None) -> Price | None:
    return None


def said(*abilities: Ability) -> Model:
    return Model(abilities=abilities)


# --- notes ----------------------------------------------------------------------------------------------------------


def test_a_card_nobody_wrote_about_stays_as_it_is() -> None:
    assert annotated(QWEN, None) is QWEN
    assert annotated(QWEN, Model()) == QWEN


@pytest.mark.parametrize(
    ("field", "theirs", "ours"),
    [
        ("complexity", (0.0, 0.4), (0.2, 0.7)),
        ("context_window", 8_192, 32_768),
        ("max_output", 1_024, 4_096),
        ("fallback", ("gpu/a",), ("claude/opus",)),
    ],
)
def test_a_note_counts_instead_of_what_the_upstream_says(field: str, theirs: Any, ours: Any) -> None:
    """An operator knows the machine; and a note about one thing leaves the others alone."""
    known = card("gpu/qwen", **{field: theirs})
    assert getattr(annotated(known, Model(**{field: ours})), field) == ours
    assert annotated(known, Model()) == known


# --- abilities ------------------------------------------------------------------------------------------------------


@given(ABILITIES, ABILITIES)
def test_abilities_of_the_model_are_what_the_note_says(theirs: frozenset[Ability], ours: frozenset[Ability]) -> None:
    """A model that is listed without tools must not be sent any; what is a matter of the wire stays as it is."""
    can = annotated(card("gpu/qwen", abilities=theirs), said(*ours)).abilities
    assert can & OF_THE_MODEL == ours & OF_THE_MODEL
    wire = frozenset({Ability.JSON_OBJECT, Ability.JSON_SCHEMA, Ability.STOP, Ability.LOGPROBS, Ability.MANY})
    assert can & wire == (theirs | ours) & wire


@pytest.mark.parametrize(
    ("ours", "can", "cannot"),
    [
        ([], [Ability.CHAT], [Ability.TOOLS, Ability.FORCED_TOOLS, Ability.CUSTOM_TOOLS, Ability.IMAGES]),
        ([Ability.TOOLS], [Ability.TOOLS, Ability.FORCED_TOOLS], [Ability.IMAGES]),
        ([Ability.IMAGES], [Ability.CHAT, Ability.IMAGES], [Ability.TOOLS, Ability.FORCED_TOOLS]),
        ([Ability.EMBEDDINGS], [Ability.EMBEDDINGS], [Ability.CHAT]),
        ([Ability.EMBEDDINGS, Ability.CHAT], [Ability.EMBEDDINGS, Ability.CHAT], [Ability.TOOLS]),
    ],
)
def test_a_list_of_abilities_is_what_it_can_do_besides_chat(
    ours: list[Ability], can: list[Ability], cannot: list[Ability]
) -> None:
    """No tools means no forced ones either; and a model embeds or it talks."""
    abilities = annotated(QWEN, said(*ours)).abilities
    assert abilities >= set(can)
    assert not abilities & set(cannot)


def test_no_list_of_abilities_changes_none() -> None:
    assert annotated(QWEN, Model(num_ctx=4_096)).abilities == QWEN.abilities


# --- all of them ----------------------------------------------------------------------------------------------------


def ids(cards: list[Card]) -> list[str]:
    return [each.id for each in cards]


def test_models_come_in_the_order_of_the_notes_and_then_of_the_upstreams() -> None:
    """The file's order is the operator's preference."""
    cards = [QWEN, LLAMA, OPUS, card("gpu/other")]
    notes = {"claude/opus": Model(), "gpu/away": Model(), "gpu/qwen": Model()}
    assert ids(registered(cards, notes, unpriced, only_listed=False)) == [
        "claude/opus",
        "gpu/qwen",
        "ollama/llama3",
        "gpu/other",
    ]


def test_only_listed_models_may_be_used_when_the_file_says_so() -> None:
    """An upstream that offers a new, dear model must not have it used unasked."""
    notes = {"gpu/qwen": Model(), "gpu/away": Model()}
    assert ids(registered([QWEN, LLAMA, OPUS], notes, unpriced, only_listed=True)) == ["gpu/qwen"]
    assert registered([QWEN], {}, unpriced, only_listed=True) == []


def test_every_card_gets_its_price_from_what_is_known_of_it() -> None:
    """By the annotated card and its note; unknown stays unknown."""
    asked: list[tuple[Card, Model | None]] = []

    def price_of(each: Card, note: Model | None) -> Price | None:
        asked.append((each, note))
        return FREE if each.local else None

    note = Model(context_window=5)
    cards = registered([OPUS, QWEN], {"gpu/qwen": note}, price_of, only_listed=False)
    assert [(each.id, each.price) for each in cards] == [("gpu/qwen", FREE), ("claude/opus", None)]
    assert [(each.id, each.context_window, own) for each, own in asked] == [
        ("gpu/qwen", 5, note),
        ("claude/opus", None, None),
    ]
