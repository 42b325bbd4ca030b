"""Without these the parts of routing are built and not joined: what one of them learns, none of the others hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from app.config.load import load
from app.config.schema import Breaker, Routing
from app.config.settings import Settings, UpstreamSettings
from app.core.caller import ANONYMOUS
from app.core.clock import ManualClock
from app.core.errors import Broken, Refused, UpstreamFailed
from app.core.events import Answer, fold
from app.core.record import Record
from app.core.tasks import TaskOwner
from app.core.upstream import Upstream
from app.flags import Flags
from app.gateway.attempts import Attempts
from app.gateway.discovery import Found
from app.gateway.gateway import Gateway
from app.gateway.routed import Basis, Routed, _classifier
from app.gateway.settle import Settlement
from app.learning.outcome import Evidence
from app.routing.classifier import Classifier
from app.routing.emergency import FAILURES, GONE, QUALITY
from app.routing.registry import Registry
from app.routing.weights import WeightsUnusable
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.telemetry.metrics import Metrics
from app.upstreams.http import Clocks, HttpTransport
from app.upstreams.vllm import VllmUpstream
from tests.core.nouns import card, chat, paid, terms
from tests.gateway.fakes import FakeUpstream, Script, good
from tests.gateway.talks import user
from tests.store.live import eventually

QWEN, NEW, OPUS = card("gpu/qwen"), card("gpu/new"), paid("claude/opus")
DARK = {"kind": "shadow", "share": "100%", "to": {"model": "gpu/new"}}
CANARY = {"kind": "canary", "share": "100%", "to": {"model": "gpu/new"}}
REACHED = Found("gpu", "ollama", True, 2, None)
AWAY = replace(REACHED, error="connection refused")
BUILTIN = Found("tierway", "builtin", True, 1, None)


class House:
    """A gateway with everything that routing builds, over a real store and upstreams that do as they are told."""

    def __init__(self, store: Store, folder: Path, *, shadow: bool = False, **routing: Any) -> None:
        settings = load({"TIERWAY_DATA_DIR": str(folder)})
        settings = replace(settings, upstreams={}, routing=Routing.model_validate(routing))
        start = Flags.start(settings.flags)
        self.flags = replace(start, shares={**start.shares, "SHADOW": float(shadow)})
        self.prometheus = CollectorRegistry()
        self.errors: list[tuple[str, BaseException]] = []
        self.found: tuple[Found, ...] = (BUILTIN, REACHED)
        self.records: list[Record] = []
        clock = ManualClock(1_800_000_000.0)
        self.tasks, self.watchers, self.shadow_tasks = (TaskOwner(self._on_error) for _ in range(3))
        self.broadcast = Broadcast(store, poll=0.2)
        self.routed = Routed(
            Basis(
                settings,
                store,
                Metrics(self.prometheus),
                clock,
                self.tasks,
                self._on_error,
                lambda: self.flags,
                lambda: self.gateway,
                lambda: self.found,
            ),
            None,
        )
        self.gpu = FakeUpstream("gpu", script=Script(good()))
        self.claude = FakeUpstream("claude", local=False, script=Script(good()))
        settlement = Settlement((*self.routed.readers, self.records.append), self.tasks, self._on_error)
        attempts = Attempts(self.routed.health, sleep=lambda seconds: asyncio.sleep(0))
        self.gateway = Gateway(self.routed.planning, attempts, settlement, clock)
        self.gateway.registry = Registry([QWEN, NEW, OPUS])
        self.gateway.upstreams = self.upstreams(self.gpu, self.claude)

    @staticmethod
    def upstreams(*upstreams: Upstream) -> Mapping[str, Upstream]:
        return {each.name: each for each in upstreams}

    def _on_error(self, where: str, error: BaseException) -> None:
        self.errors.append((where, error))

    async def start(self) -> None:
        self.routed.shadow(self.shadow_tasks)
        await self.routed.start(self.broadcast, self.watchers)

    async def stop(self) -> None:
        await self.watchers.cancel()
        for owner in (self.shadow_tasks, self.tasks):
            assert await owner.drain(5.0) == 0
        assert self.errors == []

    async def ask(self, model: str = "auto", request_id: str = "req-1") -> Answer:
        request = chat(model, messages=(user("Hello."),), terms=terms(request_id=request_id), stream=True)
        async with aclosing(self.gateway.answer(ANONYMOUS, request)) as events:
            return fold([event async for event in events])

    def metric(self, name: str, **labels: str) -> float | None:
        return self.prometheus.get_sample_value(f"tierway_{name}", labels)


@pytest.fixture
async def houses(store: Store, tmp_path: Path) -> AsyncIterator[Any]:
    """Makes houses, and closes them."""
    made: list[House] = []

    async def house(**how: Any) -> House:
        made.append(House(store, tmp_path, **how))
        await made[-1].start()
        return made[-1]

    yield house
    for each in made:
        await each.stop()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield cast(list[Any], lines)


# --- one request, and all who hear of it ----------------------------------------------------------------------------


async def test_every_part_hears_of_every_request(houses: Any) -> None:
    house = await houses(rollouts={"new": CANARY})
    answer = await house.ask()
    assert answer.start.served is not None and answer.start.served.model == "gpu/new"
    await house.tasks.drain(5.0)
    routed: Routed = house.routed
    (made,) = house.records
    assert made.plan is not None and made.plan.arm == "new:treatment"
    assert routed.traffic.first_token(NEW) is not None
    assert routed.success.quality("gpu/new") == 0.8
    assert house.metric("local_requests_total") == 1
    remembered = await routed.decisions.get("req-1")
    assert remembered.decision.model == "gpu/new"
    assert {held: len(values) for held, values in routed.rollouts._held.items()} == {
        ("new", "treatment", measure): 1 for measure in ("failed", "first", "score")
    }


async def test_three_local_failures_open_the_way_to_paid_models(houses: Any, logs: list[Any]) -> None:
    """And every use of one is told, or the bill is the first to tell."""
    house = await houses(cloud="emergency")
    house.gpu.script = Script([Broken("reset")])
    with pytest.raises(UpstreamFailed):
        await house.ask()
    await house.tasks.drain(5.0)
    answer = await house.ask()
    assert answer.start.served is not None and answer.start.served.model == "claude/opus"
    await house.tasks.drain(5.0)
    (told,) = [line for line in logs if line["event"] == "emergency cloud"]
    assert (told["trigger"], told["model"], told["request_id"]) == (FAILURES, "claude/opus", "req-1")


async def test_failing_models_wait_behind_the_others(houses: Any) -> None:
    """What attempts see, plans heed: a server that refused one connection is passed over, with all its models."""
    house = await houses()
    house.gpu.script = Script([Refused("no")], good())
    first, second = [(await house.ask()).start.served for _ in range(2)]
    assert (first.model, first.fallback) == ("claude/opus", "gpu/qwen")
    assert (second.model, second.fallback) == ("claude/opus", None)


# --- local models ---------------------------------------------------------------------------------------------------


async def test_an_emergency_is_when_no_local_upstream_answers(houses: Any) -> None:
    """The built-in embedder does not count as one, nor does a gateway that never had any."""
    house = await houses()
    trigger = house.routed.local_watch.trigger
    house.found = (BUILTIN, AWAY, replace(REACHED, upstream="vllm"))
    assert trigger() is None
    house.found = (BUILTIN, AWAY)
    assert trigger() == GONE
    house.found = (BUILTIN, replace(REACHED, upstream="claude", kind="anthropic", local=False))
    assert trigger() is None


async def test_an_emergency_is_when_local_answers_become_worse_than_they_were(houses: Any) -> None:
    house = await houses()
    learn, trigger = house.routed.success.learn, house.routed.local_watch.trigger
    for _ in range(200):
        learn("gpu/qwen", "code", "simple", Evidence(0.9, 1.0))
    assert trigger() is None
    for _ in range(40):
        learn("claude/opus", "code", "simple", Evidence(0.1, 1.0))
    assert trigger() is None, "what paid models do is nothing to it"
    for _ in range(40):
        learn("gpu/qwen", "code", "simple", Evidence(0.1, 1.0))
    assert trigger() == QUALITY


async def test_who_is_local_is_what_its_upstream_is(houses: Any) -> None:
    routed = (await houses()).routed
    assert [routed._is_local(name) for name in ("gpu", "claude", "gone")] == [True, False, False]


async def test_requests_that_wait_over_there_count_as_load(houses: Any) -> None:
    """Another gateway may have sent them."""
    house = await houses()
    vllm = VllmUpstream(
        "vllm",
        base_urls=["http://127.0.0.1:1"],
        api_key=None,
        local=True,
        clocks=Clocks(1, 1, 1, 1),
        transport=HttpTransport(keepalive=1),
    )
    house.gateway.upstreams = house.upstreams(vllm, house.gpu)
    vllm.pool.mark("http://127.0.0.1:1", queue_depth=5)
    load = house.routed.traffic.load
    assert load(card("vllm/m")) > 1.0
    assert (load(QWEN), load(card("gone/m"))) == (0.0, 0.0)
    other = TaskOwner(lambda where, error: None)
    await house.routed.start(house.broadcast, other)
    assert len(other) == 4, "learned success, rollouts, emergencies, and the probe of what can be probed"
    await other.cancel()
    await vllm.close()


# --- shadows --------------------------------------------------------------------------------------------------------


async def test_a_shadow_follows_an_answer_and_is_compared_with_it(houses: Any, logs: list[Any]) -> None:
    house = await houses(shadow=True, rollouts={"dark": DARK})
    answer = await house.ask()
    assert answer.start.served is not None and answer.start.served.model == "gpu/qwen"
    await house.shadow_tasks.drain(5.0)
    await house.tasks.drain(5.0)
    first, shadow = house.records
    assert (first.plan.arm, shadow.plan.arm) == ("dark:control", "dark:treatment")
    assert (shadow.model, shadow.parent_id, shadow.depth) == ("gpu/new", "req-1", 1)
    (told,) = [line for line in logs if line["event"] == "shadow"]
    assert (told["rollout"], told["of"], told["request_id"]) == ("dark", "req-1", shadow.request_id)
    remembered = await house.routed.decisions.get(shadow.request_id)
    assert "shadow" in {outcome.source for outcome in remembered.outcomes}


async def test_without_the_flag_nothing_is_repeated(houses: Any) -> None:
    house = await houses(shadow=False, rollouts={"dark": DARK})
    await house.ask()
    assert len(house.shadow_tasks) == 0
    await house.tasks.drain(5.0)
    assert [made.model for made in house.records] == ["gpu/qwen"]


async def test_a_shadow_is_asked_only_where_there_is_room(houses: Any) -> None:
    """And where its name means one model: a name that has become unclear must not break the answer it follows."""
    house = await houses(shadow=True, rollouts={"dark": {**DARK, "to": {"model": "new"}}})
    is_free = house.routed._is_free
    assert is_free("new") and is_free("gpu/new") and not is_free("gpu/none")
    for _ in range(16):
        house.routed.traffic.started("gpu")
    assert not is_free("gpu/new")
    for _ in range(16):
        house.routed.traffic.ended("gpu")
    house.gateway.registry = Registry([QWEN, NEW, card("claude/new", local=False)])
    answer = await house.ask()
    assert answer.usage is not None, "the answer came to its end"
    assert len(house.shadow_tasks) == 0


# --- what may be missing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [WeightsUnusable("of another release"), FileNotFoundError("router.safetensors")])
def test_a_gateway_without_weights_routes_without_a_classifier(error: Exception, logs: list[Any]) -> None:
    """And says so once, since nobody would notice otherwise."""

    def broken() -> Classifier:
        raise error

    assert _classifier(broken) is None
    (told,) = logs
    assert told["log_level"] == "warning" and str(error) in told["why"]
    there = cast(Classifier, object())
    assert _classifier(lambda: there) is there


async def test_what_the_store_says_is_followed(houses: Any) -> None:
    """An operator's drain, or a change of a rollout, on another replica."""
    here, there = await houses(), await houses()
    async with there.broadcast.running():
        await here.routed.operations.drain("gpu")
        await here.routed.rollouts.put("new", CANARY)
        await eventually(lambda: there.routed.health.demoted(QWEN) is not None)
        await eventually(lambda: [one.name for one in there.routed.rollouts.running] == ["new"])


async def test_a_setting_changes_what_is_routed_from_then_on(store: Store, tmp_path: Path) -> None:
    house = House(store, tmp_path)
    upstream = UpstreamSettings(
        "gpu", "vllm", ("http://gpu",), local=True, max_concurrency=2, breaker=Breaker(failures=1)
    )
    house.routed.configure(Settings(upstreams={"gpu": upstream}, routing=Routing(cloud="never"), version="v2"))
    house.routed.health.ended(QWEN, Broken("x"))
    assert house.routed.health.demoted(QWEN) and house.routed.traffic.ceiling("gpu") == 2
    assert (house.routed.planning.routing.cloud, house.routed.planning.version) == ("never", "v2")


async def test_the_next_gateway_goes_on_with_what_this_one_knows(store: Store, tmp_path: Path) -> None:
    """Conversations keep their models over a reload, and a share of local traffic its threshold."""
    before, later = House(store, tmp_path), House(store, tmp_path)
    before.routed.planning.conversations.answered(b"talk", "gpu/qwen")
    later.routed.inherit(before.routed)
    assert later.routed.planning.conversations.previous(b"talk") == "gpu/qwen"
    assert later.routed.planning.recent is before.routed.planning.recent
