"""Conversations for tests, as OpenAI's chat dialect writes them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def says(text: str) -> Json:
    return {"role": "assistant", "content": text}


def system(text: str = "Be kind.") -> Json:
    return {"role": "system", "content": text}


def calls(*ids: str, text: str | None = None) -> Json:
    inner = {"name": "read", "arguments": "{}"}
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [{"id": each, "type": "function", "function": inner} for each in ids],
    }


def result(call: str, text: str = "42") -> Json:
    return {"role": "tool", "tool_call_id": call, "content": text}


def turns(count: int) -> list[Json]:
    return [each for turn in range(1, count + 1) for each in (user(f"ask {turn}"), says(f"answer {turn}"))]
