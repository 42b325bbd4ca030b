"""Without these simulated models have no delays, or a stream and a JSON reply that say different things."""

from __future__ import annotations

import orjson
import pytest

from app.core.events import Start
from app.simulator import wires
from app.simulator.behaviour import SimModel
from app.simulator.brain import think
from app.simulator.script import Head, Script, Wait, body_of
from app.simulator.speak import Manner, speak, terms
from app.wire import chat
from tests.simulator.asking import call, request

SSE = Manner(chat, wires.SSE)


def spoken(model: SimModel, manner: Manner = SSE, *, stream: bool = True, tokens: int = 4) -> Script:
    asked = request(f"sim:tokens={tokens}", stream=stream)
    thought = think(asked, model.tier, limit=1_000, prompt=3)
    return speak(manner, asked, Start("i", model.name, 0, "simulated"), thought, model)


def test_without_delays_nothing_waits() -> None:
    assert not any(isinstance(step, Wait) for step in spoken(SimModel("m")))


def test_the_first_token_and_each_further_one_take_their_time() -> None:
    script = spoken(SimModel("m", first_token=2, tokens_per_second=10))
    waits = [step.seconds for step in script if isinstance(step, Wait)]
    assert waits[0] == 2 and set(waits[1:]) == {0.1} and len(waits) >= 4


def test_headers_go_out_before_or_with_the_first_token() -> None:
    model = SimModel("m", first_token=2)
    early, late = spoken(model), spoken(model, Manner(chat, wires.SSE, head_first=False))
    assert isinstance(early[0], Head) and early[2] == Wait(2)
    assert late[0] == Wait(2) and isinstance(late[1], Head)


def test_a_json_reply_takes_as_long_as_its_stream() -> None:
    wait, head, _ = spoken(SimModel("m", first_token=2, tokens_per_second=10), stream=False)
    assert isinstance(wait, Wait) and wait.seconds == pytest.approx(2.3) and isinstance(head, Head)


def test_stream_and_json_say_the_same() -> None:
    frames = body_of(spoken(SimModel("m"))).split(b"\n\n")
    values = [orjson.loads(frame[6:]) for frame in frames if frame.startswith(b"data: {")]
    streamed = "".join(choice["delta"].get("content") or "" for value in values for choice in value["choices"])
    reply = orjson.loads(body_of(spoken(SimModel("m"), stream=False)))
    assert streamed == reply["choices"][0]["message"]["content"] != ""


@pytest.mark.parametrize("stream", [True, False])
def test_a_server_may_write_it_its_own_way(stream: bool) -> None:
    manner = Manner(chat, wires.SSE, retouch=lambda frames, _: [b"own" for _ in frames], headers=(("a", "b"),))
    script = spoken(SimModel("m"), manner, stream=stream)
    head = next(step for step in script if isinstance(step, Head))
    assert set(script) - {head} == {b"own"} and head.headers == (("a", "b"),)


def test_the_callers_request_id_is_used() -> None:
    assert terms(call("openai", {}, **{"x-request-id": "mine"})).request_id == "mine"
    assert terms(call("openai", {})).request_id.startswith("sim-")
