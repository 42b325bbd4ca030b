"""Time as a client feels it: keep-alives while a model thinks, its own deadline, and being dropped for not reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from app.core.clock import SystemClock
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from tests.flows.raw import RawClient, chat, post
from tests.flows.service import Service, gateway, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

clock = SystemClock()
STREAMING = {"commit_after": 0.2, "ping": 0.1, "send_timeout": 0.5}
HASTY = {"first_token": 0.6, "cold_start": 0.6, "idle": 0.6, "total": 30.0}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """`slow` thinks for a while before its first word; `backed` is the same with a stand-in."""
    folder = Path(tmp_path_factory.mktemp("waiting"))
    models = Behaviour((SimModel("slow", first_token=0.45), SimModel("quick", max_output=100_000)))
    async with simulate("openai", models) as sim, simulate("vllm") as other:
        sims = {"slow": sim, "other": other}
        upstreams = {name: upstream(sim, timeouts=HASTY) for name in ("alone", "backed")}
        upstreams |= {"other": upstream(other), "patient": upstream(sim)}
        notes = {f"backed/{name}": {"fallback": ["other/sim-medium"]} for name in ("slow", "quick")}
        async with gateway(folder, upstreams, sims, streaming=STREAMING, models=notes) as running:
            yield running


async def whole_stream(service: Service, model: str, text: str = "Hi", **headers: str) -> str:
    client = await RawClient.connect(service.port)
    await client.send(post(chat(model, text, stream=True), connection="close", **headers))
    received = (await client.rest()).decode()
    client.vanish()
    return received


async def test_pings_keep_the_line_open(service: Service) -> None:
    """A model that thinks for long is not cut off by a proxy on the way; the answer is whole and its headers are as
    they can be."""
    received = await whole_stream(service, "alone/slow", x_request_id="patient")
    assert received.startswith("HTTP/1.1 200") and received.count(": ping\n\n") >= 2
    assert "x-request-id: patient\r\n" in received.partition("\r\n\r\n")[0]
    assert received.index(": ping") < received.index("data: ") and "data: [DONE]" in received


async def test_official_client_reads_past_pings(service: Service) -> None:
    """Comments must not break the client that everybody uses."""
    stream = await service.openai().chat.completions.create(
        model="alone/slow", messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    assert "You said: Hi" in "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def test_fail_over_after_the_headers(service: Service) -> None:
    """The headers had to go out, and still nobody's words had: another model may answer, and the last chunk says so."""
    service.sims["slow"].fault_next("hang")
    received = await whole_stream(service, "backed/quick")
    assert received.index(": ping") < received.index("medium") and '"plain"' not in received
    assert '"model":"other/sim-medium"' in received and '"attempts":2' in received and "data: [DONE]" in received


async def test_failure_after_the_headers(service: Service) -> None:
    """When it cannot be a status any more, it is an event; never a stream that just ends."""
    service.sims["slow"].fault_next("hang_first")
    received = await whole_stream(service, "alone/quick")
    assert received.startswith("HTTP/1.1 200") and "[DONE]" not in received
    assert '"code":"upstream_timeout"' in received
    assert received.rstrip().endswith("0"), "the body ends in good order"


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_callers_deadline(service: Service, streamed: bool) -> None:
    """`x-tierway-timeout` binds everything: no attempt and no fall-back outlasts it, and it is not held against the
    upstream."""
    service.sims["slow"].fault_next("hang")
    held = await service.metric("tierway_upstream_errors_total", upstream="backed", kind="timeout")
    before = clock.monotonic()
    with pytest.raises(openai.InternalServerError) as caught:
        await service.openai().chat.completions.create(
            model="backed/quick",
            messages=[{"role": "user", "content": "Hi"}],
            stream=streamed,
            extra_headers={"x-tierway-timeout": "0.15"},
        )
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
    assert clock.monotonic() - before < 1
    assert await service.metric("tierway_upstream_errors_total", upstream="backed", kind="timeout") == held


async def test_who_does_not_read_is_dropped(service: Service) -> None:
    """A client that takes nothing holds no model: after `send_timeout` it is cut off, upstream too, and recorded."""
    client = await RawClient.connect(service.port, receive_buffer=4096)
    service.sims["slow"].fault_next("slow_drip", size=20_000, seconds=0.0005)  # as fast as it is taken
    await client.send(post(chat("patient/quick", "sim:tokens=60000", stream=True), x_request_id="deaf"))
    call = None
    for _ in range(800):
        await asyncio.sleep(0.01)
        call = next((call for call in service.sims["slow"].asked if call.headers["x-request-id"] == "deaf"), None)
        if call is not None and call.disconnected:
            break
    assert call is not None and call.disconnected
    received = await client.rest()
    assert b"[DONE]" not in received
    await asyncio.sleep(0.05)
    lines: list[Any] = [line for line in service.lines() if line["request_id"] == "deaf"]
    assert [line["error_code"] for line in lines] == ["client_gone"]
    assert b"ASGI callable" not in service.log.getvalue(), "it is no fault of ours"
    client.vanish()


async def test_who_reads_slowly_gets_it_all(service: Service) -> None:
    """Back-pressure is not punished: as long as it reads at all, a slow client gets every word."""
    client = await RawClient.connect(service.port, receive_buffer=4096)
    await client.send(post(chat("patient/quick", "sim:tokens=4000", stream=True), connection="close"))
    while await client.more():
        await asyncio.sleep(0.0005)
    assert client.received.count(b"data: ") > 4000 and b"data: [DONE]" in client.received
    client.vanish()
