"""Puts the tool calls of one choice together from whatever pieces an OpenAI-compatible server sends.

Servers leave out the index, start at 1, give two calls the same index, repeat id and name on every piece, send a call
whole, or send no arguments at all. Out come `ToolCall` events as the core promises them: calls count from 0 without
gaps, id and name come once, arguments concatenate to JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Any

import orjson

from app.core.errors import BadReply
from app.core.events import ToolCall


@dataclass(slots=True)
class _Slot:
    """One call. It is announced once its name is known; pieces that came before are kept."""

    id: str
    theirs: str = ""  # the id the server gave; `id` differs where that was missing or taken
    name: str = ""
    custom: bool = False
    number: int | None = None
    held: list[str] = field(default_factory=list)
    said: bool = False  # whether any arguments came


class Calls:
    """The calls of one choice. `seed` makes the ids of calls that came without one."""

    def __init__(self, choice: int, seed: str) -> None:
        self._choice = choice
        self._seed = seed
        self._slots: list[_Slot] = []
        self._by_index: dict[int, _Slot] = {}
        self._ids: set[str] = set()
        self._announced = 0

    def __bool__(self) -> bool:
        return bool(self._slots)

    def add(self, entry: Any, *, whole: bool = False) -> list[ToolCall]:
        """The events of one entry of a `tool_calls` array; `whole`: each entry is a call of its own."""
        if type(entry) is not dict:
            raise BadReply("a tool call is not an object")
        custom = entry.get("type") == "custom" or (type(entry.get("custom")) is dict and "function" not in entry)
        inner = entry.get("custom" if custom else "function")
        fields: dict[str, Any] = {} if inner is None else inner
        if type(fields) is not dict:
            raise BadReply("a tool call has no function object")
        name, call_id = _text(fields.get("name")), _text(entry.get("id"))
        arguments = _arguments(fields.get("input" if custom else "arguments"))
        slot = None if whole else self._known(_index(entry.get("index")), call_id, name)
        if slot is None:
            slot = self._new(entry.get("index"), call_id, custom)
        return self._piece(slot, name, arguments)

    def close(self) -> list[ToolCall]:
        """Completes what is open: a call without arguments gets an empty object."""
        events = []
        for slot in self._slots:
            if slot.number is None:
                raise BadReply("a tool call has no name")
            if not slot.said and not slot.custom:
                slot.said = True
                events.append(ToolCall(slot.number, "{}", choice=self._choice))
        return events

    def _known(self, index: int | None, call_id: str, name: str) -> _Slot | None:
        """The call that a piece continues; None if it begins one."""
        if index is None:
            if call_id:
                return next((slot for slot in self._slots if slot.theirs == call_id), None)
            slot = self._slots[-1] if self._slots and not name else None
        else:
            slot = self._by_index.get(index)
        if slot is None or not name or not slot.name:
            return slot
        # A piece with a name that differs in id or name from the call at its index is another call.
        other = (call_id and slot.theirs and call_id != slot.theirs) or name != slot.name
        return None if other else slot

    def _new(self, index: Any, call_id: str, custom: bool) -> _Slot:
        slot = _Slot(call_id, call_id, custom=custom)
        if not call_id or call_id in self._ids:
            digest = blake2s(f"{self._seed}:{self._choice}:{len(self._slots)}".encode(), digest_size=12)
            slot.id = "call_" + digest.hexdigest()
        self._ids.add(slot.id)
        self._slots.append(slot)
        if type(index) is int:
            self._by_index[index] = slot
        return slot

    def _piece(self, slot: _Slot, name: str, arguments: str) -> list[ToolCall]:
        slot.said = slot.said or bool(arguments)
        if slot.number is not None:
            return [ToolCall(slot.number, arguments, choice=self._choice)] if arguments else []
        slot.held.append(arguments)
        if not name:
            return []
        slot.name, slot.number = name, self._announced
        self._announced += 1
        return [ToolCall(slot.number, "".join(slot.held), slot.id, name, self._choice, slot.custom)]


def _index(value: Any) -> int | None:
    if value is None or type(value) is int:
        return value
    raise BadReply("the index of a tool call is not an integer")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is str:
        return value
    raise BadReply("a tool call has an id or name that is not text")


def _arguments(value: Any) -> str:
    """Some servers send the arguments as the object itself."""
    if type(value) is dict:
        return orjson.dumps(value).decode()
    if value is None or type(value) is str:
        return value or ""
    raise BadReply("the arguments of a tool call are not text")
