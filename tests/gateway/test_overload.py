"""What was configured must be what counts: a ceiling that is read and not kept is worse than none."""

from __future__ import annotations

from dataclasses import replace

from app.config.schema import Limits, Routing
from app.config.settings import Settings, UpstreamSettings
from app.core.clock import ManualClock
from app.gateway.overload import Overload
from app.telemetry.metrics import new_registry
from app.telemetry.overload_metrics import OverloadMetrics
from app.telemetry.pressure import LAG, MEMORY

GPU = UpstreamSettings("gpu", "vllm", ("http://h",), max_concurrency=8, ceiling_said=True)


def overload(settings: Settings, memory: int = 0) -> Overload:
    made = Overload(settings, ManualClock(), OverloadMetrics(new_registry()), lambda: memory)
    made.configure(settings)
    return made


def test_ceilings_are_those_of_the_configuration_also_of_a_later_one() -> None:
    settings, told = Settings(upstreams={"gpu": GPU}), list[Settings]()
    made = overload(settings)
    assert made.gates["gpu"].limit.calls == 8
    later = replace(settings, upstreams={"gpu": replace(GPU, max_concurrency=3)})
    made.after(told.append)(later)
    assert told == [later] and made.gates["gpu"].limit.calls == 3


def test_the_next_gateway_shares_the_seats_of_servers_that_stay() -> None:
    """And touches nothing of the one before until it is configured: perhaps it never comes to life."""
    moved = replace(GPU, name="moved")
    before = overload(Settings(upstreams={"gpu": GPU, "moved": moved}))
    lower = {"gpu": replace(GPU, max_concurrency=1), "moved": replace(moved, base_urls=("http://other",))}
    settings = Settings(upstreams=lower)
    later = Overload(settings, ManualClock(), before.metrics)
    later.inherit(before)
    assert before.gates["gpu"].enter() and before.gates["gpu"].limit.calls == 8
    later.configure(settings)
    assert later.gates["gpu"] is before.gates["gpu"] and not later.gates["gpu"].enter()
    assert later.gates["moved"] is not before.gates["moved"]


def test_workers_divide_a_ceiling() -> None:
    assert overload(Settings(upstreams={"gpu": GPU}, workers=4)).gates["gpu"].limit.calls == 2


def test_a_paid_model_relieves_a_local_one_after_what_routing_says() -> None:
    settings = Settings(upstreams={"gpu": GPU})
    made = overload(settings)
    assert made.seating.dearer_after() is None
    made.configure(replace(settings, routing=Routing(max_local_latency=3.0)))
    assert made.seating.dearer_after() == 3.0


def test_limits_decide_what_is_too_much() -> None:
    made = overload(Settings(limits=Limits(lag_seconds=2.5, queue_seconds=4.0)))
    assert made.seating.wait_seconds == 4.0
    made.pressure.observe(2.4)
    assert made.pressure.cause is None
    made = overload(Settings(limits=Limits(lag_seconds=2.3)))
    made.pressure.observe(2.4)
    assert made.pressure.cause == LAG
    full = overload(Settings(limits=Limits(memory_bytes=1_000_000)), memory=1_000_001)
    full.pressure.observe(0.0)
    assert full.pressure.cause == MEMORY
