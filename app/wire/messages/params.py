"""Writes a request the way one Claude model takes it: parameters, headers, and what had to be left out.

The conversation itself is written by `messages_turns`, thinking decided by `messages_effort`; both go by the model's
`Rules`. A request that came in this dialect keeps its body, save what the model would refuse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from app.core.card import Ability, Card
from app.core.errors import UnsupportedParameter
from app.core.messages import Format, ToolChoice
from app.core.request import Request
from app.wire.codec import Outgoing
from app.wire.messages.blocks import MAX_MARKERS, Markers, cache_control, tool_blocks, ttl_of
from app.wire.messages.effort import Thinking, decide, effort_of
from app.wire.messages.rules import Rules, rules_for
from app.wire.messages.schema import transform
from app.wire.messages.turns import Conversation, write_turns

DIALECT: Final = "messages"
SAMPLING: Final = ("temperature", "top_p", "top_k")
BINDING_BETA: Final = "thinking-binding-controls-2026-08-01"
DISPLAYS: Final = ("summarized", "omitted")
SERVICE_TIERS: Final[Mapping[str, str]] = {"auto": "auto", "default": "standard_only"}
USER_FIELDS: Final = ("safety_identifier", "user")
JSON_OBJECT_ORDER: Final = "Answer with one valid JSON object and nothing else: no prose around it, no code fence."
_CHOICES: Final[Mapping[str, str]] = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


@dataclass(slots=True)
class _Draft:
    """A body in the making. `wishes` are the caller's hints and unknown fields; what is taken from them is served,
    what is left at the end was ignored."""

    body: dict[str, Any]
    wishes: dict[str, Any]
    betas: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def outgoing(self, rules: Rules, memo: Mapping[str, str] | None = None) -> Outgoing:
        headers = {"anthropic-version": rules.version}
        if self.betas:
            headers["anthropic-beta"] = ",".join(self.betas)
        left = (name for name, value in self.wishes.items() if value is not None)
        return Outgoing(orjson.dumps(self.body), headers, (*self.ignored, *left), memo)


def rules_of(card: Card) -> Rules:
    """The rules that discovery put on the card, else those of the model's name."""
    rules = card.quirks.get("rules")
    return rules if isinstance(rules, Rules) else rules_for(card.name)


def write_request(request: Request, card: Card) -> Outgoing:
    """Raises `UnsupportedParameter` for what would change the answer and cannot be done."""
    rules = rules_of(card)
    if request.dialect == DIALECT:
        return _kept(request, card, rules)
    _refuse(request)
    draft = _Draft({"model": card.name}, {**request.hints, **request.extra})
    markers = Markers()
    _tools(draft.body, request, rules, markers)
    conversation = write_turns(request.messages, rules, markers)
    thinking = _thinking(draft, request, card, rules, conversation)
    if conversation.system or request.format is not None:
        _system(draft.body, conversation, request.format)
    draft.body["messages"] = conversation.turns
    _format(draft.body, request.format, rules)
    _sampling(draft, rules, thinking.on)
    _stop(draft.body, request.stop)
    _wishes(draft, markers)
    if request.stream:
        draft.body["stream"] = True
    if any(message.name for message in request.messages):
        draft.ignored.append("name")
    return draft.outgoing(rules, conversation.originals or None)


def _refuse(request: Request) -> None:
    if request.n > 1:
        raise UnsupportedParameter("this model gives one answer at a time", param="n")
    if request.logprobs is not None:
        raise UnsupportedParameter("this model gives no log probabilities", param="logprobs")
    if Ability.AUDIO_OUTPUT in request.needs:
        raise UnsupportedParameter("this model does not speak", param="modalities")


def _tools(body: dict[str, Any], request: Request, rules: Rules, markers: Markers) -> None:
    choice = request.tool_choice or ToolChoice()
    tools = request.tools
    if choice.names and choice.mode in ("auto", "required"):
        tools = tuple(tool for tool in tools if tool.name in choice.names)
    if not tools:
        return
    body["tools"] = tool_blocks(tools, markers, schema=rules.schema)
    written: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    if choice.mode == "named":
        written["name"] = choice.names[0]
    if request.parallel_tool_calls is False and choice.mode != "none":
        written["disable_parallel_tool_use"] = True
    if written != {"type": "auto"}:
        body["tool_choice"] = written


def _thinking(draft: _Draft, request: Request, card: Card, rules: Rules, conversation: Conversation) -> Thinking:
    wished = draft.wishes.pop("thinking", None)
    thinking = _decided(request, card, rules, replay=not conversation.unthinking)
    draft.body["max_tokens"] = thinking.max_tokens
    config = thinking.config
    if rules.bound and thinking.on and conversation.thought:
        # Routing and fitting change what stands before a thinking block; then it is dropped instead of a 400.
        config = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
        draft.betas.append(BINDING_BETA)
    display = wished.get("display") if isinstance(wished, dict) else None
    if display in DISPLAYS and thinking.on:
        config = {**(config or {"type": "adaptive"}), "display": display}
    if config is not None:
        draft.body["thinking"] = config
    if thinking.effort is not None:
        draft.body["output_config"] = {"effort": thinking.effort}
    if thinking.ignored:
        draft.ignored.append("reasoning_effort")
    return thinking


def answer_room(request: Request, card: Card) -> tuple[int, bool]:
    """The `max_tokens` that are sent for a request, and whether the model may think within them. A request that asks
    for just as many is sent just as many."""
    thinking = _decided(request, card, rules_of(card))
    return thinking.max_tokens, thinking.on


def _decided(request: Request, card: Card, rules: Rules, *, replay: bool = True) -> Thinking:
    effort = request.effort
    if effort is None and request.dialect != DIALECT:
        effort = effort_of(request.extra.get("thinking"))
    return decide(_capped(rules, card), effort, request.max_tokens, forced=_forced(request), replay=replay)


def _forced(request: Request) -> bool:
    return bool(request.tools) and request.tool_choice is not None and request.tool_choice.forced


def _capped(rules: Rules, card: Card) -> Rules:
    """The rules with the lower of the two bounds on the answer: the model's, and the card's, which a person may set."""
    if card.max_output is None or card.max_output >= rules.max_output:
        return rules
    return replace(rules, max_output=card.max_output)


def _system(body: dict[str, Any], conversation: Conversation, format: Format | None) -> None:
    order = [{"type": "text", "text": JSON_OBJECT_ORDER}] if format and format.kind == "json_object" else []
    if conversation.system or order:
        body["system"] = [*conversation.system, *order]


def _format(body: dict[str, Any], format: Format | None, rules: Rules) -> None:
    if format is None or format.kind != "json_schema":
        return
    if not rules.schema:
        raise UnsupportedParameter("this model cannot be held to a JSON schema", param="response_format")
    schema = transform(dict(format.schema or {"type": "object"}), "response_format.json_schema.schema")
    body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}


def _sampling(draft: _Draft, rules: Rules, thinking: bool) -> None:
    """Sampling parameters go only to models that take them, never while thinking, and never two of a kind."""
    if not rules.sampling or thinking:
        return
    given = {name: draft.wishes.get(name) for name in SAMPLING}
    usable = {name: value for name, value in given.items() if isinstance(value, (int, float))}
    if "temperature" in usable:
        usable["temperature"] = min(1, usable["temperature"])
        usable.pop("top_p", None)
    for name, value in usable.items():
        del draft.wishes[name]
        draft.body[name] = value


def _stop(body: dict[str, Any], stop: tuple[str, ...]) -> None:
    sequences = [each for each in stop if each]
    if any(not each.strip() for each in sequences):
        raise UnsupportedParameter("this model cannot stop at white space alone", param="stop")
    if sequences:
        body["stop_sequences"] = sequences


def _wishes(draft: _Draft, markers: Markers) -> None:
    """The remaining hints that have a twin here."""
    names = [name for name in USER_FIELDS if isinstance(draft.wishes.get(name), str)]
    if names:
        user = draft.wishes[names[0]]
        draft.body["metadata"] = {"user_id": hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()}
        for name in names:
            del draft.wishes[name]
    tier = SERVICE_TIERS.get(str(draft.wishes.get("service_tier")))
    if tier is not None:
        del draft.wishes["service_tier"]
        draft.body["service_tier"] = tier
    ttl = ttl_of(draft.wishes.get("cache_control"))
    markers.settle(MAX_MARKERS if ttl is None else MAX_MARKERS - 1)
    if ttl is not None:
        del draft.wishes["cache_control"]
        draft.body["cache_control"] = cache_control(ttl)


# --- a request of this dialect --------------------------------------------------------------------------------------


def _kept(request: Request, card: Card, rules: Rules) -> Outgoing:
    """The caller's own body, with what this model would refuse taken out, mapped, or refused here."""
    body = {**request.body, "model": card.name}
    body.pop("stream", None)
    draft = _Draft(body, {})
    if request.stream:
        body["stream"] = True
    if request.messages[-1].role == "assistant" and not rules.prefill:
        raise UnsupportedParameter("this model cannot continue an assistant's message", param="messages")
    thinking = _decided(request, card, rules)
    body["max_tokens"] = thinking.max_tokens
    if not _accepted(body, rules) or (_forced(request) and rules.forced == "unthinking"):
        _replace_thinking(body, thinking)
    refused = [name for name in SAMPLING if name in body and not rules.sampling]
    if rules.sampling and "temperature" in body and "top_p" in body:
        refused.append("top_p")
    for name in refused:
        del body[name]
    draft.ignored += refused
    body["messages"] = [_signed(turn) for turn in body["messages"]]
    return draft.outgoing(rules)


def _accepted(body: Mapping[str, Any], rules: Rules) -> bool:
    """Whether the model takes what the caller said about thinking and effort, word for word. A budget for thinking that
    leaves nothing of a lowered `max_tokens` it does not take."""
    thinking, config = body.get("thinking"), body.get("output_config")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if kind == "enabled" and isinstance(budget, int) and budget >= body["max_tokens"]:
        return False
    word = config.get("effort") if isinstance(config, dict) else None
    takes = (
        kind is None,
        kind == "adaptive" and rules.adaptive,
        kind == "enabled" and rules.budgeted,
        kind == rules.off,
    )
    return any(takes) and (word is None or word in rules.efforts)


def _replace_thinking(body: dict[str, Any], thinking: Thinking) -> None:
    body.pop("thinking", None)
    if thinking.config is not None:
        body["thinking"] = thinking.config
    config = {key: value for key, value in (body.pop("output_config", None) or {}).items() if key != "effort"}
    if thinking.effort is not None:
        config["effort"] = thinking.effort
    if config:
        body["output_config"] = config


def _signed(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn without the thinking of other models, which bears no signature and would be refused."""
    content = turn["content"]
    if isinstance(content, str):
        return turn
    kept = [block for block in content if block["type"] != "thinking" or block["signature"]]
    return turn if len(kept) == len(content) else {**turn, "content": kept}
