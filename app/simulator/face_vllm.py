"""A simulated vLLM: OpenAI's dialect as vLLM really speaks it, its metrics, its tokenizer endpoint and its sleep.

What differs from OpenAI on the wire: reasoning is in `reasoning`, the finish reason comes with the last content, the
request's own id is in the answer's, codes of errors are numbers. A sleeping server is healthy and answers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.core.request import Request
from app.core.tokens import estimate
from app.simulator import wires
from app.simulator.behaviour import SimModel
from app.simulator.brain import prompt_tokens
from app.simulator.face_openai import ChatDesk
from app.simulator.faces import Handler, House, Refusal
from app.simulator.record import Call
from app.simulator.script import Hang, Script, json_reply, whole
from app.simulator.speak import LIMITS, Manner, terms
from app.simulator.wires import Json, Problem
from app.wire import chat

VERSION: Final = "0.33.0+simulated"
_NO_MODEL: Final = "The model `{}` does not exist."
_DETAILS: Final = {404: b'{"detail":"Not Found"}', 405: b'{"detail":"Method Not Allowed"}'}


class VllmFace:
    wire = wires.VLLM
    generates = frozenset({"/v1/chat/completions", "/v1/embeddings"})

    def __init__(self, house: House) -> None:
        self._house = house
        self._asleep = False
        self._desk = ChatDesk(
            house,
            self.wire,
            Manner(chat, wires.SSE, retouch=_as_vllm),
            missing=_NO_MODEL,
            check=_check,
            describe=_describe,
        )
        self.routes: Mapping[str, Handler] = {
            "GET /health": lambda _: whole(200, b""),
            "GET /ping": lambda _: whole(200, b""),
            "GET /version": lambda _: json_reply({"version": VERSION}),
            "GET /load": lambda _: json_reply({"server_load": house.gate.running + house.gate.waiting}),
            "GET /metrics": self._metrics,
            "GET /is_sleeping": lambda _: json_reply({"is_sleeping": self._asleep}),
            "POST /sleep": lambda _: self._sleep(True),
            "POST /wake_up": lambda _: self._sleep(False),
            "GET /v1/models": self._desk.models,
            "POST /tokenize": self._tokenize,
            "POST /v1/chat/completions": lambda call: self._awake(call, self._desk.chat),
            "POST /v1/embeddings": lambda call: self._awake(call, self._desk.embed),
        }

    def unknown(self, call: Call) -> Script:
        known = any(f"{method} {call.path}" in self.routes for method in ("GET", "POST"))
        return whole(405, _DETAILS[405]) if known else whole(404, _DETAILS[404])

    def _sleep(self, asleep: bool) -> Script:
        self._asleep = asleep
        return json_reply({"status": "sleeping" if asleep else "awake"})

    def _awake(self, call: Call, handler: Handler) -> Script:
        return (Hang(),) if self._asleep else handler(call)

    def _tokenize(self, call: Call) -> Script:
        fields = call.fields
        model = self._desk.find(str(fields.get("model")))
        prompt = fields.get("prompt")
        if isinstance(prompt, str):
            count = max(1, estimate(len(prompt.encode("utf-8", "replace"))))
        elif prompt is None:
            count = prompt_tokens(chat.read_request(call.raw, terms(call), LIMITS))
        else:
            raise Refusal(Problem(400, "prompt must be a string", param="prompt"))
        return json_reply({"count": count, "max_model_len": model.context, "tokens": list(range(count))})

    def _metrics(self, _: Call) -> Script:
        gate, counts = self._house.gate, self._house.counts
        labels = f'engine="0",model_name="{self._house.behaviour.models[0].name}"'
        lines = [
            "# HELP vllm:num_requests_running Number of requests in model execution batches.",
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{{{labels}}} {gate.running:.1f}",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{{{labels}}} {gate.waiting:.1f}",
            "# TYPE vllm:kv_cache_usage_perc gauge",
            f"vllm:kv_cache_usage_perc{{{labels}}} {min(1.0, gate.running / 100)}",
            "# TYPE vllm:engine_sleep_state gauge",
            f'vllm:engine_sleep_state{{{labels},sleep_state="awake"}} {float(not self._asleep)}',
            "# TYPE vllm:prompt_tokens_total counter",
            f"vllm:prompt_tokens_total{{{labels}}} {counts['prompt']:.1f}",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{{{labels}}} {counts['generated']:.1f}",
        ]
        return whole(200, ("\n".join(lines) + "\n").encode(), "text/plain; version=1.0.0; charset=utf-8")


def _describe(model: SimModel) -> dict[str, Any]:
    root = {"root": model.parent or model.name, "parent": model.parent}
    return {**root, "owned_by": "vllm", "max_model_len": model.context, "permission": []}


def _check(request: Request, model: SimModel, prompt: int) -> None:
    window = f"This model's maximum context length is {model.context} tokens. However, "
    if prompt >= model.context:
        message = f"{window}your prompt contains at least {prompt} input tokens. Please reduce the length of the input."
        raise Refusal(Problem(400, message, param="input_tokens"))
    if request.max_tokens is not None and prompt + request.max_tokens > model.context:
        message = f"{window}you requested {request.max_tokens} output tokens and your prompt has {prompt} input tokens."
        raise Refusal(Problem(400, message, param="max_tokens"))


# --- where vLLM's wire differs --------------------------------------------------------------------------------------


def _as_vllm(frames: list[bytes], stream: bool) -> list[bytes]:
    """The frames of a stream (or the body of a JSON reply) as vLLM would have written them."""
    frames = [frame.replace(b'"reasoning_content":', b'"reasoning":') for frame in frames]
    if not stream:
        return frames
    return _early_finish([one for frame in frames for one in wires.VLLM.split(frame)])


def _early_finish(frames: list[bytes]) -> list[bytes]:
    """Finish reasons moved to the last content of their choice, where that is text."""
    for number, frame in enumerate(frames):
        if b'"finish_reason":"' not in frame:
            continue
        [finish] = _choices(frame)
        before = _last_of(finish["index"], frames[:number])
        if before is not None and (moved := _moved(frames[before], finish)):
            frames[before], frames[number] = moved, b""
    return [frame for frame in frames if frame]


def _choices(frame: bytes) -> list[Json]:
    value = wires.VLLM.decode(frame)
    return value["choices"] if value else []


def _last_of(choice: int, frames: list[bytes]) -> int | None:
    """Where the last frame of a choice is."""
    places = range(len(frames) - 1, -1, -1)
    return next((place for place in places if any(one["index"] == choice for one in _choices(frames[place]))), None)


def _moved(frame: bytes, finish: Json) -> bytes | None:
    """The frame with the finish reason, where it has text for it to ride on."""
    value = wires.VLLM.decode(frame)
    assert value is not None
    [choice] = value["choices"]
    if not choice["delta"].get("content"):
        return None
    choice.update(finish_reason=finish["finish_reason"], stop_reason=None)
    return wires.VLLM.encode(value)
