"""Without these a simulated error has another shape than the real server's, and no test would notice."""

from __future__ import annotations

from typing import Any

import pytest

from app.simulator import wires
from app.simulator.wires import Json, Problem, Wire

ALL = (wires.OLLAMA, wires.VLLM, wires.CLAUDE, wires.OPENAI)


@pytest.mark.parametrize("wire", ALL, ids=lambda wire: wire.kind)
def test_frames_are_split_and_read_back(wire: Wire) -> None:
    values: list[Json] = [{"type": "a", "b": 1}, {"type": "c"}]
    frames = wire.split(b"".join(map(wire.encode, values)))
    assert [wire.decode(frame) for frame in frames] == values


@pytest.mark.parametrize("frame", [b"data: [DONE]\n\n", b": ping\n\n", b"data: 7\n\n", b"data: {\n\n"])
def test_what_holds_no_object_is_left_alone(frame: bytes) -> None:
    assert wires.OPENAI.decode(frame) is None


def test_claude_names_its_events() -> None:
    assert wires.CLAUDE.encode({"type": "ping"}) == b'event: ping\ndata: {"type":"ping"}\n\n'


def chunk(delta: Json, finish: str | None = None) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("wire", "value", "content", "finish"),
    [
        (wires.OPENAI, chunk({"role": "assistant", "content": ""}), False, False),
        (wires.OPENAI, chunk({"content": "x"}), True, False),
        (wires.OPENAI, chunk({"reasoning_content": "x"}), True, False),
        (wires.OPENAI, chunk({}, "stop"), False, True),
        (wires.OPENAI, {"choices": [], "usage": {}}, False, False),
        (wires.VLLM, chunk({"content": "x"}, "stop"), True, True),
        (wires.OLLAMA, {"message": {"content": "x"}, "done": False}, True, False),
        (wires.OLLAMA, {"message": {"content": ""}, "done": True}, False, True),
        (wires.CLAUDE, {"type": "content_block_delta"}, True, False),
        (wires.CLAUDE, {"type": "message_delta"}, False, True),
    ],
)
def test_content_and_end_are_found(wire: Wire, value: Json, content: bool, finish: bool) -> None:
    assert (wire.has_content(value), wire.has_finish(value)) == (content, finish)


@pytest.mark.parametrize(
    ("wire", "problem", "error"),
    [
        (wires.OPENAI, Problem(404, "m"), ("invalid_request_error", None, "model_not_found")),
        (wires.OPENAI, Problem(400, "m", param="p", code="c"), ("invalid_request_error", "p", "c")),
        (wires.OPENAI, Problem(500, "m"), ("server_error", None, None)),
        (wires.VLLM, Problem(404, "m", param="model"), ("NotFoundError", "model", 404)),
        (wires.VLLM, Problem(400, "m"), ("BadRequestError", None, 400)),
        (wires.VLLM, Problem(503, "m"), ("Service Unavailable", None, 503)),
    ],
)
def test_openai_and_vllm_word_errors_their_own_way(wire: Wire, problem: Problem, error: tuple[Any, ...]) -> None:
    kind, param, code = error
    assert wire.error(problem) == {"error": {"message": "m", "type": kind, "param": param, "code": code}}


def test_ollama_and_claude_word_errors_their_own_way() -> None:
    assert wires.OLLAMA.error_frame(Problem(500, "m")) == b'{"error":"m"}\n'
    overloaded = wires.CLAUDE.error(Problem(529, "m"))
    assert overloaded == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "m"},
        "request_id": "req_simulated",
    }
    assert wires.CLAUDE.error(Problem(500, "m"))["error"]["type"] == "api_error"
    spent = wires.CLAUDE.error(Problem(400, "m", code="spent"))["error"]
    assert spent == {"type": "invalid_request_error", "message": "m", "details": {"error_code": "spent"}}
    assert wires.CLAUDE.error_frame(Problem(529, "m")).startswith(b"event: error\ndata: {")
