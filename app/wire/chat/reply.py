"""The whole JSON reply, or the error reply, of an OpenAI-compatible server -> events, or a core error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from app.core.card import Card
from app.core.errors import BadReply, GatewayError, Incomplete
from app.core.events import Choice, Event, Start, choice_of
from app.core.request import Request
from app.wire.chat.choice import ChoiceReader
from app.wire.chat.objects import finish_fields, write_call
from app.wire.chat.read import choice_index, error_in, parse_object, start_of
from app.wire.chat.usage import read_usage
from app.wire.codec import Outgoing
from app.wire.errors import error_from

Json = dict[str, Any]


def read_reply(body: bytes, request: Request, card: Card, outgoing: Outgoing) -> list[Event]:
    """`Start.body` is the reply itself, normalised, so that fields we do not know survive."""
    reply = parse_object(body)
    error = error_in(reply)
    if error is not None:
        raise error
    choices = _choices(reply, request)
    start = start_of(reply, request, card)
    events: list[Event] = [start]
    whole: list[Json] = []
    for index, choice in choices.items():
        read = ChoiceReader(index, request, whole=True)
        message = choice.get("message")
        if type(message) is not dict:
            raise BadReply("a choice of the reply has no message object")
        said = read.read(choice, message)
        if not read.finished:
            raise Incomplete("the upstream's answer ended without a finish reason")
        whole.append(_choice(choice, choice_of(index, said)))
        events += said
    start.body = _normalised(reply, start, whole)
    usage = read_usage(reply.get("usage"))
    if usage is not None:
        events.append(usage)
    return events


def _choices(reply: Json, request: Request) -> dict[int, Json]:
    choices = reply.get("choices")
    if type(choices) is not list:
        raise BadReply("the reply has no choices")
    found: dict[int, Json] = {}
    for position, choice in enumerate(choices):
        if type(choice) is not dict:
            raise BadReply("a choice of the reply is not an object")
        index = choice_index(choice.get("index"), position, request)
        if index in found:
            raise BadReply("two choices of the reply have the same index")
        found[index] = choice
    if not found:
        raise Incomplete("the reply has no choice")
    return dict(sorted(found.items())) if len(found) > 1 else found


def _normalised(reply: Json, start: Start, choices: list[Json]) -> Json:
    return {
        **reply,
        "id": start.id,
        "object": "chat.completion",
        "created": start.created,
        "model": start.model,
        "choices": choices,
    }


def _choice(choice: Json, read: Choice) -> Json:
    message = {name: value for name, value in choice["message"].items() if name not in ("reasoning", "function_call")}
    message |= {"role": "assistant", "content": _said(read), "refusal": read.refusal}
    if read.thoughts:
        message["reasoning_content"] = read.reasoning
    if read.calls:
        message["tool_calls"] = [write_call(call) for call in read.calls]
    return {
        **choice,
        "index": read.index,
        "message": message,
        "logprobs": choice.get("logprobs"),
        **finish_fields(read.finish, read.detail),
    }


def _said(choice: Choice) -> str | None:
    """Clients expect text unless there is something else instead of it."""
    if choice.text is None:
        return None if choice.calls or choice.refusal else ""
    return choice.text if choice.text or not choice.calls else None


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    """OpenAI's and vLLM's error object, `{"detail": ...}`, plain text, a page of HTML, or nothing."""
    return error_from(_error(body), headers, status=status)


def _error(body: bytes) -> Any:
    try:
        reply = orjson.loads(body)
    except ValueError:
        text = body[:4096].decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text
    if type(reply) is not dict:
        return reply
    if reply.get("error"):
        return reply["error"]
    detail = reply.get("detail")
    if type(detail) is list:
        return "; ".join(_complaint(item) for item in detail[:5])
    return detail if detail else reply


def _complaint(item: Any) -> str:
    """One of FastAPI's validation errors."""
    if type(item) is not dict:
        return str(item)[:200]
    where = item.get("loc")
    place = ".".join(str(step) for step in where if step != "body") if type(where) is list else ""
    return f"{place}: {item.get('msg')}" if place else str(item.get("msg"))
