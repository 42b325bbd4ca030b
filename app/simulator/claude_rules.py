"""What the Messages API refuses, as a table of rules over the parsed body: each gives the words of a 400, or none.

Which parameters a model takes comes from the same table that the codec writes by; that the codec keeps to it is what
a simulated Claude is there to find out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.wire.messages.rules import NEW_VERSION, Rules

Body = dict[str, Any]
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_FIELDS: Final = frozenset(
    {
        *("model", "messages", "max_tokens", "system", "stream", "stop_sequences", "tools", "tool_choice", "thinking"),
        *("metadata", "service_tier", "output_config", "cache_control", "speed", "container", "context_management"),
        *("mcp_servers", "inference_geo", *_SAMPLING),
    }
)
_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_MOST_MARKERS: Final = 4
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the rules see it."""

    body: Body
    version: str
    model: str
    rules: Rules

    def turns(self) -> list[Body]:
        turns = self.body.get("messages")
        return [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []


def complaint(asked: Asked) -> str | None:
    """The first thing that is wrong."""
    return next((message for rule in RULES for message in rule(asked)), None)


def blocks(content: Any) -> list[Body]:
    """Content as blocks, whichever way it was said."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _required(asked: Asked) -> Iterator[str]:
    wanted, most = asked.body.get("max_tokens"), asked.rules.max_output
    if type(wanted) is not int:
        wrong = "Input should be a valid integer" if "max_tokens" in asked.body else "Field required"
        yield f"max_tokens: {wrong}"
    elif wanted < 1:
        yield "max_tokens: Input should be greater than or equal to 1"
    elif wanted > most:
        limit = f"{most}, which is the maximum allowed number of output tokens for {asked.model}"
        yield f"max_tokens: {wanted} > {limit}"
    if not asked.turns():
        yield "messages: at least one message is required"


def _unknown(asked: Asked) -> Iterator[str]:
    for name in asked.body:
        if name not in _FIELDS:
            yield f"{name}: Extra inputs are not permitted"


def _sampling(asked: Asked) -> Iterator[str]:
    said = [name for name in _SAMPLING if name in asked.body]
    for name in said:
        if asked.version == NEW_VERSION or not asked.rules.sampling:
            yield f"{name}: this parameter is not supported"
    if "temperature" in said and "top_p" in said:
        yield "`temperature` and `top_p` cannot both be specified for this model"
    temperature = asked.body.get("temperature", 1)
    if not isinstance(temperature, (int, float)) or not 0 <= temperature <= 1:
        yield "temperature: range: 0..1"


def _thinking(asked: Asked) -> Iterator[str]:
    thinking = asked.body.get("thinking")
    if not isinstance(thinking, dict):
        return
    kind, rules = thinking.get("type"), asked.rules
    allowed = {"adaptive": rules.adaptive, "enabled": rules.budgeted}
    allowed |= {
        off: rules.off == off or (off == "disabled" and rules.off == "omit") for off in ("disabled", "between_tools")
    }
    if not (isinstance(kind, str) and allowed.get(kind)):
        yield f"thinking.type: {kind!r} is not supported by this model"
    budget = thinking.get("budget_tokens")
    if kind == "enabled" and not (type(budget) is int and 1_024 <= budget < asked.body["max_tokens"]):
        yield "thinking.budget_tokens: must be at least 1024 and less than max_tokens"


def _effort(asked: Asked) -> Iterator[str]:
    config = asked.body.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    if effort is not None and effort not in asked.rules.efforts:
        yield f"output_config.effort: {effort!r} is not supported by this model"


def _tools(asked: Asked) -> Iterator[str]:
    choice = asked.body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("any", "tool"):
        thinking = asked.body.get("thinking")
        off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
        if asked.rules.forced == "no" or (asked.rules.forced == "unthinking" and asked.rules.thinks and not off):
            yield f"tool_choice.type: {kind!r} is not supported while this model thinks"
    for number, tool in enumerate(blocks(asked.body.get("tools"))):
        if not (isinstance(tool.get("name"), str) and _NAME.fullmatch(tool["name"])):
            yield f"tools.{number}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        schema = tool.get("input_schema")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            yield f"tools.{number}.input_schema.type: Input should be 'object'"


def _turns(asked: Asked) -> Iterator[str]:
    turns = asked.turns()
    for number, turn in enumerate(turns):
        role = turn.get("role")
        if role not in ("user", "assistant") and not (role == "system" and asked.rules.system_turns):
            yield f"messages.{number}.role: Input should be 'user' or 'assistant'"
    if turns and turns[-1].get("role") == "assistant" and not asked.rules.prefill:
        yield "This model does not support assistant message prefill. The conversation must end with a user message."


def _texts(asked: Asked) -> Iterator[str]:
    system = blocks(asked.body.get("system"))
    everywhere = [
        ("system", system),
        *((f"messages.{n}", blocks(t.get("content"))) for n, t in enumerate(asked.turns())),
    ]
    for place, inside in everywhere:
        for number, block in enumerate(inside):
            if block.get("type") == "text" and not str(block.get("text") or "").strip():
                yield f"{place}.content.{number}: text content blocks must contain non-whitespace text"
    for stop in asked.body.get("stop_sequences") or ():
        if not str(stop).strip():
            yield "stop_sequences: each stop sequence must contain non-whitespace"


def _images(asked: Asked) -> Iterator[str]:
    for number, turn in enumerate(asked.turns()):
        for block in blocks(turn.get("content")):
            source = block.get("source")
            if block.get("type") == "document" and turn.get("role") == "assistant" and asked.version == NEW_VERSION:
                yield f"messages.{number}: `document` blocks are not permitted in assistant messages"
            if block.get("type") != "image" or not isinstance(source, dict) or source.get("type") != "base64":
                continue
            if source.get("media_type") not in _IMAGES:
                yield f"messages.{number}: image media_type should be one of {', '.join(sorted(_IMAGES))}"


def _results(asked: Asked) -> Iterator[str]:
    """Every call is answered in the very next turn, at its start, and nothing else is."""
    open_ids: list[str] = []
    for number, turn in enumerate(asked.turns()):
        inside = blocks(turn.get("content"))
        given = [str(block.get("tool_use_id")) for block in inside if block.get("type") == "tool_result"]
        for name in given:
            if name not in open_ids:
                yield f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {name}"
        if missing := [name for name in open_ids if name not in given]:
            yield f"messages.{number}: `tool_use` ids were found without `tool_result` blocks: {', '.join(missing)}"
        kinds = [block.get("type") == "tool_result" for block in inside]
        if kinds != sorted(kinds, reverse=True):
            yield f"messages.{number}: `tool_result` blocks must come first"
        open_ids = [str(block.get("id")) for block in inside if block.get("type") == "tool_use"]
        for name in open_ids:
            if not _ID.fullmatch(name):
                yield f"messages.{number}: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
        if len(set(open_ids)) != len(open_ids):
            yield f"messages.{number}: `tool_use` ids must be unique"
    if open_ids:
        yield f"`tool_use` ids were found without `tool_result` blocks: {', '.join(open_ids)}"


def _markers(asked: Asked) -> Iterator[str]:
    places = [*blocks(asked.body.get("tools")), *blocks(asked.body.get("system"))]
    places += [block for turn in asked.turns() for block in blocks(turn.get("content"))]
    count = sum("cache_control" in block for block in places)
    if count > _MOST_MARKERS:
        yield f"A maximum of {_MOST_MARKERS} blocks with cache_control may be provided. Found {count}."


RULES: Final[tuple[Callable[[Asked], Iterator[str]], ...]] = (
    *(_required, _unknown, _sampling, _thinking, _effort, _tools),
    *(_turns, _texts, _images, _results, _markers),
)
