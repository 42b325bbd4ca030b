"""A store that was put back from a copy looks whole. Nobody may spend on it what was spent since the copy was made."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.flows.asking import ANY, Asking, replicas
from tests.flows.service import Service
from tests.flows.test_store_away import CLAUDE, LOCAL, PRICED, goes_on, settled, spend, tierway


@contextlib.asynccontextmanager
async def running(folder: Path, sims: dict[str, Simulated]) -> AsyncIterator[tuple[Service, Asking]]:
    """A free model and a paid one, under a budget of ten answers."""
    budgets = [{"scope": "global", "period": "day", "limit": 0.6}]
    models = {LOCAL: ANY, CLAUDE: PRICED}
    async with replicas(folder, 1, tuple(sims), sims, models=models, budgets=budgets) as (replica,):
        yield replica


async def test_an_old_copy_of_the_store_lends_nothing_until_it_is_restored(tmp_path: Path) -> None:
    """The backup of last night, put back with the best intentions: every budget of the day would be whole again."""
    data, copy = tmp_path / "data" / "store", tmp_path / "copy"
    async with simulate("ollama") as ollama, simulate("anthropic") as anthropic:
        sims = {"ollama": ollama, "anthropic": anthropic}
        async with running(tmp_path, sims) as (_, asking):
            assert (await spend(asking)).status == 200
            await settled(asking, "0.06")
        shutil.copytree(data, copy, symlinks=True)
        async with running(tmp_path, sims) as (_, asking):
            for _ in range(3):
                assert (await spend(asking)).status == 200
            await settled(asking, "0.24")
        shutil.rmtree(data)
        shutil.copytree(copy, data, symlinks=True)
        asked = len(anthropic.asked)
        async with running(tmp_path, sims) as (service, asking):
            refused = await spend(asking)
            assert (refused.status, refused.code) == (503, "budget_store_unavailable")
            assert all(said in refused.text for said in ("older than the journal", "tierway ledger rebuild --force"))
            free = await asking.chat()
            assert (free.status, free.model) == (200, LOCAL)
            assert (await spend(asking)).status == 503, "what is free does not make it whole"
            assert len(anthropic.asked) == asked
            code, said = await tierway(tmp_path, "ledger", "verify")
            assert code == 1 and "0.240000000" in said and "0.060000000" in said, said
            code, said = await tierway(tmp_path, "ledger", "rebuild", "--force", "--yes")
            assert code == 0, said
            await goes_on(asking)
            await settled(asking, "0.30")
            code, said = await tierway(tmp_path, "ledger", "verify")
            assert code == 0, said
            assert (await spend(asking, tokens=2_501)).code == "budget_exceeded", "0.30 of 0.60 USD are left"
            assert (await spend(asking, tokens=2_500)).status == 200
            assert b"older than the journal" in service.log.getvalue()
