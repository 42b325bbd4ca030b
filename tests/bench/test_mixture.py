"""The mixed load counts whole answers, those that were left and those that failed, and mistakes none for another."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from bench.load import Ask
from bench.mixture import KINDS, LEFT, OK, Kind, Line, Mixture
from bench.upstream import serve_mock
from bench.workloads import PACED, QUICK, Workload

WHOLE = Workload("whole", "", QUICK, 1, 5)
PACED_STREAM = Workload("paced", "", PACED, 1, 100, stream=True)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with contextlib.AsyncExitStack() as stack:
        yield (await serve_mock(stack, 0))["openai"] + "/v1"


async def test_every_kind_is_answered_where_nobody_leaves(url: str) -> None:
    mixture = Mixture(lambda model: Ask(url, model), aborts=0.0, seed=1)
    await mixture.run(12, 1.0)
    assert mixture.count() == mixture.count(OK) >= 12
    assert {name for name, _ in mixture.outcomes} <= {kind.workload.name for kind in KINDS}


async def test_those_who_leave_are_counted_and_come_back(url: str) -> None:
    kinds = (Kind(PACED_STREAM, 1, 0.02), Kind(WHOLE, 1, 10.0))
    mixture = Mixture(lambda model: Ask(url, model), aborts=1.0, seed=1, kinds=kinds)
    await mixture.run(2, 2.0)
    assert mixture.outcomes["paced", LEFT] > 2, "nobody came back"
    assert mixture.outcomes["whole", OK] > 0, "who is answered before leaving did not leave"
    assert {word for _, word in mixture.outcomes} == {OK, LEFT}


async def test_failures_are_named(url: str) -> None:
    with contextlib.closing(Line()) as line:
        nowhere = Ask("http://127.0.0.1:9/v1", QUICK)
        assert await line.ask(nowhere, (), WHOLE, None, False) == "ConnectionRefusedError"
        wrong = Ask(url.removesuffix("/v1") + "/nowhere", QUICK)
        assert await line.ask(wrong, (), WHOLE, None, False) == "status 404"
        assert await line.ask(Ask(url, QUICK), (), WHOLE, None, False) == OK
        assert await line.ask(Ask(url, PACED), (), PACED_STREAM, 0.05, True) == LEFT
