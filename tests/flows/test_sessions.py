"""Conversations that the gateway keeps, through the whole service: turn by turn, tenant by tenant, after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import yaml

from app.core.clock import SystemClock
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.flows.asking import ADMIN, ADMIN_KEY, ANY, within
from tests.flows.service import Service, gateway, upstream
from tests.sessions.talk import Json, says, user
from tests.store.test_server import server_pid

SESSION = "x-tierway-session"
clock = SystemClock()


@contextlib.asynccontextmanager
async def house(folder: Path, **config: Any) -> AsyncIterator[Service]:
    async with simulate("openai") as sim:
        options = {"environ": ADMIN, **config}
        async with gateway(folder, {"gpu": upstream(sim)}, {"gpu": sim}, **options) as service:
            yield service


class Talk:
    """One client's conversation: it sends only what is new."""

    def __init__(self, service: Service, session: str = "s", key: str | None = None) -> None:
        headers = {SESSION: session} | ({"authorization": f"Bearer {key}"} if key else {})
        self.http = httpx2.AsyncClient(base_url=service.url, headers=headers, timeout=20)

    async def __aenter__(self) -> Talk:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def ask(self, said: str | list[Json], *, stream: bool = False, **headers: str) -> httpx2.Response:
        messages = [user(said)] if isinstance(said, str) else said
        body = {"model": "gpu/sim-plain", "messages": messages, "stream": stream}
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    async def says(self, said: str | list[Json], *, stream: bool = False) -> str:
        """The text of the answer."""
        reply = await self.ask(said, stream=stream)
        assert reply.status_code == 200, reply.text
        if not stream:
            return str(reply.json()["choices"][0]["message"]["content"])
        lines = [line[6:] for line in reply.text.split("\n\n") if line.startswith("data: {")]
        assert reply.text.endswith("data: [DONE]\n\n")
        return "".join(c["delta"].get("content") or "" for line in lines for c in orjson.loads(line)["choices"])

    async def kept(self, session: str = "s") -> list[Json] | None:
        reply = await self.http.get(f"/v1/sessions/{session}")
        return reply.json()["messages"] if reply.status_code == 200 else None


def sent(sim: Simulated) -> list[Json]:
    """The messages that the model was asked with last."""
    found: list[Json] = [call for call in sim.asked if call.method == "POST"][-1].fields["messages"]
    return found


@pytest.mark.parametrize("whole", [False, True])
async def test_twenty_turns(tmp_path: Path, whole: bool) -> None:
    """Turn 20 sends the upstream the right 20 turns in order, streamed or not, whether the client repeats what was
    said or sends its new words alone."""
    async with house(tmp_path) as service, Talk(service) as talk:
        said: list[Json] = []
        for turn in range(1, 21):
            words = user(f"Question {turn}")
            answer = await talk.says([*said, words] if whole else [words], stream=turn % 2 == 0)
            assert sent(service.sims["gpu"]) == [*said, words]
            said += [words, says(answer)]
        assert await talk.kept() == said
        assert await service.metric("tierway_session_turns_total", affinity="same") == 19
        assert await service.metric("tierway_session_turns_total", affinity="new") == 1


async def test_the_official_client(tmp_path: Path) -> None:
    """`new` makes a session whose name the reply tells, streamed or not; the client goes on with that."""
    async with house(tmp_path) as service:
        create = service.openai().chat.completions.create
        first: Any = [{"role": "user", "content": "One"}]
        reply = await create(model="auto", messages=first, extra_headers={SESSION: "new"})
        name = (reply.model_extra or {})["tierway"]["session"]
        stream = await create(model="auto", messages=first, stream=True, extra_headers={SESSION: name})
        chunks = [chunk async for chunk in stream]
        assert (chunks[-1].model_extra or {})["tierway"]["session"] == name
        assert [each["content"] for each in sent(service.sims["gpu"])][::2] == ["One", "One"]
        other = await create(model="auto", messages=first, extra_headers={SESSION: "new"})
        assert (other.model_extra or {})["tierway"]["session"] != name
        assert len(sent(service.sims["gpu"])) == 1


async def test_a_turn_that_was_cut_leaves_nothing(tmp_path: Path) -> None:
    """An answer that broke, or that nobody waited for, is no part of the conversation; the next turn asks anew."""
    async with house(tmp_path) as service, Talk(service) as talk:
        sim, first = service.sims["gpu"], await talk.says("One")
        for fault in ("cut", "server_error"):
            sim.fault_next(fault, times=3)
            await talk.ask("Two", stream=True)
            sim.no_faults()
        with pytest.raises(httpx2.TimeoutException):
            sim.fault_next("stall")
            async with httpx2.AsyncClient(base_url=service.url, headers=talk.http.headers, timeout=0.3) as gone:
                await gone.post("/v1/chat/completions", json={"model": "auto", "messages": [user("Two")]})
        await talk.says("Three")
        assert sent(sim) == [user("One"), says(first), user("Three")]


async def test_tenants_with_one_session_id_never_meet(tmp_path: Path) -> None:
    """Neither in what their models read, nor by looking, nor by deleting."""
    async with house(tmp_path) as service, contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=service.url))
        admin = {"authorization": f"Bearer {ADMIN_KEY}"}
        keys = []
        for name, tenant in (("one", "acme"), ("two", "other"), ("three", "acme"), ("four", None)):
            made = await http.post("/admin/keys", json={"name": name, "tenant": tenant}, headers=admin)
            keys.append(made.json()["key"])
        one, two, three, four = [await stack.enter_async_context(Talk(service, key=key)) for key in keys]
        for talk in (one, two, four):
            await talk.says(f"The secret of {keys[[one, two, three, four].index(talk)]}")
        for talk, mine in ((one, 0), (two, 1), (four, 3)):
            await talk.says("And?")
            text = orjson.dumps(sent(service.sims["gpu"])).decode()
            assert [key in text for key in keys] == [at == mine for at in range(4)]
        assert await three.kept() == await one.kept() != await two.kept(), "a tenant's keys share its sessions"
        assert (await two.http.delete("/v1/sessions/s")).json()["deleted"] is True
        assert await two.kept() is None and await one.kept() is not None and await four.kept() is not None
        assert (await http.get("/v1/sessions/s")).status_code == 401
        assert (await http.get("/v1/sessions/s", headers=admin)).status_code == 401


async def test_a_key_that_keeps_nothing_and_a_feature_that_is_off(tmp_path: Path) -> None:
    async with house(tmp_path, environ={**ADMIN, "FEATURE_SESSIONS": "false"}) as service, Talk(service) as talk:
        reply = await talk.ask("One")
        assert reply.headers["x-tierway-ignored"] == SESSION and reply.json()["tierway"]["session"] is None
        await talk.says("Two")
        assert sent(service.sims["gpu"]) == [user("Two")] and await talk.kept() is None
    async with house(tmp_path) as service:
        async with httpx2.AsyncClient(base_url=service.url, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as http:
            made = (await http.post("/admin/keys", json={"name": "k", "store_content": "off"})).json()
        async with Talk(service, key=made["key"]) as talk:
            assert (await talk.ask("One")).headers["x-tierway-ignored"] == SESSION
            assert await talk.kept() is None


async def test_export(tmp_path: Path) -> None:
    async with house(tmp_path) as service, Talk(service) as talk:
        answer = await talk.says([{"role": "system", "content": "Be kind."}, user("One")])
        read = (await talk.http.get("/v1/sessions/s")).json()
        assert read["messages"] == [{"role": "system", "content": "Be kind."}, user("One"), says(answer)]
        text = await talk.http.get("/v1/sessions/s?format=markdown")
        assert text.headers["content-type"].startswith("text/markdown")
        assert "## User\n\nOne\n\n## Assistant (gpu/sim-plain)" in text.text
        assert (await talk.http.get("/v1/sessions/s?format=xml")).status_code == 422


async def test_what_fits_no_window_is_shortened_and_said(tmp_path: Path) -> None:
    """A long conversation goes to the larger window first, and is shortened when none is left; a client that sends
    all by itself is refused, unless it asked for that."""
    models = (SimModel("a-small", context=1_000), SimModel("b-large", context=3_000))
    async with simulate("vllm", Behaviour(models)) as sim:
        notes = {f"gpu/{each.name}": ANY for each in models}
        async with gateway(tmp_path, {"gpu": upstream(sim)}, {"gpu": sim}, models=notes) as service:
            async with Talk(service) as talk:
                body: Json = {"model": "auto", "max_tokens": 20}
                served, contexts = [], []
                for turn in range(16):
                    reply = await talk.http.post(
                        "/v1/chat/completions", json={**body, "messages": [user(f"{turn} " + "word " * 240)]}
                    )
                    assert reply.status_code == 200, reply.text
                    served.append(reply.headers["x-tierway-model"])
                    contexts.append(reply.headers.get("x-tierway-context"))
                assert served[0] == "gpu/a-small" and "gpu/b-large" in served
                first = next(at for at, context in enumerate(contexts) if context is not None)
                assert "gpu/b-large" in served[:first], "a larger window comes first"
                assert contexts[-1] is not None and contexts[-1].startswith("shortened; dropped=")
                whole = await talk.kept()
                assert whole is not None and len(whole) == 32, "what is no longer sent is still there"
                own = {**body, "messages": [*whole, user("And?")]}
                async with httpx2.AsyncClient(base_url=service.url, timeout=20) as http:
                    refused = await http.post("/v1/chat/completions", json=own)
                    assert refused.json()["error"]["code"] == "context_length_exceeded"
                    wanted = await http.post(
                        "/v1/chat/completions", json=own, headers={"x-tierway-context": "truncate"}
                    )
                    assert wanted.status_code == 200
                    assert wanted.headers["x-tierway-context"].startswith("shortened; dropped=")


async def test_a_conversation_stays_at_its_replica(tmp_path: Path) -> None:
    """Where its prefix is cached; many conversations use all replicas."""
    async with simulate("vllm") as one, simulate("vllm") as two:
        urls = [one.base_url, two.base_url]
        upstreams = {"gpu": {"kind": "vllm", "base_url": urls}}
        async with gateway(tmp_path, upstreams, {"one": one, "two": two}) as service:
            for name in range(12):
                before = [posts(sim) for sim in (one, two)]
                async with Talk(service, f"s{name}") as talk:
                    for _ in range(3):
                        body = {"model": "gpu/sim-medium", "messages": [user("Hi")]}
                        assert (await talk.http.post("/v1/chat/completions", json=body)).status_code == 200
                assert sorted(posts(sim) - was for sim, was in zip((one, two), before, strict=True)) == [0, 3]
            assert posts(one) and posts(two)


def posts(sim: Simulated) -> int:
    return sum(call.method == "POST" for call in sim.asked)


async def test_two_turns_at_the_same_time(tmp_path: Path) -> None:
    """Both are answered and kept, in the order in which they ended."""
    async with house(tmp_path) as service, Talk(service) as talk:
        await talk.says("One")
        service.sims["gpu"].fault_next("slow_head", times=2, seconds=0.2)
        one, two = await asyncio.gather(talk.says("Left"), talk.says("Right"))
        kept = await talk.kept()
        assert kept is not None
        said = [each["content"] for each in kept[2:]]
        assert said in (["Left", one, "Right", two], ["Right", two, "Left", one])
        assert [len(call.fields["messages"]) for call in service.sims["gpu"].asked if call.method == "POST"] == [
            1,
            3,
            3,
        ]


# --- crashes ----------------------------------------------------------------------------------------------------------


class Process:
    """A gateway of its own, to be killed."""

    def __init__(self, folder: Path, sim: Simulated) -> None:
        self.port = _free_port()
        self._folder = folder
        file = folder / "tierway.yaml"
        file.write_text(yaml.safe_dump({"upstreams": {"gpu": upstream(sim)}}))
        self._command = [sys.executable, "-c", "from app.cli import main; main()", "serve", "--config", str(file)]
        self._environ = {
            **{"TIERWAY_DATA_DIR": str(folder / "data"), "TIERWAY_PORT": str(self.port)},
            **{"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"]},
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        with open(self._folder / "log", "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environ, stdout=log, stderr=log
            )
        async with httpx2.AsyncClient(base_url=self.url) as http:

            async def ready() -> bool:
                with contextlib.suppress(httpx2.TransportError):
                    return (await http.get("/readyz")).status_code == 200
                return False

            await within(20, ready, "the gateway is ready")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_gateway_that_is_killed_loses_no_finished_turn(tmp_path: Path) -> None:
    """It is killed the moment the last byte of an answer has come, and in the middle of the next: the next gateway
    goes on with all turns that were finished, and with nothing of the one that was not."""
    async with simulate("openai") as sim:
        process = Process(tmp_path, sim)
        try:
            said: list[Json] = []
            for turn in range(3):
                await process.start()
                talk = Talk(process)  # type: ignore[arg-type]
                words = user(f"Question {turn}")
                said += [words, says(await talk.says([words], stream=turn % 2 == 0))]
                if turn == 1:
                    sim.fault_next("stall")
                    body = {"model": "gpu/sim-plain", "messages": [user("Lost")], "stream": True}
                    async with talk.http.stream("POST", "/v1/chat/completions", json=body) as reply:
                        await anext(reply.aiter_bytes())
                        await process.kill()
                await process.kill()
                await talk.http.aclose()
            begun = clock.monotonic()
            await process.start()
            async with Talk(process) as talk:  # type: ignore[arg-type]
                await talk.says("Last")
                assert clock.monotonic() - begun < 5
                assert sent(sim) == [*said, user("Last")]
        finally:
            await process.kill()


@contextlib.contextmanager
def stopped(folder: Path) -> Iterator[None]:
    """The store's server stands still, as in a machine that swaps."""
    pid = server_pid(folder / "data")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_without_the_store_no_turn_is_answered(tmp_path: Path) -> None:
    """An answer that knows nothing of the conversation would be worse than none; who has no session is served."""
    async with house(tmp_path) as service, Talk(service) as talk:
        first = await talk.says("One")
        with stopped(tmp_path):
            reply = await talk.ask("Two")
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
            assert reply.headers["retry-after"] == "1"
            async with httpx2.AsyncClient(base_url=service.url) as http:
                body = {"model": "auto", "messages": [user("Hi")]}
                assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        await _answers(talk)
        assert await talk.says("Three")
        kept = await talk.kept()
        assert kept is not None and kept[:2] == [user("One"), says(first)] and kept[-2] == user("Three")


async def test_a_turn_that_ends_while_the_store_is_away_is_not_lost(tmp_path: Path) -> None:
    async with house(tmp_path) as service, Talk(service) as talk:
        await talk.says("One")
        service.sims["gpu"].fault_next("slow_head", seconds=0.3)
        running = asyncio.get_running_loop().create_task(talk.says("Two"))
        await asyncio.sleep(0.15)
        with stopped(tmp_path):
            second = await running
        await _answers(talk)
        kept = await talk.kept()
        assert kept is not None and kept[2:4] == [user("Two"), says(second)]


async def _answers(talk: Talk) -> None:
    async def there() -> bool:
        return (await talk.http.get("/v1/sessions/s")).status_code == 200

    await within(5, there, "the store is back")
