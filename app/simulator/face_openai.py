"""A simulated plain OpenAI-compatible server, and `ChatDesk`: the endpoints it shares with vLLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from app.core.events import Finish, Start
from app.core.request import EmbeddingRequest, Embeddings, Request
from app.core.tokens import estimate
from app.simulator import wires
from app.simulator.behaviour import SimModel
from app.simulator.brain import Thought, prompt_tokens, think
from app.simulator.faces import STARTED, Handler, House, Refusal
from app.simulator.record import Call
from app.simulator.script import Queue, Script, json_reply, whole
from app.simulator.speak import FINGERPRINT, LIMITS, Manner, speak, terms
from app.simulator.vectors import embed
from app.simulator.wires import Problem, Wire
from app.wire import chat, embeddings

BUSY: Final = "The queue is full; please try again later."
NO_MODEL: Final = "The model `{}` does not exist or you do not have access to it."


@dataclass(frozen=True, slots=True)
class ChatDesk:
    """Chat, embeddings and models in OpenAI's dialect. `check` refuses what that server refuses, `describe` adds to a
    model's entry in the list, `missing` is how it says that a model is not there."""

    house: House
    wire: Wire
    manner: Manner
    missing: str = NO_MODEL
    check: Callable[[Request, SimModel, int], None] = lambda *_: None
    describe: Callable[[SimModel], dict[str, Any]] = lambda _: {}

    def models(self, _: Call) -> Script:
        return json_reply({"object": "list", "data": [self._entry(model) for model in self.house.behaviour.models]})

    def model(self, call: Call) -> Script:
        return json_reply(self._entry(self.find(call.path.removeprefix("/v1/models/"))))

    def _entry(self, model: SimModel) -> dict[str, Any]:
        entry = {"id": model.name, "object": "model", "created": STARTED, "owned_by": "simulated"}
        return {**entry, **self.describe(model)}

    def find(self, name: str) -> SimModel:
        model = self.house.model(name)
        if model is None:
            raise Refusal(Problem(404, self.missing.format(name), param="model"))
        return model

    def admit(self, call: Call) -> None:
        """Raises `Refusal` for a wrong key or a full queue."""
        key = self.house.behaviour.api_key
        if key is not None and call.headers.get("authorization") != f"Bearer {key}":
            raise Refusal(Problem(401, "Incorrect API key provided"))
        if self.house.full:
            raise Refusal(Problem(503, BUSY))

    def chat(self, call: Call) -> Script:
        self.admit(call)
        request = chat.read_request(call.raw, terms(call), LIMITS)
        model = self.find(request.model)
        if model.embeds:
            raise Refusal(Problem(400, "This model does not support chat", param="model"))
        prompt = prompt_tokens(request)
        self.check(request, model, prompt)
        thought = think(request, model.tier, limit=min(model.max_output, model.context - prompt), prompt=prompt)
        self.house.counts["prompt"] += prompt
        self.house.counts["generated"] += thought.tokens.completion
        start = Start(f"chatcmpl-{request.id}", model.name, int(self.house.clock.now()), "simulated")
        start.fingerprint = FINGERPRINT
        return (Queue(), *speak(self.manner, request, start, _named_stops(request, thought), model))

    def embed(self, call: Call) -> Script:
        self.admit(call)
        request = embeddings.read_request(call.raw, terms(call))
        model = self.find(request.model)
        if model.dimensions is None:
            raise Refusal(Problem(400, "This model does not support embeddings", param="model"))
        size = min(request.dimensions or model.dimensions, model.dimensions)
        texts = _texts(request)
        vectors = tuple(embed(text, size) for text in texts)
        tokens = sum(max(1, estimate(len(text.encode("utf-8", "replace")))) for text in texts)
        return (Queue(), *whole(200, embeddings.write_reply(Embeddings(vectors, model.name, tokens), request)))


def check_window(request: Request, model: SimModel, prompt: int) -> None:
    """Refuses a prompt that leaves no room for an answer."""
    if prompt + (request.max_tokens or 1) > model.context:
        message = (
            f"This model's maximum context length is {model.context} tokens. However, you requested {prompt} tokens."
        )
        raise Refusal(Problem(400, message, param="messages", code="context_length_exceeded"))


def _named_stops(request: Request, thought: Thought) -> Thought:
    """A call of the one tool that was named ends with `stop`."""
    if request.tool_choice is None or request.tool_choice.mode != "named":
        return thought
    plain = {"tool_calls": "stop"}
    events = tuple(
        replace(event, reason=plain.get(event.reason, event.reason)) if isinstance(event, Finish) else event
        for event in thought.events
    )
    return replace(thought, events=events)


def _texts(request: EmbeddingRequest) -> list[str]:
    return [one if isinstance(one, str) else " ".join(map(str, one)) for one in request.inputs]


class OpenAIFace:
    wire = wires.OPENAI
    generates = frozenset({"/v1/chat/completions", "/v1/embeddings"})

    def __init__(self, house: House) -> None:
        desk = ChatDesk(house, self.wire, Manner(chat, wires.SSE), check=check_window)
        self.routes: Mapping[str, Handler] = {
            "GET /v1/models": desk.models,
            "GET /v1/models/*": desk.model,
            "POST /v1/chat/completions": desk.chat,
            "POST /v1/embeddings": desk.embed,
        }

    def unknown(self, call: Call) -> Script:
        problem = Problem(404, f"Invalid URL ({call.method} {call.path})", code="unknown_url")
        return whole(404, self.wire.error_body(problem))
