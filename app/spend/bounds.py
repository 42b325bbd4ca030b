"""What one attempt can be billed at most, before it is made: tokens in, tokens out, money.

Bytes bound the tokens of text; what else a model reads (framing, tools, images) has stated bounds per family of models
(`app.spend.families`). What has none raises `Unbounded`, which names it: a budget could not be kept. With `strict`
off it is guessed instead. All of it is arithmetic on the request; what a finished attempt is charged is `charge`'s.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from app.core.card import Ability, Card
from app.core.money import PICO_PER_NANO, Price
from app.core.request import AnyRequest, EmbeddingRequest, Request
from app.core.tokens import estimate, most
from app.spend.families import family_of, thinking_of
from app.spend.prompts import cached_for, prompt_tokens, refuse_unbilled
from app.wire.messages.params import answer_room

DEFAULT_MAX_TOKENS: Final = 4_096
"""What an answer is held to where neither the caller nor anybody else says a limit: every model for sale can do it."""
LEAST_TOKENS: Final = 16
LEAST_THINKING_TOKENS: Final = 1_024
"""The shortest answers worth paying for, without and with thinking that nobody sees."""
EXPECTED_TOKENS: Final = 1_024
"""What an answer is expected to take of a rate limit where its caller named no limit."""
INPUT_FRAME: Final = 8  # tokens around each text to embed


class Bound(NamedTuple):
    """What one attempt can be billed at most. `max_tokens` is what must be sent upstream, for each of `choices`
    answers; `completion_tokens` is for all of them. `strict_prompt` is the bound that bytes give, where calibration
    lowered it (0: it did not). `cache` is the dearest way in which a prompt may be written to a cache: `5m`, `1h`.
    `thinking` is shown, hidden or silent (see `families.thinking_of`), `speed` the tokens of one choice per second."""

    prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    choices: int = 1
    strict_prompt: int = 0
    cache: str | None = None
    thinking: str = "silent"
    speed: int = 4_000


def bound(request: AnyRequest, card: Card, *, strict: bool = True) -> Bound:
    """Raises `Unbounded` if `strict`, and what the codec of the model raises for what it cannot do at all."""
    if isinstance(request, EmbeddingRequest):
        return Bound(sum(map(_embedded, request.inputs)), 0, 0, thinking="shown")
    family = family_of(card)
    if strict:
        refuse_unbilled(request, card)
    room, thinks = _room(request, card)
    return Bound(
        prompt_tokens(request, card, family, strict=strict),
        room * request.n,
        room,
        choices=request.n,
        cache=cached_for(request, card),
        thinking=thinking_of(card) if thinks else "shown",
        speed=family.speed,
    )


def _embedded(given: str | tuple[int, ...]) -> int:
    return (most(given) if isinstance(given, str) else len(given)) + INPUT_FRAME


def _room(request: Request, card: Card) -> tuple[int, bool]:
    """Tokens of each answer, thinking included, and whether the model may think."""
    if card.kind == "anthropic":
        return answer_room(request, card)
    room = request.max_tokens
    if room is None:
        room = card.max_output or family_of(card).output or DEFAULT_MAX_TOKENS
    return room, Ability.REASONING in card.abilities and request.effort != "none"


def hold_nano(bound: Bound, price: Price) -> int:
    """What such an attempt costs at most, whatever was cached and however long its prompt is."""
    most = 0
    for tier in _reached(bound, price):
        most = max(most, bound.prompt_tokens * _dearest_input(bound, tier) + bound.completion_tokens * tier.output)
    return -(-most // PICO_PER_NANO)


def _reached(bound: Bound, price: Price) -> list[Price]:
    """The prices that apply to prompts of up to that many tokens."""
    return (
        [price]
        if not price.above
        else [price, *(dearer for above, dearer in price.above if bound.prompt_tokens > above)]
    )


def _dearest_input(bound: Bound, price: Price) -> int:
    dearest = max(price.input, price.cache_read)
    if bound.cache is not None:
        dearest = max(dearest, price.cache_write)
    return max(dearest, price.cache_write_1h) if bound.cache == "1h" else dearest


def affordable(bound: Bound, price: Price, left_nano: int) -> Bound | None:
    """The same with the longest answer, up to its own, that `left_nano` pay for; None where that is not worth it."""
    room = bound.max_tokens
    for tier in _reached(bound, price):
        left_pico = left_nano * PICO_PER_NANO - bound.prompt_tokens * _dearest_input(bound, tier)
        if left_pico < 0:
            return None
        if tier.output and bound.choices:
            room = min(room, left_pico // (tier.output * bound.choices))
    least = LEAST_TOKENS if bound.thinking == "shown" else LEAST_THINKING_TOKENS
    if room < min(least, bound.max_tokens):
        return None
    return bound._replace(max_tokens=room, completion_tokens=room * bound.choices)


def expected(request: AnyRequest) -> tuple[int, int]:
    """About how many tokens go in, and how many are asked for: what a rate limit counts in advance."""
    if isinstance(request, EmbeddingRequest):
        return sum(estimate(most(each)) if isinstance(each, str) else len(each) for each in request.inputs), 0
    asked = EXPECTED_TOKENS if request.max_tokens is None else request.max_tokens
    return estimate(request.input_bytes), asked * request.n
