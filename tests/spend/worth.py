"""Costs for tests: a gateway's service on a store, with one machine that has a price and one model to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.money import Price, Tokens
from app.core.record import Attempt, Record
from app.spend.costs import Around, Costs, Place
from app.spend.dearest import Dearest
from app.store.client import Store
from tests.core.nouns import card, paid

DAY = 86_400
NOON = 20_000 * DAY + DAY // 2.0  # 2024-10-04 12:00 UTC
CHAT = frozenset({Ability.CHAT})
OPUS = Price(input=5_000, output=25_000, cache_read=500, cache_write=6_250, cache_write_1h=10_000)  # a token: pico-USD
TOKENS = Tokens(prompt=1_000, completion=100)
ON_OPUS = 7_500  # nano-dollars
CARDS = (card("gpu/qwen"), paid("claude/opus", price=OPUS), paid("acme/free", price=None))
PLACES = {"gpu": Place("vllm", True), "claude": Place("anthropic", False), "acme": Place("openai", False)}
AN_HOUR = 3_600_000_000  # of the gpu: a thousandth of a dollar a second


def attempt(model: str = "gpu/qwen", outcome: str = "ok", **more: Any) -> Attempt:
    about = {"cost_nano": 0, "tokens": TOKENS, "blame": None, "seconds": 2.0, **more}
    return Attempt(model, model.partition("/")[0], outcome, **about)


def record(model: str | None = "gpu/qwen", **more: Any) -> Record:
    """An answer of a local model, but for what is said."""
    usual: dict[str, Any] = {
        "request_id": "req-1",
        "parent_id": None,
        "root_id": "req-1",
        "depth": 0,
        "endpoint": "chat",
        "model_requested": "auto",
        "stream": True,
        "status": 200,
        "started_at": NOON,
        "seconds": 2.0,
        "overhead_seconds": 0.001,
        "key_id": "key-a",
        "tenant": "acme",
        "agent": "coder",
        "model": model,
        "upstream": None if model is None else model.partition("/")[0],
        "local": model is not None and model.startswith("gpu/"),
        "attempts": () if model is None else (attempt(model),),
        "tokens": None if model is None else TOKENS,
        "first_token_seconds": None if model is None else 0.5,
        "needs": CHAT,
    }
    return Record(**{**usual, **more})


def bought(model: str = "claude/opus", **more: Any) -> Record:
    """An answer that was paid for, whose lease took its cost along."""
    return record(model, attempts=(attempt(model, cost_nano=ON_OPUS, leased=True),), cost_nano=ON_OPUS, **more)


def costs_on(store: Store, clock: ManualClock | None = None, cards: Sequence[Card] = CARDS, **more: Any) -> Costs:
    around = Around(Dearest(lambda: cards), PLACES.get, {"gpu": AN_HOUR}, **more)
    return Costs(store, clock or ManualClock(NOON), around)
