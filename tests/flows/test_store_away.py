"""The store stops, dies, or loses everything: nobody spends uncounted, free models go on, and all of it heals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Final

from app.core.clock import SystemClock
from app.simulator.behaviour import DEFAULTS, Behaviour
from app.simulator.server import simulate
from app.store.address import Address
from app.store.client import Store
from app.store.folder import prepare
from tests.cli.conftest import environment
from tests.flows.asking import ANY, Asking, Reply, replicas, within
from tests.flows.service import MODELS, Service

CLAUDE, OTHER, LOCAL = MODELS["anthropic"], MODELS["openai"], MODELS["ollama"]
PRICED: Final = {**ANY, "price": {"input": 0, "output": 120}}
DAY: Final = "global:*:day"
SECONDS: Final = 20.0
AT_ONCE: Final = 3.0
"""Half a second is promised; a busy machine is given more."""
clock = SystemClock()


@contextlib.asynccontextmanager
async def running(folder: Path, behaviour: Behaviour = DEFAULTS["anthropic"]) -> AsyncIterator[tuple[Service, Asking]]:
    """A free model and two paid ones, under a budget."""
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in ("ollama", "openai")}
        sims["anthropic"] = await stack.enter_async_context(simulate("anthropic", behaviour))
        models = {LOCAL: ANY, CLAUDE: PRICED, OTHER: PRICED}
        budgets = [{"scope": "global", "period": "day", "limit": 1.2}]
        (replica,) = await stack.enter_async_context(
            replicas(folder, 1, tuple(sims), sims, models=models, budgets=budgets)
        )
        yield replica


def store_group(folder: Path) -> int:
    """The process group of the embedded server."""
    [lock] = folder.rglob("server.lock")
    return int(lock.read_text().split()[0])


@contextlib.contextmanager
def stopped(folder: Path) -> Iterator[None]:
    """The server is there and takes connections, and answers nothing, as on a paused machine."""
    group = store_group(folder)
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)


async def spend(asking: Asking, model: str = CLAUDE, tokens: int = 500) -> Reply:
    return await asking.chat(f"sim:tokens={tokens}", model=model, max_tokens=tokens)


async def settled(asking: Asking, usd: str) -> None:
    """That much is used, and nothing is held. Asks until the store answers as well."""

    async def is_so() -> bool:
        try:
            data = (await asking.admin("GET", "budgets"))["data"]
        except AssertionError:
            return False
        [state] = [each for each in data if each["id"] == DAY]
        return (Decimal(str(state["used"])), state["held"]) == (Decimal(usd), 0)

    await within(SECONDS, is_so, f"{usd} USD are used and nothing is held")


async def goes_on(asking: Asking) -> None:
    async def paid() -> bool:
        return (await spend(asking)).status == 200

    await within(SECONDS, paid, "paid models answer again")


async def test_while_the_store_hangs_only_free_models_answer(tmp_path: Path) -> None:
    """A store that hangs is the worst: every call looks as if it could still be answered. Nobody waits for it."""
    async with running(tmp_path) as (service, asking):
        assert (await spend(asking)).status == 200
        await settled(asking, "0.06")
        before = len(service.sims["anthropic"].asked)
        with stopped(tmp_path):
            for _ in range(12):  # over all the states that the connection goes through meanwhile
                begun = clock.monotonic()
                refused, free, routed = await asyncio.gather(
                    spend(asking), asking.chat(model=LOCAL, stream=True), asking.chat()
                )
                assert clock.monotonic() - begun < AT_ONCE
                assert (refused.status, refused.code) == (503, "budget_store_unavailable")
                assert int(refused.headers["retry-after"]) > 0
                assert (free.status, routed.status, routed.model) == (200, 200, LOCAL)
                await asyncio.sleep(0.2)
        await goes_on(asking)
        assert len(service.sims["anthropic"].asked) == before + 1
        await settled(asking, "0.12")


async def test_what_was_running_is_paid_when_the_store_is_back(tmp_path: Path) -> None:
    """The answer comes all the same; what it cost waits on the disk until it can be booked, once."""
    slow = replace(
        DEFAULTS["anthropic"],
        models=tuple(replace(each, first_token=3.0) for each in DEFAULTS["anthropic"].models),
    )
    async with running(tmp_path, slow) as (service, asking):
        tasks = [asyncio.get_running_loop().create_task(spend(asking)) for _ in range(5)]

        async def asked() -> bool:
            return len(service.sims["anthropic"].asked) == 5

        await within(SECONDS, asked, "all five run")
        with stopped(tmp_path):
            replies = await asyncio.gather(*tasks)
            assert [reply.status for reply in replies] == [200] * 5

            async def kept() -> bool:
                return sum(path.stat().st_size > 0 for path in (tmp_path / "data" / "ledger").glob("outbox-*")) > 0

            await within(SECONDS, kept, "what they cost is on the disk")
        await settled(asking, "0.30")
        await goes_on(asking)
        await settled(asking, "0.36")


async def test_a_store_that_is_killed_comes_back_with_everything(tmp_path: Path) -> None:
    """What was acknowledged is on the disk: a budget that is nearly spent is nearly spent afterwards."""
    async with running(tmp_path) as (_, asking):
        for turn in range(1, 4):
            await goes_on(asking)
            await settled(asking, str(turn * Decimal("0.06")))
            os.killpg(store_group(tmp_path), signal.SIGKILL)
            assert (await asking.chat(model=LOCAL)).status == 200
        await settled(asking, "0.18")


async def tierway(folder: Path, *words: str) -> tuple[int, str]:
    """A command beside the gateway, on the same data."""
    line = [sys.executable, "-c", "from app.cli import main; main()", *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*line, stdout=pipe, stderr=pipe, env=environment(folder / "data"))
    out, err = await process.communicate()
    return process.returncode or 0, (out + err).decode()


async def emptied(folder: Path) -> None:
    store = Store(Address(path=prepare(folder / "data").socket), timeout=SECONDS)
    await store.open()
    await store.call("FLUSHALL")
    await store.aclose()


async def test_an_emptied_store_lends_nothing_until_it_is_restored(tmp_path: Path) -> None:
    """Whoever lost the counters lost the limits, and would spend them a second time."""
    async with running(tmp_path) as (_, asking):
        for _ in range(3):
            assert (await spend(asking)).status == 200
        await settled(asking, "0.18")
        await emptied(tmp_path)
        for model in (CLAUDE, OTHER):
            refused = await spend(asking, model)
            assert (refused.status, refused.code) == (503, "budget_store_unavailable")
            assert "tierway ledger rebuild" in refused.text
        assert (await asking.chat()).model == LOCAL
        code, said = await tierway(tmp_path, "ledger", "verify")
        assert code == 1 and "emptied" in said
        code, said = await tierway(tmp_path, "ledger", "rebuild", "--yes")
        assert code == 0, said
        await settled(asking, "0.18")
        await goes_on(asking)
        await settled(asking, "0.24")
        code, said = await tierway(tmp_path, "ledger", "verify")
        assert code == 0, said
        assert (await spend(asking, tokens=8_001)).code == "budget_exceeded", "0.96 of 1.2 USD are left"
        assert (await spend(asking, tokens=8_000)).status == 200
