"""Streams that are read on after their client, or their gateway, was gone: nothing lost, nothing twice, paid once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from app.simulator.simulated import Simulated
from app.store import layout
from app.store.opening import open_store
from tests.flows.asking import ADMIN, ADMIN_KEY, within
from tests.flows.resuming import MODEL, PRICED, RESUMABLE, Got, begin, body, gateways, http, resume
from tests.flows.service import Service, gateway, upstream

pytestmark = pytest.mark.asyncio(loop_scope="function")


def sim_of(services: list[Service]) -> Simulated:
    return services[0].sims["openai"]


async def recorded(services: list[Service]) -> list[dict[str, Any]]:
    """The lines of all requests, once there is one."""

    async def there() -> bool:
        return bool([line for service in services for line in service.lines()])

    await within(10, there, "a request is recorded")
    return [line for service in services for line in service.lines()]


async def test_official_clients_read_it_to_its_end(tmp_path: Path) -> None:
    """Ids, and pings between them, must not trouble a client that knows nothing of either."""
    async with gateways(tmp_path, 1, pace=50, streaming={"ping": 0.05, "commit_after": 0.01}) as (service,):
        client = service.openai()
        stream = await client.chat.completions.create(**body(20), extra_headers=RESUMABLE)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "stop"
        asked: dict[str, Any] = {key: value for key, value in body(20).items() if key != "stream"}
        async with client.chat.completions.stream(**asked, extra_headers=RESUMABLE) as helped:
            whole = await helped.get_final_completion()
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert whole.choices[0].message.content == said and said


async def test_a_client_that_is_cut_again_and_again_gets_every_byte_once(tmp_path: Path) -> None:
    """On two gateways in turn, while the stream runs and after; the upstream is asked, and paid, once."""
    dice = random.Random(7)
    async with gateways(tmp_path) as services:
        got = await begin(services[0], 300, Got(), bytes_=dice.randrange(1, 3_000))
        turns = 0
        while not got.done:
            turns += 1
            await resume(services[turns % 2], got, bytes_=dice.randrange(1, 20_000))
            assert got.error is None and got.ended_by is None
        whole = await resume(services[1], Got(id=got.id))
        here = await resume(services[0], Got(id=got.id))
        assert whole.events == here.events == got.events and got.text.count(" ") > 200 and turns > 2
        (line,) = await recorded(services)
        assert line["status"] == 200 and line["tokens_out"] == 300 and line["cost_usd"] > 0
        assert len(sim_of(services).asked) == 1


async def test_its_bytes_are_those_of_any_stream_but_for_the_ids(tmp_path: Path) -> None:
    async with gateways(tmp_path, 1, pace=None) as (service,):
        got = await begin(service, 10, Got())
        async with http(service) as client:
            plain = (await client.post("/v1/chat/completions", json=body(10))).content
        assert not plain.startswith(b"id:") and b"\nid:" not in plain
        assert [each.partition(b'"choices"')[2] for each in got.data[:5]] == [
            each.partition(b'"choices"')[2] for each in plain.split(b"\n\n")[:5]
        ]


async def test_a_slow_reader_does_not_slow_what_is_made(tmp_path: Path) -> None:
    """The store has it all; the client reads at its own pace, here or elsewhere."""
    async with gateways(tmp_path, 2, pace=None, streaming={"buffer_bytes": 65_536}) as services:
        async with http(services[0]) as client:
            asked = client.stream("POST", "/v1/chat/completions", json=body(20_000), headers=RESUMABLE)
            async with asked as reply:
                got = Got(id=reply.headers["x-tierway-stream-id"])
                assert (await recorded(services))[0]["tokens_out"] == 20_000, "before anything was read"
                async for data in reply.aiter_raw():
                    got.feed(data)
        assert got.done and (await resume(services[1], Got(id=got.id))).events == got.events


async def test_only_its_owner_comes_back_to_it(tmp_path: Path) -> None:
    async with gateways(tmp_path, pace=None, environ=ADMIN) as services:
        keys = []
        async with http(services[0]) as client:
            for name in ("mine", "other"):
                made = await client.post(
                    "/admin/keys", json={"name": name}, headers={"authorization": f"Bearer {ADMIN_KEY}"}
                )
                keys.append(f"Bearer {made.json()['key']}")

        async def known() -> bool:
            async with http(services[1]) as client:
                return (await client.get("/v1/models", headers={"authorization": keys[1]})).status_code == 200

        await within(10, known, "the key is known on the other gateway")
        got = await begin(services[0], 10, Got(), authorization=keys[0])
        assert (await resume(services[1], Got(id=got.id), authorization=keys[0])).events == got.events
        for service in services:
            async with http(service) as client:
                reply = await client.get(f"/v1/streams/{got.id}", headers={"authorization": keys[1]})
                assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
                assert (await client.get(f"/v1/streams/{got.id}")).status_code == 401
                wrong = await client.get(f"/v1/streams/{got.id}?after=x", headers={"authorization": keys[0]})
                assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "after")


async def test_after_its_events_are_gone_it_is_told_what_came_of_it(tmp_path: Path) -> None:
    async with gateways(tmp_path, pace=None) as services, open_store(None, tmp_path / "data") as store:
        got = await begin(services[0], 10, Got())

        async def told() -> bool:
            names = await store.call("KEYS", f"{layout.PARTITIONS['stream-about'].prefix}:*")
            status: bytes = await store.call("HGET", names[0], "status")
            return status == b"finished"

        await within(10, told, "what the stream came to is written down")
        (events,) = await store.call("KEYS", f"{layout.PARTITIONS['stream-chunks'].prefix}:*")
        assert 0 < await store.call("TTL", events) <= 300
        await store.call("DEL", events)
        for service in services:
            async with http(service) as client:
                reply = await client.get(f"/v1/streams/{got.id}?after=3")
            assert (reply.status_code, reply.json()["error"]["code"]) == (410, "stream_expired")
            (line,) = await recorded(services)
            told_ = reply.json()["stream"]
            assert told_ == {
                "id": got.id,
                "model": MODEL,
                "status": "finished",
                "error_code": None,
                "usage": {"prompt_tokens": line["tokens_in"], "completion_tokens": 10},
                "cost_usd": line["cost_usd"],
            }


async def test_what_nobody_reads_ends_and_is_settled_once(tmp_path: Path) -> None:
    async with gateways(tmp_path, pace=20, streaming={"orphan_seconds": 0.3}) as services:
        got = await begin(services[0], 2_000, Got(), bytes_=2_000)
        (line,) = await recorded(services)
        assert line["error_code"] == "client_gone" and 0 < line["tokens_out"] < 2_000 and line["cost_usd"] > 0
        assert sim_of(services).asked[0].left_at is not None
        await resume(services[1], got)
        assert got.ended_by == "stream_orphaned" and not got.done and got.error is None
        assert len(await recorded(services)) == 1


async def test_a_reader_on_another_gateway_keeps_it_going(tmp_path: Path) -> None:
    async with gateways(tmp_path, pace=50, streaming={"orphan_seconds": 1.5}) as services:
        got = await begin(services[0], 250, Got(), bytes_=2_000)  # five seconds in all
        assert (await resume(services[1], got)).done


async def test_who_left_before_its_id_was_told_is_not_waited_for(tmp_path: Path) -> None:
    async with gateways(tmp_path, 1) as services:
        sim_of(services).fault_next("hang_first")
        async with http(services[0]) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.post("/v1/chat/completions", json=body(5), headers=RESUMABLE)
        (line,) = await recorded(services)
        assert line["status"] == 499


async def test_a_failure_before_the_first_content_has_its_status(tmp_path: Path) -> None:
    async with gateways(tmp_path, 1) as services:
        sim_of(services).fault_always("server_error")
        with pytest.raises(openai.InternalServerError) as caught:
            await services[0].openai().chat.completions.create(**body(5), extra_headers=RESUMABLE)
        assert caught.value.status_code == 502


async def test_an_answer_that_breaks_is_told_to_whoever_comes_back(tmp_path: Path) -> None:
    async with gateways(tmp_path) as services:
        sim_of(services).fault_next("cut", at=5)
        got = await begin(services[0], 50, Got())
        assert got.ended_by == "upstream_failed"
        assert (await resume(services[1], Got(id=got.id))).events == got.events
        with pytest.raises(openai.APIError):
            sim_of(services).fault_next("cut", at=5)
            stream = await services[0].openai().chat.completions.create(**body(50), extra_headers=RESUMABLE)
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    ("how", "resumable"),
    [
        ({"streaming": {"resumable": "never"}}, False),
        ({"environ": {"FEATURE_RESUMABLE_STREAMS": "false"}}, False),
        ({"streaming": {"resumable": "always"}}, True),
    ],
)
async def test_where_it_is_not_to_be_the_header_is_ignored_and_named(
    tmp_path: Path, how: dict[str, Any], resumable: bool
) -> None:
    async with gateways(tmp_path, 1, pace=None, **how) as (service,), http(service) as client:
        for headers in (RESUMABLE, {}):
            reply = await client.post("/v1/chat/completions", json=body(5), headers=headers)
            assert reply.status_code == 200 and reply.content.endswith(b"data: [DONE]\n\n")
            assert reply.content.startswith(b"id: 1\n") is resumable is ("x-tierway-stream-id" in reply.headers)
            ignored = bool(headers) and not resumable
            assert reply.headers.get("x-tierway-ignored") == ("x-tierway-resumable" if ignored else None)
        declined = await client.post("/v1/chat/completions", json=body(5), headers={"x-tierway-resumable": "false"})
        assert declined.content.startswith(b"data:") and "x-tierway-ignored" not in declined.headers
        whole = await client.post("/v1/chat/completions", json={**body(5), "stream": False}, headers=RESUMABLE)
        assert whole.status_code == 200 and whole.headers["x-tierway-ignored"] == "x-tierway-resumable"


# --- gateways that stop ---------------------------------------------------------------------------------------------


async def test_a_gateway_that_stops_finishes_what_it_began(tmp_path: Path) -> None:
    """For the client that reads it, and for one that left and comes back elsewhere."""
    async with gateways(tmp_path, 1) as (other,):
        upstreams = {"openai": upstream(other.sims["openai"])}
        left, whole = Got(), Got()
        async with gateway(
            tmp_path, upstreams, other.sims, models=PRICED, server_options={"timeout_graceful_shutdown": 20}
        ) as stops:
            reading = asyncio.get_running_loop().create_task(begin(stops, 200, whole))
            await begin(stops, 200, left, bytes_=1_000)
        await reading
        assert whole.done and whole.error is None
        assert (await resume(other, left)).done
        assert [line["status"] for line in stops.lines()] == [200, 200]


async def test_at_the_end_of_its_grace_a_typed_error_ends_them(tmp_path: Path) -> None:
    async with gateways(tmp_path, 1) as (other,):
        upstreams, got = {"openai": upstream(other.sims["openai"])}, Got()
        options = {"timeout_graceful_shutdown": 1}
        async with gateway(tmp_path, upstreams, other.sims, models=PRICED, server_options=options) as stops:
            reading = asyncio.get_running_loop().create_task(begin(stops, 20_000, got))

            async def begun() -> bool:
                return got.last > 5

            await within(10, begun, "the stream runs")
        await reading
        assert got.error is not None and got.error["code"] == "shutting_down", "which is of the line, not of the stream"
        assert (await resume(other, got)).ended_by == "shutting_down"
        (line,) = stops.lines()
        assert line["tokens_out"] > 0 and line["cost_usd"] > 0


async def test_a_gateway_that_is_killed_leaves_what_was_stored(tmp_path: Path) -> None:
    """Readers elsewhere get that, and then a word instead of silence."""
    async with gateways(tmp_path, 1, pace=100) as (other,):
        environ = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ},
            "TIERWAY_CONFIG": str(tmp_path / "tierway.yaml"),
            "TIERWAY_DATA_DIR": str(tmp_path / "data"),
            "TIERWAY_PORT": "0",
        }
        line = (sys.executable, "-c", "from app.cli import main; main()", "serve")
        process = await asyncio.create_subprocess_exec(*line, env=environ, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                url = (await process.stdout.readline()).decode().split()[-1]
            killed = replace(other, url=url)
            got = await begin(killed, 5_000, Got(), bytes_=20_000)
            reading = asyncio.get_running_loop().create_task(resume(other, Got(id=got.id)))

            async def caught_up() -> bool:
                whole = await resume(other, Got(id=got.id), bytes_=20_000)
                return whole.last >= got.last

            await within(20, caught_up, "the store has what the client has")
            process.send_signal(signal.SIGKILL)
            whole = await asyncio.wait_for(reading, 60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        assert whole.error is not None and whole.error["code"] == "stream_broken" and not whole.done
        assert whole.events[: got.last] == got.events
        again = await resume(other, got)
        assert again.events == whole.events and again.error == whole.error
