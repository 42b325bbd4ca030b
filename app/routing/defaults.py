"""`routing.defaults`: parameters for callers who said nothing, per model or task type. Pure.

What a caller said is never changed. What was filled in goes back by name, so that the reply can say so. Only the chat
dialect is filled in: other bodies are written on as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from app.config.schema import Defaults
from app.core.card import Card
from app.core.messages import Message, TextPart
from app.core.request import Request

SYSTEM_ROLES: Final = ("system", "developer")


def with_defaults(
    request: Request, card: Card, task_type: str | None, defaults: Mapping[str, Defaults]
) -> tuple[Request, tuple[str, ...]]:
    """The request as this model should get it, and the names of what was filled in. What is said for the model (by full
    id, then by bare name) comes before what is said for the task type."""
    said = [found for name in (card.id, card.name, task_type) if name is not None and (found := defaults.get(name))]
    if not said or request.dialect != "chat":
        return request, ()
    wanted = {
        "temperature": _first(said, "temperature") if "temperature" not in request.hints else None,
        "max_tokens": _first(said, "max_tokens") if request.max_tokens is None else None,
        "system": _first(said, "system") if not _has_system(request) else None,
    }
    applied = {name: value for name, value in wanted.items() if value is not None}
    return (_filled(request, card, applied) if applied else request), tuple(applied)


def _first(said: list[Defaults], name: str) -> Any:
    return next((value for each in said if (value := getattr(each, name)) is not None), None)


def _has_system(request: Request) -> bool:
    return any(message.role in SYSTEM_ROLES for message in request.messages)


def _filled(request: Request, card: Card, applied: Mapping[str, Any]) -> Request:
    body = dict(request.body)
    changes: dict[str, Any] = {"body": body}
    if "temperature" in applied:
        body["temperature"] = applied["temperature"]
        changes["hints"] = {**request.hints, "temperature": applied["temperature"]}
    if "max_tokens" in applied:
        most = min(applied["max_tokens"], card.max_output or applied["max_tokens"])
        body["max_tokens"] = changes["max_tokens"] = most
        body.pop("max_completion_tokens", None)  # null, or the caller would have said something
    if "system" in applied:
        text = applied["system"]
        body["messages"] = [{"role": "system", "content": text}, *body.get("messages", ())]
        changes["messages"] = (Message("system", (TextPart(text),)), *request.messages)
        changes["input_bytes"] = request.input_bytes + len(text.encode())
    return replace(request, **changes)
