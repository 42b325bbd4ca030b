"""A simulated Ollama: its native API, its loading of models, and what it silently does to prompts that are too long.

A model's window is `options.num_ctx`, else the server's own small default. What does not fit is an error only where
the request says `truncate: false` (and `shift: false`); otherwise the oldest messages are dropped without a word, as
the real one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from app.core.card import Ability
from app.core.events import Finish, Start, ToolCall
from app.core.messages import Message, TextPart
from app.core.money import Tokens
from app.core.request import Request
from app.core.tokens import estimate
from app.simulator import wires
from app.simulator.behaviour import SimModel
from app.simulator.brain import Thought, prompt_tokens, think
from app.simulator.faces import STARTED, Handler, House, Refusal
from app.simulator.record import Call
from app.simulator.script import Queue, Script, Wait, json_reply, whole
from app.simulator.speak import LIMITS, Manner, speak, terms
from app.simulator.vectors import embed
from app.simulator.wires import Problem
from app.wire import ollama

VERSION: Final = "0.33.0-simulated"
NEVER: Final = "2318-01-01T00:00:00Z"
TOO_LONG: Final = (
    "the prompt is longer than the context length currently available to the model: "
    "{prompt} tokens do not fit into {window}"
)
_NANO: Final = 1_000_000_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600}
_LACKING: Final = {Ability.TOOLS: ("tools", "tools"), Ability.REASONING: ("thinking", "thinking")}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, with the window it was loaded with; `until` None: for ever."""

    window: int
    until: float | None


class OllamaFace:
    wire = wires.OLLAMA
    generates = frozenset({"/api/chat", "/api/embed"})

    def __init__(self, house: House) -> None:
        self._house = house
        self._loaded: dict[str, Loaded] = {}
        self._manner = Manner(ollama, wires.NDJSON, head_first=False)
        self.routes: Mapping[str, Handler] = {
            "GET /": lambda _: whole(200, b"Ollama is running", "text/plain; charset=utf-8"),
            "GET /api/version": lambda _: json_reply({"version": VERSION}),
            "GET /api/tags": lambda _: json_reply({"models": [_tag(model) for model in house.behaviour.models]}),
            "GET /api/ps": lambda _: json_reply({"models": self._running()}),
            "POST /api/show": self._show,
            "POST /api/chat": self._chat,
            "POST /api/embed": self._embed,
        }

    def unknown(self, call: Call) -> Script:
        return whole(404, b"404 page not found", "text/plain")

    # --- what there is ---

    def _model(self, name: Any) -> SimModel:
        model = self._house.model(name.removesuffix(":latest")) if isinstance(name, str) else None
        if model is None:
            raise Refusal(Problem(404, f"model '{name}' not found"))
        return model

    def _show(self, call: Call) -> Script:
        model = self._model(call.fields.get("model", call.fields.get("name")))
        info: dict[str, Any] = {
            "general.architecture": "simulated",
            "general.parameter_count": _parameters(model),
            "simulated.context_length": model.context,
        }
        if model.dimensions is not None:
            info["simulated.embedding_length"] = model.dimensions
        shown = {"license": "Simulated", "parameters": "", "template": "{{ .Prompt }}", "details": _details(model)}
        return json_reply(
            {**shown, "model_info": info, "capabilities": _abilities(model), "modified_at": _stamp(STARTED)}
        )

    def _running(self) -> list[dict[str, Any]]:
        now = self._house.clock.now()
        self._loaded = {name: one for name, one in self._loaded.items() if one.until is None or one.until > now}
        return [
            {
                **_tag(self._model(name)),
                "size_vram": 1,
                "context_length": one.window,
                "expires_at": NEVER if one.until is None else _stamp(one.until),
            }
            for name, one in self._loaded.items()
        ]

    # --- loading ---

    def _load(self, model: SimModel, window: int, keep_alive: Any) -> float:
        """Seconds it takes until the model is there with that window: none where it is already."""
        self._running()
        known = self._loaded.get(model.name)
        seconds = _seconds(keep_alive)
        if seconds == 0:
            self._loaded.pop(model.name, None)  # it leaves after this reply
        else:
            until = None if seconds is None else self._house.clock.now() + seconds
            self._loaded[model.name] = Loaded(window, until)
        return 0.0 if known is not None and known.window == window else model.load

    # --- chat ---

    def _chat(self, call: Call) -> Script:
        model = self._model(call.fields.get("model"))
        request = ollama.read_request(call.raw, terms(call), LIMITS)
        if self._house.full:
            raise Refusal(Problem(503, "server busy, please try again.  maximum pending requests exceeded"))
        window = self._window(request, model)
        if not request.messages:
            return self._only_load(request, model, window)
        _check_abilities(request, model)
        request, prompt = _fitted(request, window)
        load = self._load(model, window, request.body.get("keep_alive"))
        room = window - prompt if request.body.get("shift") is False else model.max_output
        thought = _as_ollama(think(request, model.tier, limit=max(1, room), prompt=prompt), load)
        script = speak(self._manner, request, self._start(request, model), thought, model)
        return (Queue(), *([Wait(load)] if load else []), *script)

    def _window(self, request: Request, model: SimModel) -> int:
        options = request.body.get("options")
        told = options.get("num_ctx") if isinstance(options, dict) else None
        return min(told if type(told) is int and told > 0 else self._house.behaviour.num_ctx, model.context)

    def _start(self, request: Request, model: SimModel) -> Start:
        return Start(request.id, model.name, int(self._house.clock.now()), "simulated")

    def _only_load(self, request: Request, model: SimModel, window: int) -> Script:
        keep_alive = request.body.get("keep_alive")
        load = self._load(model, window, keep_alive)
        reason = "unload" if _seconds(keep_alive) == 0 else "load"
        thought = Thought((Finish("stop", detail=reason),), Tokens())
        script = speak(self._manner, request, self._start(request, model), thought, model)
        return (*([Wait(load)] if load and reason == "load" else []), *script)

    # --- embeddings ---

    def _embed(self, call: Call) -> Script:
        fields = call.fields
        model = self._model(fields.get("model"))
        if model.dimensions is None:
            raise Refusal(Problem(400, f'"{model.name}" does not support embeddings'))
        texts = [fields["input"]] if isinstance(fields.get("input"), str) else fields.get("input")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Refusal(Problem(400, "invalid input type"))
        tokens = [estimate(len(text.encode("utf-8", "replace"))) for text in texts]
        if fields.get("truncate") is False and any(count > model.context for count in tokens):
            raise Refusal(Problem(400, "the input length exceeds the context length"))
        wanted = fields.get("dimensions")
        size = min(wanted, model.dimensions) if type(wanted) is int and wanted > 0 else model.dimensions
        load = self._load(model, model.context, fields.get("keep_alive"))
        vectors = [embed(text, size) for text in texts]
        counts = {"total_duration": 1, "load_duration": int(load * _NANO), "prompt_eval_count": sum(tokens)}
        return (
            Queue(),
            *([Wait(load)] if load else []),
            *json_reply({"model": model.name, "embeddings": vectors, **counts}),
        )


def _check_abilities(request: Request, model: SimModel) -> None:
    if model.embeds:
        raise Refusal(Problem(400, f'"{model.name}" does not support chat'))
    for ability, (name, word) in _LACKING.items():
        if ability in request.needs and name not in model.abilities:
            raise Refusal(Problem(400, f'"{model.name}" does not support {word}'))
    if Ability.IMAGES in request.needs and "vision" not in model.abilities:
        raise Refusal(Problem(500, "image input is not supported by this model"))


def _fitted(request: Request, window: int) -> tuple[Request, int]:
    """The request as the model gets to see it, and how many tokens that is."""
    prompt = prompt_tokens(request)
    if prompt < window:
        return request, prompt
    if request.body.get("truncate") is False:
        raise Refusal(Problem(400, TOO_LONG.format(prompt=prompt, window=window)))
    messages = list(request.messages)
    while prompt >= window:
        oldest = next((n for n, one in enumerate(messages[:-1]) if one.role != "system"), None)
        if oldest is None:
            break
        prompt -= max(1, _tokens(messages.pop(oldest)))
    if prompt >= window and request.body.get("shift") is False:
        raise Refusal(Problem(400, TOO_LONG.format(prompt=prompt, window=window)))
    # What is still too long is cut in its middle: about half the window is evaluated.
    return replace(request, messages=tuple(messages)), prompt if prompt < window else window - window // 2


def _tokens(message: Message) -> int:
    return estimate(sum(len(part.text.encode()) for part in message.parts if isinstance(part, TextPart)))


def _as_ollama(thought: Thought, load: float) -> Thought:
    """Ollama knows no calls that are not whole, no word for which stop sequence it was, and tells how long it took."""
    events = thought.events
    if isinstance(events[-1], Finish) and events[-1].reason == "length":
        events = tuple(event for event in events if not isinstance(event, ToolCall))
    *content, last = events
    assert isinstance(last, Finish)
    spent = {"total_duration": int(load * _NANO) + 1, "load_duration": int(load * _NANO) or 1}
    durations = {"prompt_eval_duration": thought.tokens.prompt, "eval_duration": thought.tokens.completion}
    return replace(thought, events=(*content, Finish(last.reason)), details={**spent, **durations})


def _tag(model: SimModel) -> dict[str, Any]:
    name = model.name if ":" in model.name else f"{model.name}:latest"
    named = {"name": name, "model": name, "modified_at": _stamp(STARTED)}
    return {**named, "size": 1, "digest": "simulated", "details": _details(model), "capabilities": _abilities(model)}


def _details(model: SimModel) -> dict[str, Any]:
    details: dict[str, Any] = {
        "format": "simulated",
        "family": "simulated",
        "families": ["simulated"],
        "parameter_size": model.parameters,
        "quantization_level": "none",
    }
    return details if model.dimensions is None else {**details, "embedding_length": model.dimensions}


def _abilities(model: SimModel) -> list[str]:
    return ["embedding"] if model.embeds else ["completion", *sorted(model.abilities)]


def _parameters(model: SimModel) -> int:
    number = model.parameters.removesuffix("B")
    return int(float(number) * 1e9) if number.replace(".", "", 1).isdigit() else 0


def _seconds(keep_alive: Any) -> float | None:
    """None: for ever."""
    if isinstance(keep_alive, str) and keep_alive[:-1].lstrip("-").isdigit() and keep_alive[-1] in _UNITS:
        keep_alive = int(keep_alive[:-1]) * _UNITS[keep_alive[-1]]
    if not isinstance(keep_alive, (int, float)):
        return 300.0
    return None if keep_alive < 0 else float(keep_alive)


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
