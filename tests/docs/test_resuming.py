"""The client that the guide shows for streams must do what the guide says, or everybody who copies it loses text."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.docs.erasing import erased
from tests.flows.resuming import body, gateways

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "resuming.md"


def shown() -> Callable[..., Iterator[dict[str, Any]]]:
    """The client as it stands in the guide."""
    match = re.search(r"```python\n(import .*?)```", GUIDE.read_text(), re.DOTALL)
    assert match is not None
    names: dict[str, Any] = {}
    exec(compile(match[1], str(GUIDE), "exec"), names)  # which is what the reader of the guide does
    found: Callable[..., Iterator[dict[str, Any]]] = names["events"]
    return found


@contextlib.asynccontextmanager
async def cutting(ports: list[int], seed: int = 3) -> AsyncIterator[tuple[str, list[int]]]:
    """A way to these gateways in turn that breaks after some bytes of each reply; and how many each let through."""
    turn, let, dice = itertools.cycle(ports), list[int](), random.Random(seed)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", next(turn))
        asked = asyncio.get_running_loop().create_task(_pass(reader, to_writer, None))
        try:
            let.append(await _pass(to_reader, writer, dice.randrange(1_500, 12_000)))
        finally:
            asked.cancel()
            await asyncio.wait((asked,))
            for each in (to_writer, writer):
                each.transport.abort()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    serving: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.get_running_loop().create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", let
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.wait(serving)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None) -> int:
    passed = 0
    with contextlib.suppress(OSError):
        while (most is None or passed < most) and (data := await reader.read(500)):
            writer.write(data)
            await writer.drain()
            passed += len(data)
    return passed


async def test_the_python_client_comes_back_until_it_has_all(tmp_path: Path) -> None:
    async with (
        gateways(tmp_path) as services,
        cutting([each.port for each in services]) as (url, let),
    ):
        events = await asyncio.to_thread(lambda: list(shown()(url, body(300))))
        assert len(let) > 3, "the way broke again and again"
        assert [choice["finish_reason"] for choice in events[-1]["choices"]] == ["stop"]
        text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
        whole = await services[0].openai().chat.completions.create(**{**body(300), "stream": False})
        assert text == whole.choices[0].message.content
        assert len(services[0].sims["openai"].asked) == 2


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no JavaScript here")
async def test_the_typescript_client_comes_back_until_it_has_all(tmp_path: Path) -> None:
    """As it stands in the guide, without its types."""
    match = re.search(r"```typescript\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert match is not None
    given = "process.argv[2], JSON.parse(process.argv[3])"
    ask = f"for await (const event of events({given})) console.log(JSON.stringify(event));"
    program = tmp_path / "client.mjs"
    program.write_text(f"{erased(match[1])}\n{ask}\n")
    async with (
        gateways(tmp_path, pace=1_000) as services,
        cutting([each.port for each in services]) as (url, let),
    ):
        node = await asyncio.create_subprocess_exec(
            *("node", str(program), url, json.dumps(body(120))),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await node.communicate()
        assert node.returncode == 0, err.decode()
        assert len(let) > 1, "the way broke"
        events = [json.loads(line) for line in out.splitlines()]
        text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
        whole = await services[0].openai().chat.completions.create(**{**body(120), "stream": False})
        assert text == whole.choices[0].message.content


async def test_it_says_when_the_stream_is_over_and_broken(tmp_path: Path) -> None:
    async with gateways(tmp_path, 1) as (service,):
        service.sims["openai"].fault_next("cut", at=5)
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(lambda: list(shown()(f"{service.url}/v1", body(300))))
