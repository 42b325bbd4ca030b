"""What each model is expected to do with a request: its price, its seconds to the first token, its success. Pure.

Sizes are guessed from bytes, and an answer that may be of any length is taken to be of a usual one: good enough to
compare models, and never what is reserved or charged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Final, NamedTuple

from app.core.card import Ability, Card
from app.core.messages import MediaPart, ToolResultPart
from app.core.money import PICO_PER_NANO, Tokens, cost_nano
from app.core.request import AnyRequest, EmbeddingRequest, Request
from app.core.tokens import TOKENS_PER_IMAGE, at_least, estimate
from app.core.verdict import Verdict
from app.routing.field import Field
from app.routing.profiles import SUCCESS_DIGITS, Profile, prior_success
from app.routing.signals import Signals, unseen

USUAL_ANSWER: Final = 400  # tokens
PRIOR_WEIGHT: Final = 20.0  # scored answers that the prior counts as much as


class Size(NamedTuple):
    """Tokens of a request: about how many go in and come out, the fewest that can go in, and how many must fit in a
    window (a window has no room for an answer unless one of some length is demanded)."""

    prompt: int
    completion: int
    least: int
    needed: int


def size_of(request: AnyRequest) -> Size:
    if isinstance(request, EmbeddingRequest):
        units = sum(map(len, request.inputs))
        tokens = units if request.inputs and not isinstance(request.inputs[0], str) else estimate(units)
        return Size(tokens, 0, 0, 0)  # too long an input is the model's to refuse: each is embedded by itself
    prompt = estimate(request.input_bytes)
    if Ability.IMAGES in request.needs:
        prompt += _images(request) * TOKENS_PER_IMAGE
    completion = (request.max_tokens or USUAL_ANSWER) * request.n
    return Size(prompt, completion, at_least(request.input_bytes), prompt + (request.max_tokens or 0))


def _images(request: Request) -> int:
    parts = (part for message in request.messages for part in message.parts)
    inner = (item for part in parts for item in (part.parts if isinstance(part, ToolResultPart) else (part,)))
    return sum(isinstance(item, MediaPart) and item.kind == "image" for item in inner)


def estimated(
    profiles: Sequence[Profile], size: Size, signals: Signals, verdict: Verdict | None, smallest: int = 0
) -> Field:
    """What each is expected to do. The model of the conversation reads the history from its cache, which a switch would
    lose: a change must save more than that."""
    prompt, completion = size.prompt, size.completion
    cards = [each.card for each in profiles]
    costs = [
        -(-(prompt * each.input + completion * each.output) // PICO_PER_NANO) if each.flat else _cost(each, size, 0)
        for each in profiles
    ]
    successes = None if verdict is None else _successes(profiles, cards, signals, verdict)
    field = Field(profiles, costs, list(map(signals.first_token, cards)), successes, smallest)
    if signals.previous is not None and (previous := field.index(signals.previous)) is not None:
        costs[previous] = _cost(profiles[previous], size, signals.history_tokens)
    return field


def _cost(each: Profile, size: Size, history: int) -> int | None:
    if each.price is None:
        return None
    cached = max(0, min(history, size.prompt))
    if each.flat:
        fresh = (size.prompt - cached) * each.input + size.completion * each.output
        return -(-(fresh + cached * each.price.cache_read) // PICO_PER_NANO)
    return cost_nano(Tokens(size.prompt, size.completion, cache_read=cached), each.price)


def _successes(profiles: Sequence[Profile], cards: Sequence[Card], signals: Signals, verdict: Verdict) -> list[float]:
    score = verdict.score
    priors = [each.prior if score <= each.top else prior_success(each, score) for each in profiles]
    if signals.observed is unseen:
        return priors
    seen = map(signals.observed, cards, repeat(verdict.task_type), repeat(verdict.learnt_tier))
    weight = PRIOR_WEIGHT
    return [
        # The prior, corrected by what this installation saw: the more answers, the more they count.
        prior
        if known is None
        else round((weight * prior + known.count * known.mean) / (weight + known.count), SUCCESS_DIGITS)
        for prior, known in zip(priors, seen, strict=True)
    ]
