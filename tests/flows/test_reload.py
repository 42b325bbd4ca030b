"""The configuration is changed while gateways work: nobody's answer ends for it, and nothing that was known is lost."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.asking import Asking, Load, replicas, within
from tests.flows.service import MODELS

pytestmark = pytest.mark.asyncio(loop_scope="function")

FIRST, SECOND, PAID = (MODELS[kind] for kind in ("ollama", "vllm", "anthropic"))
SOON = 20.0


def edit(folder: Path, **sections: Any) -> None:
    """Changes sections of the file that all gateways have; None takes one away."""
    file = folder / "tierway.yaml"
    data = {**yaml.safe_load(file.read_text()), **sections}
    file.write_text(yaml.safe_dump({name: section for name, section in data.items() if section is not None}))


async def reloaded(asking: Asking) -> None:
    """By this, unless the gateway noticed by itself before."""
    assert (await asking.admin("POST", "reload"))["outcome"] in ("ok", "unchanged")


async def house_is(asking: Asking, model: str) -> None:
    """Waits until the alias means this model."""

    async def is_so() -> bool:
        return (await asking.chat(model="house")).model == model

    await within(SOON, is_so, f"the alias means {model}")


async def test_a_changed_file_counts_on_every_gateway_and_no_request_fails(tmp_path: Path) -> None:
    """Operators edit while people work. Each request is answered by the one configuration that its log line names."""
    async with replicas(tmp_path, 2, aliases={"house": FIRST}) as found, contextlib.AsyncExitStack() as stack:
        loads = [await stack.enter_async_context(Load(asking, 2, pause=0.02)) for _, asking in found]
        for model in (PAID, SECOND):
            edit(tmp_path, aliases={"house": model})
            for _, asking in found:
                await house_is(asking, model)
        await asyncio.gather(*(load.more(4) for load in loads))
        await stack.aclose()
        replies = [reply for load in loads for reply in load.replies]
        assert {reply.status for reply in replies} == {200} and not any(reply.broke for reply in replies)
        service, _ = found[-1]  # they all write to one place
        meant: dict[str, set[str]] = {}
        for line in service.lines():
            if line["model_requested"] == "house":
                meant.setdefault(line["config_version"], set()).add(line["model"])
        assert sorted(map(list, meant.values())) == sorted([[model] for model in (PAID, SECOND, FIRST)][: len(meant)])
        assert {PAID, SECOND} <= {model for models in meant.values() for model in models}
        assert await service.metric("tierway_config_reloads_total", outcome="ok") >= 2


async def test_a_bad_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async with replicas(tmp_path, aliases={"house": FIRST}) as [(service, asking)]:
        edit(tmp_path, routing={"stategy": "quality"}, aliases={"house": SECOND})
        refused = await asking.admin("POST", "reload", status=422)
        assert "did you mean routing.strategy" in refused["error"]["message"]
        assert (await asking.chat(model="house")).model == FIRST
        assert await service.metric("tierway_config_reloads_total", outcome="failed") >= 1
        (line, *_) = service.lines("the configuration was not reloaded")
        assert "routing.stategy" in str(line["problems"])


async def test_a_reload_names_the_configuration_as_log_lines_do(tmp_path: Path) -> None:
    """Also while a setting stands over the file: whoever looks for what a reload changed looks for this name."""
    async with replicas(tmp_path, kinds=("ollama",), aliases={"house": FIRST}) as [(service, asking)]:
        await asking.admin("PUT", "settings/target_local", {"value": 0.5})
        said = await asking.admin("POST", "reload")
        reply = await asking.chat()

        async def is_logged() -> bool:
            return any(line["request_id"] == reply.id for line in service.lines())

        await within(SOON, is_logged, "the request is logged")
        (line,) = [each for each in service.lines() if each["request_id"] == reply.id]
        assert line["config_version"] == said["config_version"]


async def test_an_answer_under_way_ends_where_it_began(tmp_path: Path) -> None:
    """A long stream is not cut because its upstream is no longer configured."""
    async with replicas(tmp_path, kinds=("ollama", "vllm"), aliases={"house": FIRST}) as [(service, asking)]:
        sim = service.sims["ollama"]
        sim.fault_next("slow_drip")
        stream = asyncio.create_task(asking.chat(model="house", stream=True))

        async def has_begun() -> bool:
            return bool(sim.asked)

        await within(SOON, has_begun, "the stream has begun")
        upstreams = yaml.safe_load((tmp_path / "tierway.yaml").read_text())["upstreams"]
        edit(tmp_path, upstreams={"vllm": upstreams["vllm"]}, models=None, aliases={"house": SECOND})
        await reloaded(asking)
        await house_is(asking, SECOND)
        reply = await stream
        assert (reply.status, reply.broke, reply.model) == (200, False, FIRST) and reply.text
        (line,) = [each for each in service.lines() if each["request_id"] == reply.id]
        assert line["status"] == 200 and line["model"] == FIRST


async def test_what_was_known_of_upstreams_outlives_a_reload(tmp_path: Path) -> None:
    """A server that is just being restarted keeps its models, and one that fails is not tried all over again."""
    options: dict[str, Any] = {"kinds": ("ollama", "vllm"), "settings": {"breaker": {"open": 300}}}
    async with replicas(tmp_path, **options, aliases={"house": FIRST}) as [(service, asking)]:
        sim = service.sims["ollama"]
        sim.refuse()
        sim.drop_connections()
        assert (await asking.chat()).model == SECOND
        edit(tmp_path, aliases={"house": SECOND})
        await reloaded(asking)
        await house_is(asking, SECOND)
        (state,) = [each for each in (await asking.upstream("ollama"))["models"] if each["id"] == FIRST]
        assert state["breaker"] == "open"
        await sim.accept()
        await asking.admin("POST", "upstreams/ollama/reset")
        assert (await asking.chat(model=FIRST)).model == FIRST


async def test_settings_and_flags_outlive_a_reload(tmp_path: Path) -> None:
    """What an operator put at run time wins over the file, old or new; the file's own flags count from then on."""
    environ = {"FEATURE_MULTI_MODEL_ROUTER": "false"}
    async with replicas(tmp_path, environ=environ, aliases={"house": FIRST}) as [(_, asking)]:
        await asking.admin("PUT", "settings/default_model", {"value": PAID})
        await asking.admin("PUT", "flags/SESSIONS", {"value": False})
        routed = {"overrides": {"agent": {"qe": {"multi_model_router": True}}}}
        edit(tmp_path, aliases={"house": SECOND}, routing={"default_model": SECOND}, features=routed)
        await reloaded(asking)
        await house_is(asking, SECOND)
        plain, qe = [await asking.chat(agent=agent) for agent in ("x", "qe")]
        assert plain.model == PAID and "x-tierway-tier" not in plain.headers and "x-tierway-tier" in qe.headers
        flags = (await asking.admin("GET", "flags"))["data"]
        assert next(flag["value"] for flag in flags if flag["name"] == "SESSIONS") is False


async def test_the_complete_rollback(tmp_path: Path) -> None:
    """The file, the settings and the flags of an earlier version, on every gateway, by one command."""
    async with replicas(tmp_path, 2, aliases={"house": FIRST}) as found:
        (_, here), (_, there) = found
        edit(tmp_path, aliases={"house": PAID})
        for _, asking in found:
            await house_is(asking, PAID)
        await here.admin("PUT", "flags/LOCAL_MODELS", {"value": False})
        versions = (await there.admin("GET", "versions"))["data"]
        assert [version["action"] for version in versions] == ["flag.put", "config.load", "config.load"]
        await here.admin("POST", "versions/1/restore")
        for _, asking in found:
            await house_is(asking, FIRST)
        flags = (await there.admin("GET", "flags"))["data"]
        assert next(flag["value"] for flag in flags if flag["name"] == "LOCAL_MODELS") is True
