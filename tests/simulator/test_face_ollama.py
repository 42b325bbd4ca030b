"""Without these Ollama's silent losses, cold starts and windows are tested nowhere."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.clock import ManualClock
from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.record import Call
from app.simulator.script import Script, Wait, body_of, head_of
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from tests.simulator.asking import body, call, get, post, tools

LONG = "x" * 20_000
MODELS = Behaviour(
    (
        SimModel("m", context=32_768, load=3.0),
        SimModel("plain", abilities=frozenset()),
        SimModel("e:tag", parameters="?", context=100, abilities=frozenset(), dimensions=8),
    ),
    num_ctx=1_000,
)


def sim_of(clock: ManualClock | None = None) -> Simulated:
    return Simulated("ollama", MODELS, clock or ManualClock())


def ask(sim: Simulated, text: str = "hello", **more: Any) -> tuple[int, dict[str, Any]]:
    return read(sim.answer(call("ollama", body("ollama", text, **{"model": "m", **more}))))


def read(script: Script) -> tuple[int, dict[str, Any]]:
    head = head_of(script)
    assert head is not None
    return head.status, orjson.loads(body_of(script))


def embed(sim: Simulated, **fields: Any) -> tuple[int, dict[str, Any]]:
    return read(sim.answer(Call("POST", "/api/embed", "", {}, orjson.dumps({"model": "e:tag", **fields}))))


def loading(script: Script) -> float:
    return next((step.seconds for step in script if isinstance(step, Wait)), 0.0)


async def test_lines_end_with_counts_and_durations() -> None:
    async with simulate("ollama") as sim:
        status, kind, data = await post(sim, body("ollama", "hi", stream=True))
    lines = [orjson.loads(line) for line in data.splitlines()]
    assert (status, kind) == (200, "application/x-ndjson")
    assert "".join(line["message"]["content"] for line in lines) == "[simulated small] You said: hi"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] == len(lines) - 1 and lines[-1]["prompt_eval_count"] > 0
    assert lines[-1]["load_duration"] > 0


def test_streaming_is_the_default() -> None:
    fields = body("ollama")
    del fields["stream"]
    assert body_of(Simulated("ollama").answer(call("ollama", fields))).count(b"\n") > 1


def test_calls_are_whole_and_end_with_stop() -> None:
    _, reply = ask(sim_of(), 'call weather({"city": "Paris"})', tools=tools("ollama"))
    [one] = reply["message"]["tool_calls"]
    assert (one["function"]["name"], one["function"]["arguments"]) == ("weather", {"city": "Paris"})
    assert reply["done_reason"] == "stop"


def test_a_call_cut_short_is_none() -> None:
    _, reply = ask(sim_of(), "call weather", tools=tools("ollama"), options={"num_predict": 1})
    assert "tool_calls" not in reply["message"] and reply["done_reason"] == "length"


# --- windows --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_silently_dropped_from_the_front() -> None:
    turns = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": LONG},
        {"role": "user", "content": "and now?"},
    ]
    status, reply = ask(sim_of(), messages=turns)
    assert status == 200 and reply["prompt_eval_count"] < 100
    assert reply["message"]["content"] == "[simulated small] You said: and now?"


def test_a_last_message_that_does_not_fit_is_cut_in_its_middle() -> None:
    status, reply = ask(sim_of(), LONG)
    assert (status, reply["prompt_eval_count"]) == (200, 500)


@pytest.mark.parametrize("more", [{"truncate": False}, {"shift": False}])
def test_it_is_an_error_only_where_that_is_asked_for(more: dict[str, Any]) -> None:
    status, reply = ask(sim_of(), LONG, **more)
    assert status == 400 and reply["error"].startswith("the prompt is longer than the context length")


def test_the_window_that_is_asked_for_is_given_up_to_the_models_own() -> None:
    status, reply = ask(sim_of(), LONG, truncate=False, options={"num_ctx": 8_192})
    assert status == 200 and reply["prompt_eval_count"] >= 5_000
    assert ask(sim_of(), "x" * 140_000, truncate=False, options={"num_ctx": 1_000_000})[0] == 400


def test_an_answer_ends_at_the_window_where_it_may_not_shift() -> None:
    _, reply = ask(sim_of(), "sim:tokens=5000", shift=False, options={"num_ctx": 100})
    assert reply["done_reason"] == "length"
    assert reply["prompt_eval_count"] + reply["eval_count"] == 100


# --- loading --------------------------------------------------------------------------------------------------------


def test_a_cold_model_loads_once_and_again_for_another_window() -> None:
    sim = sim_of()
    times = [
        loading(sim.answer(call("ollama", body("ollama", model="m", options=options))))
        for options in ({}, {}, {"num_ctx": 2_000}, {"num_ctx": 2_000})
    ]
    assert times == [3, 0, 3, 0]


def running(sim: Simulated) -> list[tuple[str, int, str]]:
    models = read(sim.answer(get("/api/ps")))[1]["models"]
    return [(one["name"], one["context_length"], one["expires_at"][:4]) for one in models]


@pytest.mark.parametrize(
    ("keep_alive", "seconds", "there"),
    [
        (None, 299, True),
        (None, 301, False),
        ("2m", 119, True),
        ("2m", 121, False),
        (10, 11, False),
        (-1, 1e9, True),
        ("soon", 299, True),
    ],
)
def test_a_model_stays_as_long_as_it_was_asked_to(keep_alive: Any, seconds: float, there: bool) -> None:
    clock = ManualClock()
    sim = sim_of(clock)
    ask(sim, keep_alive=keep_alive)
    clock.advance(seconds)
    assert bool(running(sim)) == there


def test_ps_shows_the_window_and_for_ever() -> None:
    sim = sim_of()
    ask(sim, keep_alive=-1, options={"num_ctx": 512})
    assert running(sim) == [("m:latest", 512, "2318")]


def test_no_messages_load_and_unload() -> None:
    sim = sim_of()
    script = sim.answer(call("ollama", body("ollama", model="m", messages=[])))
    assert loading(script) == 3 and read(script)[1]["done_reason"] == "load"
    assert running(sim)
    script = sim.answer(call("ollama", body("ollama", model="m", messages=[], keep_alive=0)))
    assert loading(script) == 0 and read(script)[1]["done_reason"] == "unload"
    assert not running(sim)


# --- what there is --------------------------------------------------------------------------------------------------


def test_models_are_listed_and_shown() -> None:
    sim = sim_of()
    listed = read(sim.answer(get("/api/tags")))[1]["models"]
    assert [one["name"] for one in listed] == ["m:latest", "plain:latest", "e:tag"]

    def show(name: str) -> tuple[int, dict[str, Any]]:
        return read(sim.answer(Call("POST", "/api/show", "", {}, orjson.dumps({"model": name}))))

    status, shown = show("m:latest")
    assert status == 200 and shown["model_info"]["simulated.context_length"] == 32_768
    assert shown["model_info"]["general.parameter_count"] == 8_000_000_000
    assert set(shown["capabilities"]) == {"completion", "tools", "thinking", "vision"}
    _, embedder = show("e:tag")
    assert embedder["capabilities"] == ["embedding"] and embedder["model_info"]["simulated.embedding_length"] == 8
    assert embedder["model_info"]["general.parameter_count"] == 0
    assert show("nope") == (404, {"error": "model 'nope' not found"})


@pytest.mark.parametrize(
    ("path", "data"), [("/", b"Ollama is running"), ("/api/version", b"simulated"), ("/nope", b"404 page not found")]
)
def test_small_paths(path: str, data: bytes) -> None:
    assert data in body_of(sim_of().answer(get(path)))


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"model": "nope"}, 404, "not found"),
        ({"model": 7}, 404, "not found"),
        ({"model": "e:tag"}, 400, "does not support chat"),
        ({"model": "plain", "tools": tools("ollama")}, 400, "does not support tools"),
        ({"model": "plain", "think": True}, 400, "does not support thinking"),
        ({"model": "plain", "messages": [{"role": "user", "images": ["iVBORw0KGgo="]}]}, 500, "image input"),
        ({"messages": 7}, 400, "messages"),
    ],
)
def test_refusals(more: dict[str, Any], status: int, words: str) -> None:
    got, reply = ask(sim_of(), **more)
    assert got == status and words in reply["error"]


async def test_a_full_queue_is_503() -> None:
    sim = Simulated("ollama", Behaviour((SimModel("m"),), parallel=1, queue=0))
    await sim.house.gate.enter()
    status, reply = ask(sim)
    assert status == 503 and "maximum pending requests exceeded" in reply["error"]


# --- embeddings -----------------------------------------------------------------------------------------------------


def test_embeddings() -> None:
    status, reply = embed(sim_of(), input=["a b", "c"])
    assert status == 200 and [len(one) for one in reply["embeddings"]] == [8, 8] and reply["prompt_eval_count"] == 2
    assert [len(one) for one in embed(sim_of(), input="x", dimensions=4)[1]["embeddings"]] == [4]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": 7}, "invalid input type"),
        ({"input": ["a", 7]}, "invalid input type"),
        ({"input": LONG, "truncate": False}, "the input length exceeds the context length"),
        ({"input": "x", "model": "m"}, "does not support embeddings"),
    ],
)
def test_embeddings_that_are_refused(fields: dict[str, Any], words: str) -> None:
    status, reply = embed(sim_of(), **fields)
    assert status == 400 and words in reply["error"]


def test_a_long_input_is_cut_silently_by_default() -> None:
    assert embed(sim_of(), input=LONG)[0] == 200
