"""The gateway starts, serves and stops as it does in a pod: whoever applies the manifests sees what these tests saw."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from pathlib import Path

import httpx2
import pytest
import yaml

from app.simulator.server import simulate
from tests.deploy.container import UID, confined, image, pod_of
from tests.deploy.declared import ROOT
from tests.deploy.kustomize import built
from tests.flows.asking import within

SINGLE = ROOT / "deploy" / "kubernetes" / "overlays" / "single"
ADMIN_KEY = "an-admin-key-that-nobody-guesses"


def test_the_image_says_what_is_run() -> None:
    command, variables = image()
    assert command == ["tierway", "serve"]
    assert variables["TIERWAY_DATA_DIR"] == "/var/lib/tierway" and variables["TIERWAY_LOG_FORMAT"] == "json"


def test_a_confined_process_writes_nowhere_else(tmp_path: Path) -> None:
    """Where the kernel lets us confine at all; elsewhere the test below runs it unconfined."""
    inside = tmp_path / "inside"
    inside.mkdir()
    prefix = confined(inside)
    if not prefix:
        pytest.skip("this system lets nobody make namespaces")
    script = f"touch {inside}/a; touch {tmp_path}/b 2>/dev/null || true; id -u; grep CapEff /proc/self/status"
    done = asyncio.run(_said(*prefix, "sh", "-c", script)).split()
    assert done[0] == UID and set(done[-1]) == {"0"}
    assert (inside / "a").exists() and not (tmp_path / "b").exists()


async def _said(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


@pytest.mark.timeout(180)
async def test_it_starts_serves_and_stops_as_in_a_pod(tmp_path: Path) -> None:
    pod, text = pod_of(built(SINGLE), tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        config, sims = yaml.safe_load(text), {}
        for name, upstream in config["upstreams"].items():
            sims[name] = await stack.enter_async_context(simulate(upstream["kind"]))
            upstream["base_url"] = sims[name].base_url
        pod.prepare(yaml.safe_dump(config), {"admin-key": ADMIN_KEY, "anthropic-api-key": "simulated"})
        process = await stack.enter_async_context(pod.running())
        assert process.stdout is not None
        told = (await asyncio.wait_for(process.stdout.readuntil(b"\n\ncurl "), 60)).decode()
        found = re.search(r"on (http://\S+)", told)
        assert found and "SIMULATOR" not in told, told
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=found[1], timeout=30))

        async def passes() -> bool:
            """The probe of the loop below."""
            assert process.returncode is None, pod.log.read_text()
            try:
                reply = await client.get(pod.container[probe]["httpGet"]["path"])
            except httpx2.TransportError:
                return False
            return reply.status_code == 200

        probe = "startupProbe"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            await within(60, passes, probe)
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        made = await client.post("/admin/keys", headers=headers, json={"name": "me"})
        key = {"authorization": f"Bearer {made.json()['key']}"}
        body = {
            "model": "ollama/sim-small",
            "stream": True,
            "messages": [{"role": "user", "content": "sim:tokens=100"}],
        }
        sims["ollama"].fault_next("slow_drip", size=200, seconds=0.02)
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=key) as reply:
            assert reply.status_code == 200
            pieces = reply.aiter_text()
            read = [await anext(pieces)]
            assert "[DONE]" not in read[0]
            process.send_signal(signal.SIGTERM)
            read += [piece async for piece in pieces]
        assert "".join(read).endswith("data: [DONE]\n\n"), "a stream was cut by a rollout"
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert any(pod.path("/var/lib/tierway").iterdir())
