"""A Card that claims too much gets requests it cannot answer; one that claims too little is never asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Ability, Card
from app.core.events import Event
from app.core.request import EmbeddingRequest, Embeddings, Request
from app.upstreams.openai_models import CHATS, EMBEDS, abilities_of, card_of, embeds_by_name
from app.wire.objects import Listed, read_models


class Somewhere:
    """An upstream of which only the name matters."""

    name, kind, local = "up", "openai", True

    def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        raise AssertionError

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        raise AssertionError

    async def cards(self) -> Sequence[Card]:
        raise AssertionError

    async def close(self) -> None:
        raise AssertionError


UP = Somewhere()


def test_what_a_list_says_is_on_the_card() -> None:
    model = Listed("org/m-8B", created=5, owned_by="org", context_window=4096, max_output=64, parent="base")
    assert card_of(model, UP, CHATS) == Card(
        id="up/org/m-8B",
        name="org/m-8B",
        upstream="up",
        kind="openai",
        local=True,
        abilities=CHATS,
        context_window=4096,
        max_output=64,
        complexity=(0.0, 0.4),
        parameters=8_000_000_000,
        parent="up/base",
        created=5,
        owned_by="org",
    )


def test_what_a_list_does_not_say_is_unknown() -> None:
    """A made-up window or price would route requests where they fail or cost."""
    card = card_of(Listed("x"), UP, CHATS)
    assert (card.context_window, card.max_output, card.price, card.parameters, card.parent) == (None,) * 5
    assert card.complexity == (0.0, 1.0)


def test_a_size_is_read_from_whichever_name_states_one() -> None:
    """The served name is often an invention of the operator's."""
    assert card_of(Listed("mine", root="Qwen/Qwen3-0.6B"), UP, CHATS).parameters == 600_000_000
    assert card_of(Listed("mine"), UP, CHATS, akin=[Listed("base-8b")]).parameters == 8_000_000_000
    assert card_of(Listed("mine-1b"), UP, CHATS, akin=[Listed("base-8b")]).parameters == 1_000_000_000


@pytest.mark.parametrize(
    ("name", "abilities"),
    [
        ("text-embedding-3-small", EMBEDS),
        ("BAAI/bge-m3", EMBEDS),
        ("intfloat/e5-mistral-7b", EMBEDS),
        ("whisper-1", frozenset()),
        ("gpt-image-2", frozenset()),
        ("dall-e-3", frozenset()),
        ("gpt-5-mini", CHATS),
        ("imagery-chat", CHATS),
    ],
)
def test_models_that_do_not_chat_are_told_by_their_names(name: str, abilities: frozenset[Ability]) -> None:
    """`auto` must not send a question to a speech model."""
    assert abilities_of(Listed(name)) == abilities
    assert embeds_by_name(Listed(name)) == (abilities == EMBEDS)


def test_what_a_server_denies_a_model_cannot_do() -> None:
    said = {"completion_chat": True, "vision": False, "function_calling": False, "fine_tuning": False}
    lost = {Ability.IMAGES, Ability.IMAGE_URLS, Ability.TOOLS, Ability.FORCED_TOOLS, Ability.CUSTOM_TOOLS}
    assert abilities_of(Listed("m", capabilities=said)) == CHATS - lost
    assert abilities_of(Listed("m", capabilities={"completion_chat": False})) == frozenset()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["max_model_len", "context_length", "parent", "root", "created", "owned_by", "capabilities"])


@given(st.lists(st.dictionaries(FIELDS, JSON, max_size=5), max_size=4))
def test_no_list_breaks_the_cards(entries: list[dict[str, object]]) -> None:
    """One server's odd list must not hide everybody's models."""
    data = [{**entry, "id": f"m{number}"} for number, entry in enumerate(entries)]
    try:
        body = orjson.dumps({"data": data})
    except TypeError:  # an integer beyond 64 bits, or a lone surrogate
        return
    models = read_models(body)
    assert [card_of(model, UP, abilities_of(model), models).name for model in models] == [one["id"] for one in data]
