"""Without these nobody can ask why a request would go where it would, or asking would cost or change something."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.api.auth import Door
from app.api.documented import ROUTED
from app.api.route import RouteEndpoint
from app.core.caller import Caller
from app.core.card import Ability
from app.core.errors import InvalidApiKey, InvalidJson, InvalidValue, ModelNotFound, RequestTooLarge
from app.core.money import Price
from app.core.plan import Plan
from app.core.request import Request
from app.core.verdict import Verdict
from app.routing.policy import plan
from app.routing.registry import Registry
from app.routing.rules import Rules
from app.routing.signals import Signals
from app.wire import chat
from app.wire.codec import Limits
from tests.api.test_auth import ALICE, Ring
from tests.api.wire import Wire, asking
from tests.core.nouns import card, paid

SMALL = card("ollama/small", complexity=(0.0, 0.4))
LARGE = paid("claude/large", complexity=(0.3, 1.0), price=Price(4_000_000, 20_000_000, 1, 1, 1))
EMBEDS = card("ollama/embed", abilities=frozenset({Ability.EMBEDDINGS}))
VERDICT = Verdict(0.6, 0.8, "code_review", "router-1")
REGISTRY = Registry([SMALL, LARGE, EMBEDS])


class Rig:
    """The endpoint over the real plan, with a verdict of the test's choosing."""

    def __init__(
        self, verdict: Verdict | None = VERDICT, ring: Ring | None = None, limits: Limits | None = None
    ) -> None:
        self.verdict = verdict
        self.asked: list[tuple[Request, Caller]] = []
        keys = ring or Ring()
        door = Door(lambda: keys, admin_key="boss", open_at_first=True)
        self.endpoint = RouteEndpoint(door, self.peek, chat, limits or Limits())

    def peek(self, request: Request, caller: Caller) -> Plan:
        self.asked.append((request, caller))
        signals = Signals(first_token=lambda each: 0.25 if each.local else None)
        return plan(request, caller, REGISTRY, Rules(), signals, self.verdict)

    async def serve(self, wire: Wire) -> Any:
        inbound = wire.inbound()
        await self.endpoint(inbound)
        assert wire.status == 200 and wire.complete and inbound.taken
        return wire.json


async def test_the_decision_is_told() -> None:
    wire = Wire(asking(stream=True), headers={"x-request-id": "mine", "x-tierway-cache": "no"})
    said = await Rig().serve(wire)
    assert said.keys() == {
        *("score", "tier", "task_type", "confidence", "strategy", "model", "memory_hits"),
        *("explanation", "candidates", "excluded"),
    }
    assert (said["score"], said["tier"], said["task_type"], said["confidence"]) == (0.6, "complex", "code_review", 0.8)
    assert (said["strategy"], said["model"], said["memory_hits"]) == ("cost", "claude/large", 0)
    assert said.keys() == ROUTED["properties"].keys(), "it is documented as it is"
    first, second = said["candidates"]
    assert first.keys() == {"model", "cost_usd", "latency_ms", "predicted", "reason"}
    assert (first["model"], first["latency_ms"], first["reason"]) == ("claude/large", None, "cheapest that can do it")
    assert first["cost_usd"] == pytest.approx(0.008, rel=0.02)
    assert (second["model"], second["cost_usd"], second["latency_ms"]) == ("ollama/small", 0, 250)
    assert 0 < second["predicted"] < first["predicted"] < 1
    assert said["excluded"] == [{"model": "ollama/embed", "reason": "it cannot do this: chat"}]
    assert wire.headers["x-request-id"] == "mine" and wire.headers["content-type"] == "application/json"
    assert wire.headers["x-tierway-ignored"] == "x-tierway-cache"


async def test_it_is_told_in_words_too() -> None:
    """A person understands in one reading why this model, what it costs, what is cheaper and why not."""
    words = (await Rig().serve(Wire(asking())))["explanation"]
    assert words.startswith("auto (cost) would go to claude/large: cheapest that can do it. ")
    assert "looked complex (score 0.60, code review)" in words and "expected to cost 0.008" in words
    assert "Cheaper would have been ollama/small at nothing (weaker than it asks for" in words


async def test_what_is_not_known_is_null() -> None:
    said = await Rig(verdict=None).serve(Wire(asking()))
    assert [said[name] for name in ("score", "tier", "task_type", "confidence")] == [None] * 4
    assert said["candidates"][0]["predicted"] is None and said["model"] == "ollama/small"


async def test_headers_and_names_count_as_for_an_answer() -> None:
    rig = Rig()
    strategy = await rig.serve(Wire(asking(), headers={"x-tierway-strategy": "privacy"}))
    assert (strategy["strategy"], strategy["model"]) == ("privacy", "ollama/small")
    assert {"model": "claude/large", "reason": "it is not local"} in strategy["excluded"]
    named = await rig.serve(Wire(asking(model="large")))
    assert (named["strategy"], named["model"]) == ("named", "claude/large")


async def test_a_key_is_needed_as_for_an_answer() -> None:
    """What models there are, and what they cost, is no business of strangers."""
    rig = Rig(ring=Ring({"s3": ALICE}, True))
    wire = Wire(asking())
    with pytest.raises(InvalidApiKey):
        await rig.endpoint(wire.inbound())
    assert wire.received == 0 and rig.asked == []
    await rig.serve(Wire(asking(), headers={"authorization": "Bearer s3"}))
    assert rig.asked[0][1] is ALICE


async def test_the_operator_may_ask_as_anybody() -> None:
    """With the admin key, which opens nothing that costs anything."""
    rig = Rig(ring=Ring({"s3": ALICE}, True))
    await rig.serve(Wire(asking(), headers={"authorization": "Bearer boss"}))
    assert rig.asked[0][1] == Caller()


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        (b"{", {}, InvalidJson),
        (asking(model=7), {}, InvalidValue),
        (asking(model="nobody"), {}, ModelNotFound),
        (asking(), {"x-tierway-strategy": "best"}, InvalidValue),
        (b" " * 2_000, {}, RequestTooLarge),
    ],
)
async def test_errors_are_those_of_chat(body: bytes, headers: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        await Rig(limits=Limits(body_bytes=1_000)).serve(Wire(body, headers=headers))


async def test_a_model_name_that_is_no_text_for_json_is_no_fault_of_ours() -> None:
    """A caller's lone surrogate must come back as a model that does not exist."""
    body = orjson.dumps({"model": "x", "messages": [{"role": "user", "content": "Hi"}]}).replace(b'"x"', b'"\\ud800"')
    with pytest.raises((ModelNotFound, InvalidJson)):
        await Rig().serve(Wire(body))
