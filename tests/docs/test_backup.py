"""The guide to backups, typed line by line: a store that comes back must bring its keys, and no money may be lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.cli.conftest import Run, run
from tests.docs.blocks import BLOCKS, typed
from tests.flows.asking import ADMIN, ANY, Asking
from tests.flows.service import gateway, upstream
from tests.flows.test_budgets import CLAUDE, PRICED, answered, limit, patient, settled

__all__ = ["patient", "run"]

COMMANDS: Final = [
    command for block in BLOCKS if block.page == "docs/backup.md" and block.kind == "sh" for command in typed(block)
]
COPY, LOST, VERIFY, REBUILD = 1, (4, 5), 6, 7
ASIDE, LIST, TRIED = (14, 15), 16, 17
"""Their places among the commands of the guide."""
CENTS: Final = Decimal("0.12")


async def spend(folder: Path, sim: Simulated, times: int, already: int, **more: str) -> None:
    """A life of a gateway on this folder: so much was spent before, and so many requests are paid in it."""
    config: dict[str, Any] = {"models": {CLAUDE: {**ANY, **PRICED}}, "budgets": [limit(100.0)]}
    environ = {**ADMIN, "ANTHROPIC_API_KEY": "simulated"}
    async with gateway(folder, {"anthropic": upstream(sim)}, {"anthropic": sim}, environ=environ, **config) as service:
        async with Asking(service) as asking:
            await settled(asking, str(already * CENTS))
            for _ in range(times):
                assert (await answered(asking, 1_000, **more)).status == 200
            await settled(asking, str((already + times) * CENTS))


def test_the_commands_stand_in_the_order_of_the_test() -> None:
    assert [each.program for each in COMMANDS] == [
        *("systemctl", "tar", "systemctl"),
        *("systemctl", "mv", "tar", "tierway", "tierway", "systemctl"),
        *("redis-cli", "docker", "docker", "tierway", "tierway"),
        *("mkdir", "tar", "tierway", "tierway"),
    ]


async def test_a_restored_store_has_its_keys_and_all_that_was_spent_since(run: Run, tmp_path: Path) -> None:
    """The copy is older than the last answers: the journals that stayed know those."""
    places = {"/var/lib/tierway": f"{tmp_path}/data", "/var/backups": str(tmp_path), "/tmp/restored": f"{tmp_path}/r"}

    async def do(number: int, expected: int = 0, data: str = "data", more: tuple[str, ...] = ()) -> str:
        command = COMMANDS[number]
        words = [*command.words, *more]
        for theirs, ours in places.items():
            words = [word.replace(theirs, ours) for word in words]
        if command.program == "tierway":
            where = f"{tmp_path}/{data}"
            result = await asyncio.to_thread(lambda: run(*words[1:], TIERWAY_DATA_DIR=where))
            assert result.exit_code == expected, result.output
            return result.output
        await asyncio.to_thread(lambda: subprocess.run(words, check=True, timeout=60))
        return ""

    async with simulate("anthropic") as sim:
        await spend(tmp_path, sim, 1, already=0)
        made = await asyncio.to_thread(lambda: run("keys", "create", "--name", "copied", "--json"))
        key = json.loads(made.stdout)
        await do(COPY)
        await spend(tmp_path, sim, 2, already=1, key=key["key"])

        for number in LOST:
            await do(number)
        assert "0.360000000" in await do(VERIFY, expected=1), "the copy knows nothing of the last two"
        await do(REBUILD, more=("--yes",))
        await do(VERIFY)
        await spend(tmp_path, sim, 1, already=3, key=key["key"])

        for number in ASIDE:
            await do(number)
        assert key["id"] in await do(LIST, data="r")
        await do(TRIED, data="r")
