"""What is expected of each model: people read these numbers to learn why a model was chosen and what it would cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.card import Ability
from app.core.messages import MediaPart, Message, TextPart, ToolResultPart
from app.core.money import Price
from app.core.tokens import TOKENS_PER_IMAGE
from app.routing.estimates import USUAL_ANSWER, Size, estimated, size_of
from app.routing.profiles import profiles
from app.routing.signals import QUIET, Observed, Signals
from tests.core.nouns import card, chat, embedding, paid
from tests.routing.cases import CHEAP, DEAR, price, verdict


def test_an_answer_of_any_length_is_taken_to_be_a_usual_one() -> None:
    assert size_of(chat(input_bytes=4_000)) == Size(1_000, USUAL_ANSWER, 333, 1_000)
    assert size_of(chat(input_bytes=4_000, max_tokens=50)) == Size(1_000, 50, 333, 1_050)
    assert size_of(chat(input_bytes=4_000, max_tokens=50, n=3)).completion == 150


def test_images_count_wherever_they_are() -> None:
    """A screenshot in a tool result is read as well."""
    image, sound = MediaPart("image", data=""), MediaPart("audio", data="")
    parts = (TextPart("see"), image, sound, ToolResultPart("c", (image, TextPart("x"))))
    assert size_of(chat("auto", Ability.IMAGES, messages=(Message("user", parts),))).prompt == 2 * TOKENS_PER_IMAGE


@pytest.mark.parametrize(("inputs", "tokens"), [(("abcd" * 10, "ab"), 11), (((1, 2, 3), (4,)), 4), ((), 0)])
def test_embeddings_cost_what_goes_in(inputs: tuple[object, ...], tokens: int) -> None:
    assert size_of(embedding(inputs=inputs)) == Size(tokens, 0, 0, 0)


USUAL = Size(1_000, 100, 0, 0)


def cost(price_: Price | None, signals: Signals = QUIET, size: Size = USUAL, local: bool = False) -> int | None:
    known = card("x/y", local=local, price=price_)
    return estimated(profiles([known]), size, signals, None).costs[0]


def test_costs_are_what_the_price_list_says() -> None:
    assert cost(DEAR) == (1_000 * 4_000_000 + 100 * 20_000_000) // 1_000
    assert cost(replace(CHEAP, above=((999, DEAR),))) == cost(DEAR)
    assert cost(price(1, 0), size=Size(1, 0, 0, 0)) == 1  # rounded up, as a bill is
    assert cost(None) is None
    assert cost(None, local=True) == 0


def test_the_model_of_the_conversation_reads_the_history_from_its_cache() -> None:
    there = Signals(previous="x/y", history_tokens=900)
    assert cost(DEAR, there) == (100 * 4_000_000 + 900 * 200_000 + 100 * 20_000_000) // 1_000
    assert cost(DEAR, Signals(previous="x/y", history_tokens=-5)) == cost(DEAR)
    assert cost(DEAR, Signals(previous="x/y", history_tokens=9_999)) == (1_000 * 200_000 + 100 * 20_000_000) // 1_000
    assert cost(DEAR, Signals(previous="x/z", history_tokens=900)) == cost(DEAR)
    assert cost(None, there) is None


def success(seen: Observed | None, score: float = 0.5) -> float:
    def observed(_: object, task: str, tier: str) -> Observed | None:
        return seen if (task, tier) == ("code", "complex") else None

    field = estimated(profiles([paid("x/y")]), Size(1, 1, 1, 1), Signals(observed=observed), verdict(score, "code"))
    assert field.successes is not None
    return field.successes[0]


def test_what_was_seen_corrects_what_was_guessed_the_more_the_oftener_it_was() -> None:
    """Of this task type and tier only."""
    guess = success(None)
    assert guess == success(Observed(0.0, 0)) == success(Observed(0.0, 900), score=0.4)
    assert guess > success(Observed(0.2, 5)) > success(Observed(0.2, 50)) > success(Observed(0.2, 5_000)) > 0.2
    assert success(Observed(1.0, 50)) > guess


def test_nothing_is_said_of_success_without_a_verdict() -> None:
    assert estimated(profiles([paid("x/y")]), Size(1, 1, 1, 1), QUIET, None).successes is None
