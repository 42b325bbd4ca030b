"""Each way back in the guide is typed as it stands there, while people work: it does what it says and fails nobody."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.flows.asking import ADMIN_KEY, Asking, Load, Replica, replicas, within
from tests.flows.service import MODELS

pytestmark = [pytest.mark.asyncio(loop_scope="function"), pytest.mark.timeout(240)]

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
FIRST, SECOND, PAID = (MODELS[kind] for kind in ("ollama", "vllm", "anthropic"))
SOON = 20.0
COMMANDS: Final = [
    line
    for guide in ("rollback.md", "flags.md")
    for block in re.findall(r"```sh\n(.*?)```", (DOCS / guide).read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("tierway ")
]


async def typed(line: str, replica: Replica, **filled: str) -> str:
    """What a command of the guide prints. `filled`: what its reader writes for its placeholders."""
    service, _ = replica
    program, *arguments = (filled.get(word, word) for word in shlex.split(line))
    assert program == "tierway" and line in COMMANDS, "it stands in a guide"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from app.cli import main; main()", *arguments),
        *("--url", service.url, "--key", ADMIN_KEY),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@contextlib.asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[list[Replica]]:
    """Two gateways under load. At the end nobody's request has failed."""
    routing, aliases = {"default_model": SECOND}, {"house": FIRST}
    async with replicas(folder, 2, routing=routing, aliases=aliases) as found, contextlib.AsyncExitStack() as stack:
        loads = [await stack.enter_async_context(Load(asking, 2, pause=0.02)) for _, asking in found]
        yield found
        await stack.aclose()
        replies = [reply for load in loads for reply in load.replies]
        assert replies and {reply.status for reply in replies} == {200} and not any(reply.broke for reply in replies)


async def everywhere(found: list[Replica], holds: Callable[[Asking], Awaitable[bool]], what: str) -> None:
    for _, asking in found:

        async def is_so(asking: Asking = asking) -> bool:
            return await holds(asking)

        await within(SOON, is_so, what)


def answers(*models: str, model: str = "auto") -> Callable[[Asking], Awaitable[bool]]:
    async def is_so(asking: Asking) -> bool:
        return (await asking.chat(model=model)).model in models

    return is_so


async def test_the_immediate_ways_back(tmp_path: Path) -> None:
    async with at_work(tmp_path) as found:
        here, there = found
        await everywhere(found, answers(FIRST, SECOND), "local models answer at first")
        await typed("tierway flags set LOCAL_MODELS false", here)
        await everywhere(found, answers(PAID), "everything goes to paid models")
        await typed("tierway flags unset LOCAL_MODELS", there)
        await typed("tierway flags set CLOUD_FALLBACK false", there)
        await everywhere(found, answers(FIRST, SECOND), "nothing goes to paid models")
        await typed("tierway flags unset CLOUD_FALLBACK", here)
        await typed("tierway flags set MULTI_MODEL_ROUTER false", here)
        await everywhere(found, answers(SECOND), "auto is the default model")
        await typed("tierway flags unset MULTI_MODEL_ROUTER", here)
        assert "MULTI_MODEL_ROUTER        true      true\n" in await typed("tierway flags list", here)


async def test_the_partial_way_back(tmp_path: Path) -> None:
    async with at_work(tmp_path) as found:
        wanted = {"target_local": 0.2, "max_local_latency": 2.0}
        here, there = found
        line = next(line for line in COMMANDS if line.startswith("tierway settings set target_local=0.2"))
        await typed(line, here)

        async def has_them(asking: Asking) -> bool:
            states = {state["name"]: state["value"] for state in (await asking.admin("GET", "settings"))["data"]}
            return wanted.items() <= states.items() and states["breaker.ollama"]["failures"] == 2

        async def has_not(asking: Asking) -> bool:
            return not any(state["changed"] for state in (await asking.admin("GET", "settings"))["data"])

        await everywhere(found, has_them, "the settings count")
        await typed("tierway settings unset target_local max_local_latency breaker", there)
        await everywhere(found, has_not, "the file counts again")


async def test_the_complete_way_back(tmp_path: Path) -> None:
    async with at_work(tmp_path) as found:
        here, _ = found
        file = tmp_path / "tierway.yaml"
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "aliases": {"house": PAID}}))
        await everywhere(found, answers(PAID, model="house"), "the new file counts")
        await typed("tierway flags set MULTI_MODEL_ROUTER false", here)
        listed = await typed("tierway versions list", here)
        assert [line.split()[0] for line in listed.splitlines()] == ["number", "3", "2", "1"]
        await typed("tierway versions restore N", here, N="1")
        await everywhere(found, answers(FIRST, model="house"), "the first file counts")
        states = (await here[1].admin("GET", "flags"))["data"]
        assert not any(state["changes"] for state in states)


async def test_the_commands_of_the_guide_to_flags(tmp_path: Path) -> None:
    async with replicas(tmp_path, kinds=("ollama",)) as [replica]:
        for line in COMMANDS[COMMANDS.index("tierway flags set SHADOW 10%") :]:
            await typed(line, replica)
        assert (await replica[1].admin("GET", "versions"))["data"][0]["number"] > 4
