"""What an attempt is charged once it is over, however it ended. Pure.

Where the upstream told its usage, that is what it bills. An attempt that never reached it, or that it answered with an
error status, is not billed, by Anthropic's and OpenAI's word. In between lies an answer that was cut: its caller left,
a clock ran out, the connection broke. It is billed, but nobody says how much, so the most that can be is charged:

- of the prompt what the upstream told at the start, else the bound;
- of a call without a stream the whole bound: its server learns only at the end that nobody listens, and finishes;
- of a stream no more than its model can have made until its server noticed. That is at most `speed` tokens a second
  since the request was sent and `LAG_SECONDS` on top; and where every token is shown, at most a token for each byte
  that came, and what was made since then: `LAG_SECONDS` again, and the time for which nothing was read because the
  client took nothing. Never more than the bound.

With `calibrated`, estimates are charged instead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, NamedTuple

from app.core.errors import GatewayError
from app.core.events import Usage
from app.core.money import Price, Tokens, cost_nano
from app.core.tokens import estimate, upper_bound
from app.spend.bounds import Bound, hold_nano

LAG_SECONDS: Final = 2.0
"""How long a server that is sending goes on after its client is gone: they stop when they next write."""


class Ended(NamedTuple):
    """How an attempt ended: well, or by `error`. `usage` is the upstream's own word, and no estimate. `begun`:
    something of an answer came; `prompt`: what `Start.prompt` told. `seen_bytes` are all of text, thinking and
    arguments that came. `seconds` passed since it was sent, and for `unread_seconds` of them nothing was read."""

    error: BaseException | None = None
    usage: Usage | None = None
    streamed: bool = False
    begun: bool = False
    prompt: Tokens | None = None
    seen_bytes: int = 0
    seconds: float = math.inf
    unread_seconds: float = math.inf


class Charge(NamedTuple):
    """Nano-dollars, and the tokens they stand for; `exact` where they are what the upstream told."""

    nano: int
    tokens: Tokens
    exact: bool


NOTHING: Final = Charge(0, Tokens(), exact=True)


def charge(ended: Ended, bound: Bound, price: Price, *, calibrated: bool = False) -> Charge:
    """What an attempt that was held for as `bound` says is charged."""
    usage = ended.usage
    if usage is not None and not usage.estimated:
        return Charge(cost_nano(usage.tokens, price), usage.tokens, exact=True)
    if not may_be_billed(ended):
        return NOTHING
    completion = estimate(ended.seen_bytes) if calibrated else _made(ended, bound)
    completion = min(completion, bound.completion_tokens)
    if ended.prompt is not None:
        tokens = replace(ended.prompt, completion=completion)
        return Charge(cost_nano(tokens, price), tokens, exact=False)
    most = bound._replace(completion_tokens=completion)
    return Charge(hold_nano(most, price), Tokens(bound.prompt_tokens, completion), exact=False)


def may_be_billed(ended: Ended) -> bool:
    """Whether the upstream can have done any work for it: one that told the prompt's tokens has read it."""
    if ended.begun or ended.prompt is not None or ended.error is None:
        return True
    return ended.error.billed if isinstance(ended.error, GatewayError) else True


def _made(ended: Ended, bound: Bound) -> int:
    """Tokens that can have been made in all."""
    finished = ended.error is None
    unnoticed = not ended.begun and bound.thinking == "silent"
    if not finished and (not ended.streamed or unnoticed):
        return bound.completion_tokens
    per_second = bound.speed * bound.choices
    made = per_second * (ended.seconds + LAG_SECONDS)
    if bound.thinking == "shown":
        since = 0.0 if finished else ended.unread_seconds
        made = min(made, upper_bound(ended.seen_bytes) + per_second * (since + LAG_SECONDS))
    return bound.completion_tokens if made >= bound.completion_tokens else math.ceil(made)
