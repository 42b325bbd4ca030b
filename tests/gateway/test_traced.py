"""Stages that note what they do: nothing of what they answer may change, and what fails must be seen failing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.card import Card
from app.core.clock import ManualClock
from app.core.errors import BudgetExceeded, ModelNotFound
from app.core.events import Event, Reasoning, Text
from app.core.messages import Message, TextPart
from app.core.request import AnyRequest, Request
from app.core.steps import Steps
from app.gateway.account import Account
from app.gateway.stages import Everyone
from app.gateway.traced import Captured, Stages, TracedAdmission, TracedPlanner, traced
from app.routing.registry import Registry
from tests.core.nouns import card, chat, terms
from tests.gateway.fakes import PlainPlanner

QWEN = card("gpu/qwen")


async def unpaid(account: Account, tokens_used: int) -> None:
    """Nothing is owed."""


def steps_of(content: int = 0) -> Steps:
    return Steps("a" * 32, None, ManualClock(), content)


def asked(steps: Steps | None, model: str = "gpu/qwen") -> Request:
    return chat(model, terms=terms(steps=steps), messages=(Message("user", (TextPart("hi there"),)),))


class Poor(Everyone):
    """Has no money."""

    async def enter(
        self, account: Account, caller: Caller, request: AnyRequest, card: Card, *, at_last: bool
    ) -> AnyRequest:
        raise BudgetExceeded("No.")


def test_off_nothing_stands_between() -> None:
    """Who has no traces must not pay for them."""
    plain = Stages(PlainPlanner(lambda card: None), Everyone(), unpaid)
    assert traced(plain, None) is plain


def test_a_plan_is_timed_whether_it_succeeds_or_not() -> None:
    planner, registry, steps = TracedPlanner(PlainPlanner(lambda card: None)), Registry((QWEN,)), steps_of()
    assert planner(asked(None), ANONYMOUS, registry) == planner(asked(steps), ANONYMOUS, registry)
    with pytest.raises(ModelNotFound):
        planner(asked(steps, "gpu/none"), ANONYMOUS, registry)
    assert [(part.name, part.error) for part in steps.parts] == [("plan", None), ("plan", "model_not_found")]


async def test_who_is_let_in_begins_an_attempt_and_who_is_not_does_not() -> None:
    told: list[Steps] = []
    steps = steps_of()
    request = asked(steps)
    poor = TracedAdmission(Poor(), unpaid, told.append)
    with pytest.raises(BudgetExceeded):
        await poor.enter(Account(), ANONYMOUS, request, QWEN, at_last=False)
    assert steps.attempts == [] and steps.parts[0].error == "budget_exceeded"
    admission = TracedAdmission(Everyone(), unpaid, told.append)
    account = Account()
    assert await admission.enter(account, ANONYMOUS, request, QWEN, at_last=True) is request
    assert len(steps.attempts) == 1 and steps.parts[1].model == QWEN.id and steps.parts[1].error is None
    await admission.enter(Account(), ANONYMOUS, asked(None), QWEN, at_last=True)
    assert len(steps.attempts) == 1, "that request is not traced"


@pytest.mark.parametrize("fails", [False, True])
async def test_settling_ends_when_it_is_paid(fails: bool) -> None:
    """However that went: a trace must not wait for a payment that never comes."""
    told: list[Steps] = []

    async def leave(account: Account, tokens_used: int) -> None:
        await asyncio.sleep(0)
        if fails:
            raise OSError("away")

    admission, steps = TracedAdmission(Everyone(), leave, told.append), steps_of()
    account = Account(steps=steps)
    paying = admission.leave(account, 1)
    assert steps.owing and told == []
    result = await asyncio.gather(paying, return_exceptions=True)
    assert told == [steps] and isinstance(result[0], OSError) is fails
    await asyncio.gather(admission.leave(Account(), 1), return_exceptions=True)
    assert told == [steps], "that request was not traced"


class Talker:
    async def answer(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        yield Reasoning("hm")
        yield Text("so it ")
        yield Text("is")


@pytest.mark.parametrize(
    ("content", "keeps", "texts"), [(100, "session", ["so it ", "is"]), (100, "off", []), (0, "session", [])]
)
async def test_texts_are_kept_for_who_asked_of_who_allows_it(content: int, keeps: str, texts: list[str]) -> None:
    """A key that says that nothing of it is kept means traces, too."""
    steps = steps_of(content)
    caller: Any = dataclasses.replace(ANONYMOUS, store_content=keeps)
    events = [event async for event in Captured(Talker()).answer(caller, asked(steps))]
    assert len(events) == 3
    kept = steps.content
    assert (kept is not None and kept.answered == texts) or (kept is None and texts == [])
    assert kept is None or (kept.asked is not None and "hi there" in kept.asked) is bool(texts)
