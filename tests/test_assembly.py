"""What a gateway is put together with, and what it shares with the one that follows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from app import assembly
from app.api.backpressure import CLIENTS, Clients
from app.assembly import Assembled, is_loopback, log_error
from app.config.schema import Breaker
from app.config.settings import Settings
from app.core.errors import StoreUnavailable
from app.gateway.rollback import Rollouts
from app.telemetry.logs import configure
from tests.test_main import Running, ollama, running, settings


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Where the log goes meanwhile."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    file = tmp_path / "log"
    with file.open("wb") as stream:
        configure("info", "json", stream)
        yield file
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


async def test_a_fault_of_ours_is_logged_with_its_place(log: Path) -> None:
    """The client was told only an id."""
    log_error("request mine", RuntimeError("a mistake"))
    assert '"where":"request mine"' in log.read_text() and "RuntimeError: a mistake" in log.read_text()


# --- one after another ----------------------------------------------------------------------------------------------


def current(gateway: Running) -> Assembled:
    assert gateway.app._gateways is not None and gateway.app._gateways.current is not None
    return gateway.app._gateways.current.value


async def follow(gateway: Running, settings: Settings) -> Assembled:
    assert gateway.app._gateways is not None
    return await gateway.app._gateways.follow(settings)


async def test_a_reload_lets_nobody_pass_a_ceiling(tmp_path: Path) -> None:
    """A server that takes one call gets one, also while the former gateway still has its answer to end."""
    one = replace(ollama(), max_concurrency=1, ceiling_said=True)
    first = settings(tmp_path, one)
    async with running(first) as gateway:
        before = current(gateway).overload
        assert before.gates["ollama"].enter()
        gateway.app._gateways.current.users += 1  # type: ignore[union-attr]  # whose answer is under way
        after = (await follow(gateway, replace(first, version="2"))).overload
        assert after is not before and not after.gates["ollama"].enter()
        before.gates["ollama"].leave()
        assert after.gates["ollama"].enter()


async def test_what_gateways_share_goes_by_the_newest_configuration(tmp_path: Path) -> None:
    """A setting that changes while the former one still ends an answer must not bring its ceilings back."""
    up, boss = replace(ollama(), max_concurrency=4, ceiling_said=True), {"authorization": "Bearer boss"}
    first = settings(tmp_path, up, admin_key=SecretStr("boss"))
    second = replace(first, upstreams={"ollama": replace(up, max_concurrency=2)}, version="2")
    async with running(first) as gateway:
        gateway.app._gateways.current.users += 1  # type: ignore[union-attr]
        gate = current(gateway).overload.gates["ollama"]
        await follow(gateway, second)
        assert gate.limit.most == 2
        gate.limit.refused(1.0)
        assert gate.limit.calls == 1
        reply = await gateway.client.put("/admin/settings/strategy", json={"value": "quality"}, headers=boss)
        assert reply.status_code == 200, reply.text
        assert (gate.limit.most, gate.limit.calls) == (2, 1), "what was learnt stays too"


async def test_requests_in_flight_are_counted_over_all_gateways(tmp_path: Path) -> None:
    first = settings(tmp_path, ollama())
    async with running(first) as gateway:
        before = current(gateway).front._in_flight
        before.change(1)
        after = (await follow(gateway, replace(first, version="2"))).front._in_flight
        after.change(1)
        before.change(-1)
        assert "tierway_in_flight_requests 1.0" in (await gateway.client.get("/metrics")).text
        after.change(-1)


@pytest.mark.parametrize("fails", ["adopt", "front"])
async def test_a_reload_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """Whatever kept the new gateway from coming to life, the old one goes on as if nobody had asked for it."""
    state: dict[str, Clients] = {}
    up = replace(ollama(), max_concurrency=4, ceiling_said=True)
    first = settings(tmp_path, up)

    async def adopt(self: Rollouts, wanted: object) -> None:
        raise StoreUnavailable("away")

    def front(*args: object) -> None:
        raise RuntimeError("cannot be built")

    async with running(first, state) as gateway:
        old, clients = current(gateway), state[CLIENTS]
        if fails == "adopt":
            monkeypatch.setattr(Rollouts, "adopt", adopt)
        else:
            monkeypatch.setattr(assembly, "_front", front)
        streaming = first.streaming.model_copy(update={"send_timeout": 7.0})
        other = replace(up, max_concurrency=2, breaker=Breaker(failures=1))
        with pytest.raises((RuntimeError, StoreUnavailable)):
            await follow(gateway, replace(first, upstreams={"ollama": other}, streaming=streaming, version="2"))
        assert current(gateway) is old and state[CLIENTS] is clients
        assert old.overload.gates["ollama"].limit.most == 4
        metrics = (await gateway.client.get("/metrics")).text
        assert 'tierway_upstream_limit{upstream="ollama"} 4.0' in metrics
