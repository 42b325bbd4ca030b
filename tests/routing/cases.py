"""Whatever a plan can be made of, for properties; and short ways to say what a single example needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from app.core.caller import Caller
from app.core.card import Ability, Card
from app.core.errors import GatewayError
from app.core.messages import Message, Part, TextPart, ThinkingPart
from app.core.money import Price
from app.core.plan import Plan
from app.core.request import EmbeddingRequest, Request
from app.core.verdict import TASKS, Verdict
from app.routing.policy import plan
from app.routing.registry import STRATEGIES, Registry
from app.routing.rules import Rules
from app.routing.signals import QUIET, Observed, Signals
from tests.core.nouns import card, chat, embedding, terms

EVERY = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
"""How many cases a property is tried on: they are cheap, because one draw seeds a whole case."""

THOUGHT = Message("assistant", (ThinkingPart("so", signature="abc"), TextPart("hello")))


def price(input_: int, output: int, cache_read: int | None = None) -> Price:
    return Price(input_, output, input_ if cache_read is None else cache_read, input_, input_)


def verdict(score: float, task_type: str = "general") -> Verdict:
    return Verdict(score, 0.9, task_type, "v1")


def thinking(*parts: Part) -> tuple[Message, ...]:
    return (Message("user", (TextPart("hi"),)), Message("assistant", parts), Message("user", (TextPart("go on"),)))


IDS = [f"{upstream}/{name}" for upstream in ("gpu", "ollama", "claude") for name in ("small", "org/large", "x")]
UNIT = [0.0, 0.1, 0.25, 0.4, 0.5, 0.55, 0.7, 0.8, 0.95, 1.0]
MOSTLY, SELDOM = [True, True, True, False], [False, False, False, True]
CHEAP, DEAR = price(100_000, 400_000), price(4_000_000, 20_000_000, 200_000)
ODD = price(1_000_000, 300_000, 50_000)
PRICES = [None, price(0, 0), CHEAP, CHEAP, ODD, DEAR, DEAR, replace(CHEAP, above=((60, DEAR),))]
RANGES = [(0.0, 0.4), (0.0, 1.0), (0.2, 0.7), (0.4, 0.9), (0.6, 1.0), (0.5, 0.5)]
ALL = frozenset({Ability.CHAT, Ability.TOOLS, Ability.IMAGES})
ABILITIES = [ALL, ALL, ALL, ALL - {Ability.IMAGES}, ALL - {Ability.TOOLS}, frozenset({Ability.EMBEDDINGS})]
NEEDS = [(), (), (Ability.TOOLS,), (Ability.IMAGES,)]
WINDOWS = [None, None, 0, 50, 100, 150, 300]
KEYS = [(), (), ("gpu/*", "auto*"), ("small", "word"), ("auto", "claude/*")]
AUTO = ["auto", "auto", "auto", "word", *(f"auto:{each}" for each in STRATEGIES)]


@dataclass(frozen=True)
class Case:
    """All a plan is made of, as data."""

    request: Request | EmbeddingRequest
    caller: Caller
    registry: Registry
    rules: Rules
    sick: frozenset[str] = frozenset()
    loads: dict[str, float] | None = None
    waits: dict[str, float] | None = None
    seen: dict[str, Observed] | None = None
    signals: Signals = QUIET
    verdict: Verdict | None = None

    def plan(self, **signals: Any) -> Plan:
        told = replace(
            self.signals,
            demoted=lambda each: "failing lately" if each.id in self.sick else None,
            load=lambda each: (self.loads or {}).get(each.id, 0.0),
            first_token=lambda each: (self.waits or {}).get(each.id),
            observed=lambda each, task, tier: (self.seen or {}).get(each.id),
        )
        return plan(self.request, self.caller, self.registry, self.rules, replace(told, **signals), self.verdict)

    def plannable(self) -> bool:
        try:
            return bool(self.plan().candidates)
        except GatewayError:
            return False

    def when_all_are_well(self) -> list[Card]:
        return [candidate.card for candidate in self.plan(demoted=lambda each: None).candidates]

    @property
    def asked(self) -> Card | None:
        return self.registry.find(self.request.model).card

    @property
    def private(self) -> bool:
        asked, own = self.registry.find(self.request.model), self.request.terms
        strategy = asked.strategy or own.strategy or self.rules.strategy
        by_strategy = own.strategy == "privacy" or (asked.card is None and strategy == "privacy")
        return own.local_only or self.caller.privacy == "local" or by_strategy


def some(chance: Random, ids: list[str]) -> list[str]:
    return chance.sample(ids, chance.randrange(len(ids) + 1))


def a_card(chance: Random, id_: str) -> Card:
    return card(
        id_,
        local=chance.choice(MOSTLY),
        abilities=chance.choice(ABILITIES),
        context_window=chance.choice(WINDOWS),
        fallback=tuple(chance.choices(IDS, k=chance.randrange(4))),
        price=chance.choice(PRICES),
        complexity=chance.choice(RANGES),
        kind="anthropic" if id_.startswith("claude") else "openai",
    )


def a_request(chance: Random, model: str) -> Request | EmbeddingRequest:
    own = terms(
        local_only=chance.choice(SELDOM),
        strategy=chance.choice([None, *STRATEGIES]),
        max_cost_nano=chance.randrange(20_000_000) if chance.choice(SELDOM) else None,
    )
    if chance.random() < 0.1:
        return embedding(model, terms=own)
    return chat(
        model,
        *chance.choice(NEEDS),
        terms=own,
        input_bytes=chance.choice([0, 80, 300, 600, 1_500, 4_000]),
        max_tokens=chance.choice([None, 1, 100, 200]),
        messages=(THOUGHT,) if chance.choice(SELDOM) else (),
    )


def some_signals(chance: Random, ids: list[str]) -> Signals:
    return Signals(
        previous=chance.choice([None, *ids, "gone/model"]),
        in_tool_loop=chance.choice(SELDOM),
        history_tokens=chance.choice([0, 50, 2_000]),
        draw=chance.random(),
        emergency=chance.choice([None, "3 local failures in a row"]),
    )


def some_rules(chance: Random, ids: list[str], routed: bool | None, fallback: bool | None) -> Rules:
    return Rules(
        strategy=chance.choice(STRATEGIES),
        routed=chance.choice(MOSTLY) if routed is None else routed,
        default_model=chance.choice([None, *ids, "auto"]),
        local=chance.choice(MOSTLY),
        paid=chance.choice(MOSTLY),
        emergency=chance.choice(SELDOM),
        fallback=chance.choice(MOSTLY) if fallback is None else fallback,
        degrade=chance.choice(SELDOM),
        threshold=chance.choice([None, None, *UNIT]),
        max_local_latency=chance.choice([None, 5.0]),
        prefer={task: (chance.choice(ids),) for task in some(chance, list(TASKS))} if chance.choice(SELDOM) else {},
        chains={ability: tuple(some(chance, ids)) for ability in ALL} if chance.choice(SELDOM) else {},
        explore=chance.random() / 2,
        explore_paid=chance.random() / 2,
    )


@st.composite
def cases(draw: st.DrawFn, named: bool | None = None, routed: bool | None = None, fallback: bool | None = None) -> Case:
    """Any case, or only those that ask by name (or not), with routing and fallback on or off."""
    chance = draw(st.randoms(use_true_random=True))
    ids = chance.sample(IDS, chance.randint(3, 6))
    by_name = chance.random() < 0.4 if named is None else named
    return Case(
        a_request(chance, chance.choice(ids if by_name else AUTO)),
        Caller(models=chance.choice(KEYS), privacy="local" if chance.choice(SELDOM) else "any"),
        Registry([a_card(chance, each) for each in ids], {"word": "auto"}),
        some_rules(chance, ids, routed, fallback),
        sick=frozenset(some(chance, ids)),
        loads=dict.fromkeys(some(chance, ids), 0.9),
        waits={each: chance.choice([1.0, 5.0, 20.0]) for each in some(chance, ids)},
        seen={each: Observed(chance.random(), chance.choice([0, 5, 500])) for each in some(chance, ids)},
        signals=some_signals(chance, ids),
        verdict=chance.choice([None, verdict(chance.choice(UNIT), chance.choice(TASKS))]),
    )


def planned(
    named: bool | None = None, routed: bool | None = None, fallback: bool | None = None
) -> st.SearchStrategy[Case]:
    return cases(named, routed, fallback).filter(Case.plannable)


def ids(made: Plan) -> list[str]:
    return [candidate.card.id for candidate in made.candidates]


def why(made: Plan) -> dict[str, str]:
    """The reason for or against each model."""
    for_ = {candidate.card.id: candidate.reason for candidate in made.candidates}
    return for_ | {excluded.model: excluded.reason for excluded in made.excluded}
