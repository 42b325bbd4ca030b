"""A whole gateway as `tierway serve` makes it, in a process of its own: for what only signals, memory and workers
show."""

from __future__ import annotations

import asyncio
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from tests.cli.conftest import Command, environment
from tests.cli.test_serve import url_of
from tests.flows.asking import ADMIN, ADMIN_KEY, ANY

PRICE: Final = {"price": {"input": 0, "output": 120}}
"""USD per million: an answer's tokens are all that costs."""
DAY: Final = "global:*:day"


class Gateway:
    """A gateway as a process of its own, over a server in this one that speaks OpenAI's wire and has one model."""

    def __init__(self, folder: Path, base_url: str, model: str, **streaming: Any) -> None:
        self.folder = folder
        config = {
            "upstreams": {"openai": {"kind": "openai", "base_url": base_url, "max_concurrency": 1_000}},
            "models": {model: {**ANY, **PRICE}},
            "budgets": [{"scope": "global", "period": "day", "limit": 1_000}],
            "streaming": {"grace": 60, **streaming},
            "limits": {"lag_seconds": 30},  # how busy the machine is otherwise is no affair of these tests
        }
        (folder / "tierway.yaml").write_text(yaml.safe_dump(config))
        self.url = ""
        self._commands: list[Command] = []

    async def start(self, **environ: str) -> None:
        variables = environment(self.folder / "data", **{"TIERWAY_LOG_LEVEL": "warning", **ADMIN, **environ})
        line = ("serve", "--config", str(self.folder / "tierway.yaml"))
        self._commands.append(Command.start(*line, env={**variables, "TIERWAY_PORT": "0"}))
        self.url = url_of(await asyncio.to_thread(self.command.until, "\n\ncurl ", 60))

    @property
    def command(self) -> Command:
        return self._commands[-1]

    def close(self) -> None:
        for command in self._commands:
            command.close()

    async def ended(self) -> int:
        return await asyncio.to_thread(self.command.wait, 60)

    async def standing(self) -> tuple[Decimal, Decimal]:
        """What is used and held of the budget, as the next gateway of this folder sees it."""
        await self.start()
        async with httpx2.AsyncClient() as client:
            headers = {"authorization": f"Bearer {ADMIN_KEY}"}
            budgets = (await client.get(f"{self.url}/admin/budgets", headers=headers)).json()["data"]
        [budget] = [each for each in budgets if each["id"] == DAY]
        self.command.process.send_signal(signal.SIGTERM)
        assert await self.ended() == 0
        return Decimal(str(budget["used"])), Decimal(str(budget["held"]))
