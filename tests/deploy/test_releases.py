"""The release before this one on a store that this one wrote, and this one again: keys, money, conversations, answers,
flags and settings are the same. Without it "start the previous image" is a hope."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import pytest_asyncio
import yaml

from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from app.store import layout
from app.store.opening import open_store
from tests.cli.conftest import environment
from tests.deploy.declared import ROOT
from tests.deploy.releases import Release, commit, previous
from tests.flows.asking import ANY, within
from tests.flows.service import MODELS, upstream

pytestmark = pytest.mark.timeout(240)

PAID, LOCAL = MODELS["openai"], MODELS["ollama"]
DAY, EVER, TENANT = "global:*:day", "global:*:total", "tenant:acme:total"
RESUMABLE: Final = {"stream": "yes", "x_tierway_resumable": "true"}
LATER: Final = f"{layout.TAG}:of-a-later-release"
"""A key of a partition that no release knows yet."""


@pytest_asyncio.fixture(loop_scope="function")
async def sims(tmp_path: Path) -> AsyncIterator[Mapping[str, Simulated]]:
    """One local server and one that costs, and a configuration that every release reads."""
    async with simulate("ollama") as ollama, simulate("openai") as openai:
        found = {"ollama": ollama, "openai": openai}
        config = {
            "upstreams": {name: upstream(sim) for name, sim in found.items()},
            "models": {PAID: {**ANY, "price": {"input": 10, "output": 100}}, LOCAL: ANY},
            "budgets": [
                {"scope": "global", "period": "day", "limit": 100},
                {"scope": "global", "period": "total", "limit": 1_000},
                {"scope": "tenant", "match": "acme", "period": "total", "limit": 50},
            ],
        }
        (tmp_path / "tierway.yaml").write_text(yaml.safe_dump(config))
        yield found


class Wrote:
    """What a release left in the store, to be found by every other."""

    def __init__(self) -> None:
        self.key = self.revoked = self.key_id = ""
        self.session = self.stream = b""
        self.stream_id = self.request_id = ""
        self.repeated: dict[str, bytes] = {}
        self.cost = Decimal(0)

    async def ask(self, release: Release, model: str, said: str, **headers: str) -> Any:
        reply = await release.ask(model, said, self.key, **headers)
        self.cost += Decimal(reply.headers.get("x-tierway-cost-usd", "0"))
        return reply

    async def turn(self, release: Release, said: str, number: int) -> None:
        """One more turn of the conversation, one more answer that is kept for whoever asks for it again."""
        await self.ask(release, PAID, said, x_tierway_session="talk")
        self.session = (await release.get("/v1/sessions/talk", self.key)).content
        name = f"again-{number}"
        self.repeated[name] = (await self.ask(release, PAID, "Once only", idempotency_key=name)).content


async def first(release: Release, wrote: Wrote) -> None:
    """This release, at work: one thing of each kind that a store holds."""
    made = await release.admin("POST", "keys", {"name": "me", "tenant": "acme", "budgets": {"total": 20}})
    wrote.key, wrote.key_id = made["key"], made["id"]
    gone = await release.admin("POST", "keys", {"name": "gone"})
    wrote.revoked = gone["key"]
    await release.admin("DELETE", f"keys/{gone['id']}")
    await release.admin("PUT", f"budgets/{DAY}", {"limit": 80})
    await release.admin("PUT", "flags/SHADOW", {"value": "10%"})
    await release.admin("PUT", "flags/MULTI_MODEL_ROUTER", {"value": False, "agent": "odd"})
    await release.admin("PUT", "settings/target_local", {"value": 0.5})
    await release.admin("PUT", "rollouts/trial", {"kind": "canary", "share": "10%", "to": {"model": LOCAL}})
    await release.admin("POST", "upstreams/ollama/drain")
    await wrote.turn(release, "Hello", 1)
    streamed = await release.ask(PAID, "Count", wrote.key, **RESUMABLE)
    wrote.stream, wrote.stream_id = streamed.content, streamed.headers["x-tierway-stream-id"]
    wrote.cost += cost_of(streamed.text)
    routed = await wrote.ask(release, "auto", "What is the capital of Portugal?")
    wrote.request_id = routed.headers["x-request-id"]
    rated = {"request_id": wrote.request_id, "rating": 0.5}
    bearer = {"authorization": f"Bearer {wrote.key}"}
    assert (await release.http.post("/v1/feedback", json=rated, headers=bearer)).status_code == 202


def cost_of(stream: str) -> Decimal:
    chunks = [orjson.loads(line.partition("data: ")[2]) for line in stream.splitlines() if "data: {" in line]
    (cost,) = {Decimal(str(chunk["tierway"]["cost_usd"])) for chunk in chunks if "tierway" in chunk}
    return cost


async def spent(release: Release, budget: str = EVER) -> tuple[Decimal, Decimal]:
    """Used and held."""
    state = (await release.listed("budgets"))[budget]
    return Decimal(str(state["used"])), Decimal(str(state["held"]))


async def settled(release: Release, wrote: Wrote) -> None:
    """Everything is booked: a moment after the answers."""

    async def is_so() -> bool:
        return {await spent(release), await spent(release, TENANT)} == {(wrote.cost, Decimal(0))}

    await within(20, is_so, f"{wrote.cost} are used, nothing is held")


async def standing(release: Release, wrote: Wrote) -> dict[str, Any]:
    """What operators and callers see, whichever release they ask."""
    budgets = await release.listed("budgets")
    return {
        "keys": await release.listed("keys"),
        "flags": {
            name: (each["value"], each["changes"]) for name, each in (await release.listed("flags", "name")).items()
        },
        "settings": {
            name: each["value"] for name, each in (await release.listed("settings", "name")).items() if each["changed"]
        },
        "versions": sorted(await release.listed("versions", "number")),
        "rollouts": {
            name: (each["share"], each["status"]) for name, each in (await release.listed("rollouts", "name")).items()
        },
        "limits": {id: each["limit"] for id, each in budgets.items()},
        "drained": [name for name, each in (await release.listed("upstreams", "name")).items() if each["drained"]],
        "audit": [(each["action"], each["subject"]) for each in (await release.admin("GET", "audit"))["data"]],
        "session": (await release.get("/v1/sessions/talk", wrote.key)).json(),
        "decision": (await release.admin("GET", f"decisions/{wrote.request_id}"))["model"],
    }


async def holds(release: Release, wrote: Wrote, before: Mapping[str, Any]) -> None:
    """Callers and operators find everything as it was."""
    assert await standing(release, wrote) == before
    assert (await release.get("/v1/models", wrote.revoked)).status_code == 401
    resumed = await release.get(f"/v1/streams/{wrote.stream_id}", wrote.key)
    assert resumed.status_code == 200 and resumed.content == wrote.stream
    for name, content in wrote.repeated.items():
        assert (await release.ask(PAID, "Once only", wrote.key, idempotency_key=name)).content == content


async def later(data: Path) -> None:
    """What a release after this one may leave there: more fields, and kinds of things that nobody knows yet."""
    async with open_store(None, data) as store:
        fields = await store.call("HGETALL", layout.KEYS)
        for id, text in zip(fields[::2], fields[1::2], strict=True):
            await store.call("HSET", layout.KEYS, id, orjson.dumps({**orjson.loads(text), "colour": "red"}))
        numbers = [int(number) for number in await store.call("HKEYS", layout.RUNTIME)]
        version = orjson.loads(await store.call("HGET", layout.RUNTIME, str(max(numbers))))
        version |= {"number": max(numbers) + 1, "mood": "good"}
        version["flags"]["TELEPATHY"] = {"value": 1.0, "over": 0.0}
        version["settings"]["telepathy"] = 7
        await store.call("HSET", layout.RUNTIME, str(version["number"]), orjson.dumps(version))
        await store.call("HSET", layout.KEYS, "key_odd", b'{"of": "another kind"}')
        await store.call("SET", LATER, b"anything")


async def left_alone(data: Path) -> None:
    async with open_store(None, data) as store:
        assert await store.call("GET", LATER) == b"anything"
        assert await store.call("HGET", layout.KEYS, "key_odd") == b'{"of": "another kind"}'
        kept = [orjson.loads(text) for text in (await store.call("HGETALL", layout.RUNTIME))[1::2]]
        newest = sorted(kept, key=lambda version: int(version["number"]))
        before = newest[-2]  # the last one goes back to what was before all that
        assert before["flags"]["TELEPATHY"]["value"] == 1.0 and before["settings"]["telepathy"] == 7


async def killed_at_work(release: Release, sims: Mapping[str, Simulated], wrote: Wrote) -> None:
    """The process dies in the middle of an answer that costs: what was held for it stays held, then counts in full."""
    sims["openai"].fault_next("slow_drip", size=50, seconds=0.05)
    async with release.chat(PAID, "sim:tokens=200", wrote.key, stream="yes") as reply:
        async for _ in reply.aiter_bytes():
            break
        used, held = await spent(release)
        assert used == wrote.cost and held > 0
        release.kill()
    wrote.cost += held


async def counts(release: Release, wrote: Wrote) -> None:
    """No cent is lost, or counted twice: what is used and what is still held come to what was asked for."""

    async def is_so() -> bool:
        return sum(await spent(release)) == wrote.cost == sum(await spent(release, TENANT))

    await within(20, is_so, f"{wrote.cost} are used or held")


def verified(data: Path) -> str:
    line = [sys.executable, "-c", "from app.cli import main; main()", "ledger", "verify"]
    done = subprocess.run(
        line, env=environment(data), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_previous_release_and_back(tmp_path: Path, sims: Mapping[str, Simulated]) -> None:
    """An operator starts the previous image on the same store while somebody works, and the new one the next day."""
    data, wrote = tmp_path / "data", Wrote()
    before = previous(tmp_path)
    async with Release(ROOT, tmp_path) as this:
        await first(this, wrote)
        await later(data)
        await this.admin("PUT", "flags/STREAMING", {"value": "90%"})
        await settled(this, wrote)
        stood = await standing(this, wrote)
        await killed_at_work(this, sims, wrote)
    async with Release(before, tmp_path) as other:
        assert other.code().is_relative_to(before)
        await holds(other, wrote, stood)
        await counts(other, wrote)
        await wrote.turn(other, "Hello again", 2)
        await other.admin("POST", "keys", {"name": "another"})
        await other.admin("PUT", "flags/SHADOW", {"value": False})
        await counts(other, wrote)
        stood = await standing(other, wrote)
    async with Release(ROOT, tmp_path) as this:
        assert this.code().is_relative_to(ROOT)
        await holds(this, wrote, stood)
        await counts(this, wrote)
        await wrote.turn(this, "And once more", 3)
        assert len(orjson.loads(wrote.session)["messages"]) == 6
        assert "key_odd" in this.told, "what cannot be read is said"
        await this.admin("POST", "versions/1/restore")
    await left_alone(data)
    verified(data)


def test_the_file_names_a_commit() -> None:
    """`.ci/run` and whoever goes back read it."""
    assert len(commit()) == 40 and int(commit(), 16)
