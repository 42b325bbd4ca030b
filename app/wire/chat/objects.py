"""The objects of OpenAI chat answers that streams and JSON replies share, and the JSON reply itself."""

from __future__ import annotations

from typing import Any

import orjson

from app.core.events import Answer, Call, Choice, Start, Thought
from app.core.request import Request
from app.wire.chat.tools import is_legacy
from app.wire.chat.usage import write_usage
from app.wire.objects import tierway

Json = dict[str, Any]


def head(start: Start, kind: str) -> Json:
    """What stands at the top of the reply and of every chunk."""
    simulated = start.served is not None and start.served.simulated
    fields: Json = {
        "id": start.id if start.id.startswith("chatcmpl-") or start.dialect == "chat" else f"chatcmpl-{start.id}",
        "object": kind,
        "created": start.created,
        "model": start.model,
    }
    if simulated or start.fingerprint is not None:
        fields["system_fingerprint"] = "simulated" if simulated else start.fingerprint
    if start.service_tier is not None:
        fields["service_tier"] = start.service_tier
    return fields


def finish_fields(reason: str | None, detail: str | None) -> Json:
    """Why a choice ended; the upstream's own word too, where it is none of OpenAI's."""
    fields: Json = {"finish_reason": reason}
    if detail is not None:
        fields["native_finish_reason"] = detail
    return fields


def write_call(call: Call) -> Json:
    """A whole tool call as OpenAI writes it."""
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def write_reply(answer: Answer, request: Request) -> bytes:
    """The whole answer as JSON: the upstream's own reply where it speaks this dialect, else one that is built."""
    start, usage = answer.start, answer.usage
    legacy = request.dialect == "chat" and is_legacy(request.body)
    same = start.body if start.dialect == "chat" else None
    body: Json = head(start, "chat.completion") if same is None else {**same, **head(start, "chat.completion")}
    if same is None:
        body["choices"] = [_choice(choice, start) for choice in answer.choices]
    if legacy:
        body["choices"] = [_legacy(choice) for choice in body["choices"]]
    if usage is not None:
        body["usage"] = write_usage(usage, start.dialect)
    about = tierway(start.served, usage)
    if about is not None:
        body["tierway"] = about
    return orjson.dumps(body)


def _choice(choice: Choice, start: Start) -> Json:
    extra = choice.finish_extra if start.dialect == "chat" else {}
    fields = finish_fields(choice.finish, choice.detail)
    return {"index": choice.index, "message": write_message(choice), "logprobs": choice.logprobs, **fields, **extra}


def write_message(choice: Choice) -> Json:
    """The assistant's message of a whole answer."""
    nothing_else = not choice.calls and choice.refusal is None
    message: Json = {
        "role": "assistant",
        "content": choice.text or ("" if nothing_else else None),
        "refusal": choice.refusal,
    }
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    blocks = [_block(thought) for thought in choice.thoughts if thought.signature or thought.redacted is not None]
    if blocks:
        message["thinking_blocks"] = blocks
    if choice.calls:
        message["tool_calls"] = [write_call(call) for call in choice.calls]
    return message | {name: value for name, value in choice.extra.items() if name not in message}


def _block(thought: Thought) -> Json:
    if thought.redacted is not None:
        return {"type": "redacted_thinking", "data": thought.redacted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _legacy(choice: Json) -> Json:
    """A choice for a caller who speaks of functions: one call, in the old shape."""
    message = dict(choice["message"])
    calls = message.pop("tool_calls", None) or []
    function = next((call["function"] for call in calls if "function" in call), None)
    if function is None:
        return choice
    finish = "function_call" if choice["finish_reason"] == "tool_calls" else choice["finish_reason"]
    return {**choice, "message": {**message, "function_call": function}, "finish_reason": finish}
