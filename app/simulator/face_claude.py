"""A simulated Claude: the Messages API with its headers, its refusals, its capabilities and its prompt cache.

The cache is exact and forgets nothing: a marked prefix that was sent before is read, otherwise written.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from app.core.events import Event, Reasoning, Start, ToolCall
from app.core.money import Tokens
from app.core.request import Request
from app.core.tokens import estimate
from app.simulator import wires
from app.simulator.behaviour import SimModel
from app.simulator.brain import Thought, prompt_tokens, think
from app.simulator.claude_rules import Asked, blocks, complaint
from app.simulator.faces import Handler, House, Refusal
from app.simulator.record import Call
from app.simulator.script import Queue, Script, json_reply, whole
from app.simulator.speak import LIMITS, Manner, speak, terms
from app.simulator.wires import Json, Problem
from app.wire import messages
from app.wire.messages.rules import EFFORTS, NEW_VERSION, OLD_VERSION, Rules, rules_for

MADE: Final = "2026-05-28T20:26:40Z"
PING: Final = wires.CLAUDE.encode({"type": "ping"})
_PAGE: Final = 20


class ClaudeFace:
    wire = wires.CLAUDE
    generates = frozenset({"/v1/messages"})

    def __init__(self, house: House) -> None:
        self._house = house
        self._cached: set[bytes] = set()
        self._manner = Manner(messages, wires.SSE, headers=(("request-id", wires.REQUEST_ID),))
        self.routes: Mapping[str, Handler] = {
            "GET /v1/models": self._models,
            "GET /v1/models/*": self._model,
            "POST /v1/messages": self._messages,
            "POST /v1/messages/count_tokens": self._count,
        }

    def unknown(self, call: Call) -> Script:
        return whole(404, self.wire.error_body(Problem(404, f"Not Found: {call.path}")))

    # --- who may ask ---

    def _admit(self, call: Call) -> str:
        """The version that was asked for. Raises `Refusal`."""
        bearer = call.headers.get("authorization", "").removeprefix("Bearer ")
        key = call.headers.get("x-api-key") or bearer
        if not key:
            raise Refusal(Problem(401, "x-api-key header is required"))
        if self._house.behaviour.api_key not in (None, key):
            raise Refusal(Problem(401, "invalid x-api-key"))
        version = call.headers.get("anthropic-version")
        if version is None:
            raise Refusal(Problem(400, "anthropic-version: header is required"))
        if version not in (OLD_VERSION, NEW_VERSION):
            raise Refusal(Problem(400, f'anthropic-version: "{version}" is not a valid version'))
        return version

    def _find(self, name: Any) -> SimModel:
        model = self._house.model(name) if isinstance(name, str) else None
        if model is None:
            raise Refusal(Problem(404, f"model: {name}"))
        return model

    # --- models ---

    def _models(self, call: Call) -> Script:
        self._admit(call)
        query = parse_qs(call.query)
        after, limit = query.get("after_id", [""])[0], query.get("limit", [""])[0]
        models = self._house.behaviour.models
        begin = next((n + 1 for n, model in enumerate(models) if model.name == after), 0)
        size = int(limit) if limit.isdecimal() and 0 < int(limit) <= 1_000 else _PAGE
        page = [_described(model) for model in models[begin : begin + size]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return json_reply({"data": page, "has_more": begin + size < len(models), **ends})

    def _model(self, call: Call) -> Script:
        self._admit(call)
        return json_reply(_described(self._find(call.path.removeprefix("/v1/models/"))))

    # --- messages ---

    def _read(self, call: Call, **unsaid: Any) -> tuple[Request, SimModel]:
        """The request and its model. Raises `Refusal` for what the API refuses; `unsaid` need not be said."""
        version = self._admit(call)
        if not isinstance(call.body, dict):
            raise Refusal(Problem(400, "The request body is not valid JSON, or no object"))
        fields = {**unsaid, **call.fields}
        model = self._find(fields.get("model"))
        rules = replace(rules_for(model.name), max_output=model.max_output)
        if message := complaint(Asked(fields, version, model.name, rules)):
            raise Refusal(Problem(400, message))
        raw = orjson.dumps(fields) if unsaid else call.raw
        return messages.read_request(raw, terms(call), LIMITS), model

    def _count(self, call: Call) -> Script:
        request, _ = self._read(call, max_tokens=1)
        return json_reply({"input_tokens": prompt_tokens(request)})

    def _messages(self, call: Call) -> Script:
        request, model = self._read(call)
        if self._house.full:
            raise Refusal(Problem(529, "Overloaded"))
        prompt = prompt_tokens(request)
        if prompt > model.context:
            raise Refusal(Problem(400, f"prompt is too long: {prompt} tokens > {model.context} maximum"))
        thought = think(request, model.tier, limit=model.max_output, prompt=prompt)
        tokens = (
            replace(thought.tokens, **self._cache(call, prompt)) if b'"cache_control"' in call.raw else thought.tokens
        )
        thought = Thought(tuple(_as_claude(thought.events)), tokens)
        name = hashlib.blake2b(request.id.encode(), digest_size=12).hexdigest()
        start = Start(f"msg_sim{name}", model.name, int(self._house.clock.now()), "simulated")
        manner = replace(self._manner, retouch=partial(_opened, tokens))
        return (Queue(), *speak(manner, request, start, thought, model))

    def _cache(self, call: Call, prompt: int) -> dict[str, int]:
        """What of the prompt is read from the cache, and what is written to it."""
        read = write = hour = 0
        for digest, tokens, ttl in _prefixes(call.fields):
            tokens = min(tokens, prompt - 1)
            if digest in self._cached:
                read, write, hour = tokens, 0, 0
                continue
            self._cached.add(digest)
            fresh = max(0, tokens - read - write)
            write += fresh
            hour += fresh if ttl == "1h" else 0
        return {"cache_read": read, "cache_write": write, "cache_write_1h": hour}


def _prefixes(body: Json) -> Iterator[tuple[bytes, int, str]]:
    """Each marked prefix: its digest, its tokens, how long it is kept."""
    turns = body["messages"] if isinstance(body.get("messages"), list) else []
    parts = [*blocks(body.get("tools")), *blocks(body.get("system"))]
    parts += [block for turn in turns if isinstance(turn, dict) for block in blocks(turn.get("content"))]
    if "cache_control" in body and parts:
        parts[-1] = {**parts[-1], "cache_control": body["cache_control"]}
    digest, size = hashlib.blake2b(str(body.get("model")).encode()), 0
    for part in parts:
        data = orjson.dumps({key: value for key, value in part.items() if key != "cache_control"})
        digest.update(data)
        text = part.get("text")
        size += len(text.encode("utf-8", "replace") if isinstance(text, str) else data)
        marker = part.get("cache_control")
        if isinstance(marker, dict):
            yield digest.copy().digest(), estimate(size), str(marker.get("ttl", "5m"))


def _as_claude(events: Iterable[Event]) -> Iterator[Event]:
    """Claude signs what it thought, and its calls have other ids."""
    thought = ""
    for event in events:
        if isinstance(event, Reasoning):
            thought += event.text
        elif thought:
            yield Reasoning("", signature=base64.b64encode(f"simulated {thought}".encode()).decode())
            thought = ""
        if isinstance(event, ToolCall) and event.id is not None:
            event = replace(event, id=event.id.replace("call_", "toolu_", 1))
        yield event


def _opened(tokens: Tokens, frames: list[bytes], stream: bool) -> list[bytes]:
    """A stream whose first event has the counts of the prompt, as the real one does, and is followed by a ping."""
    if not stream:
        return frames
    value = wires.CLAUDE.decode(frames[0])
    assert value is not None
    value["message"]["usage"].update(
        input_tokens=tokens.prompt - tokens.cache_read - tokens.cache_write,
        cache_read_input_tokens=tokens.cache_read,
        cache_creation_input_tokens=tokens.cache_write,
        output_tokens=1,
    )
    return [wires.CLAUDE.encode(value) + PING, *frames[1:]]


# --- capabilities ---------------------------------------------------------------------------------------------------


def _described(model: SimModel) -> dict[str, Any]:
    rules = rules_for(model.name)
    return {
        "type": "model",
        "id": model.name,
        "display_name": f"Simulated {model.tier}",
        "created_at": MADE,
        "lifecycle": "active",
        "retires_at": None,
        "max_input_tokens": model.context,
        "max_tokens": model.max_output,
        "capabilities": _capabilities(model, rules),
    }


def _capabilities(model: SimModel, rules: Rules) -> dict[str, Any]:
    def yes(supported: bool) -> dict[str, Any]:
        return {"supported": supported}

    types = {
        "adaptive": rules.adaptive,
        "enabled": rules.budgeted,
        "disabled": rules.off in ("disabled", "omit"),
        "between_tools": rules.off == "between_tools",
    }
    return {
        "image_input": yes("vision" in model.abilities),
        "pdf_input": yes("vision" in model.abilities),
        "structured_outputs": yes(rules.schema),
        "batch": yes(False),
        "effort": {**yes(bool(rules.efforts)), **{each: yes(each in rules.efforts) for each in EFFORTS}},
        "thinking": {**yes(True), "types": {kind: yes(supported) for kind, supported in types.items()}},
    }
