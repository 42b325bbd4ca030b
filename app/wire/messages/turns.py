"""Turns a neutral conversation into Anthropic's: system prompts apart, user and assistant in turns, all results of a
turn's tool calls together at the head of the next user turn.

What one block looks like is `messages_blocks`; which parameters go with it, `messages_params`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import MediaPart, Message, RefusalPart, TextPart, ThinkingPart, ToolResultPart, ToolUsePart
from app.wire.messages.blocks import (
    Block,
    Markers,
    ToolIds,
    media_block,
    text_blocks,
    thinking_block,
    tool_use_block,
)
from app.wire.messages.rules import Rules

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
THINKING_TYPES: Final = frozenset({"thinking", "redacted_thinking"})
_USER_ROLES: Final = frozenset({"user", "tool"})


@dataclass(slots=True)
class Conversation:
    """`originals` maps tool ids that were changed back to the caller's."""

    system: list[Block] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    originals: dict[str, str] = field(default_factory=dict)

    @property
    def thought(self) -> bool:
        """Whether earlier thinking is played back."""
        return any(
            block["type"] in THINKING_TYPES
            for turn in self.turns
            if turn["role"] == "assistant"
            for block in turn["content"]
        )

    @property
    def unthinking(self) -> bool:
        """Whether a model that thinks by budget may not begin to here: it is to go on with an answer begun for it, or
        with results of tools that were called without thinking, or whose thinking was not kept."""
        last = self.turns[-1]
        if last["role"] == "assistant":
            return True
        looping = len(self.turns) > 1 and last["content"][0]["type"] == "tool_result"
        return looping and self.turns[-2]["content"][0]["type"] not in THINKING_TYPES


def write_turns(messages: Sequence[Message], rules: Rules, markers: Markers) -> Conversation:
    """Raises `InvalidValue` where calls and results do not match, `UnsupportedParameter` for what the model cannot
    read."""
    inline = _inline(messages) if rules.system_turns else frozenset()
    writer = _TurnWriter(messages, markers)
    for index, message in enumerate(messages):
        if message.role in SYSTEM_ROLES and index not in inline:
            writer.conversation.system += text_blocks(_texts(message), markers)
    for index, message in enumerate(messages):
        if message.role not in SYSTEM_ROLES:
            writer.add(index, message)
        elif index in inline:
            writer.put("system", text_blocks(_texts(message), markers))
    writer.end()
    conversation = writer.conversation
    if not conversation.turns:
        raise UnsupportedParameter("this model needs a message that is not empty", param="messages")
    if conversation.turns[-1]["role"] == "assistant":
        _prefill(conversation.turns[-1]["content"], rules)
    return conversation


def _inline(messages: Sequence[Message]) -> frozenset[int]:
    """The system messages that may stay where they are: right behind a user's turn, with an assistant's or nothing to
    follow. All others move to the system prompt."""
    roles = ["system" if message.role in SYSTEM_ROLES else message.role for message in messages]
    inline: set[int] = set()
    before, run = "", list[int]()
    for index, role in enumerate([*roles, "assistant"]):
        if role == "system":
            run.append(index)
            continue
        if before in _USER_ROLES and role == "assistant":
            inline.update(run)
        before, run = role, []
    return frozenset(inline)


def _texts(message: Message) -> list[TextPart]:
    """The texts of a message; refusals count as such."""
    found: list[TextPart] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            found.append(part)
        elif isinstance(part, RefusalPart):
            found.append(TextPart(part.text))
    return found


def _prefill(content: list[Block], rules: Rules) -> None:
    """Makes an answer begun by the caller one that the API takes: no thinking in it, no white space at its end."""
    if not rules.prefill:
        raise UnsupportedParameter("this model cannot continue an assistant's message", param="messages")
    content[:] = [block for block in content if block["type"] not in THINKING_TYPES]
    if not content:
        raise UnsupportedParameter("this model cannot continue thinking", param="messages")
    content[-1]["text"] = content[-1]["text"].rstrip()


class _TurnWriter:
    """Adds message after message. `_waiting` holds, by the caller's id, the calls whose results have not come."""

    def __init__(self, messages: Sequence[Message], markers: Markers) -> None:
        self.conversation = Conversation()
        self._markers = markers
        calls = (part.id for message in messages for part in message.parts if isinstance(part, ToolUsePart))
        self._ids = ToolIds(calls)
        self._waiting: dict[str, deque[str]] = {}
        self._asked_at = 0
        self._results = 0  # at the head of the user's turn that is being written

    def add(self, index: int, message: Message) -> None:
        match message.role:
            case "assistant":
                self._assistant(index, message)
            case "user":
                self.put("user", self._mixed(message.parts, f"messages[{index}].content"))
            case "tool":
                for part in message.parts:
                    if isinstance(part, ToolResultPart):
                        self._result(index, part)

    def end(self) -> None:
        """Raises for calls that have no result."""
        missing = next((id for id, calls in self._waiting.items() if calls), None)
        if missing is not None:
            where = f"messages[{self._asked_at}]"
            raise InvalidValue(f"{where}: the tool call {missing!r} has no result", param=where)
        self.conversation.originals = self._ids.originals

    def put(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        turns = self.conversation.turns
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
            self._results = 0

    def _assistant(self, index: int, message: Message) -> None:
        self.end()
        param = f"messages[{index}]"
        thoughts = [thinking_block(part) for part in message.parts if isinstance(part, ThinkingPart)]
        blocks = [block for block in thoughts if block is not None]
        if any(isinstance(part, MediaPart) for part in message.parts):
            raise UnsupportedParameter("this model takes no media in an assistant's message", param=param)
        blocks += text_blocks(_texts(message), self._markers)
        for part in message.parts:
            if isinstance(part, ToolUsePart):
                id = self._ids.safe(part.id)
                self._waiting.setdefault(part.id, deque()).append(id)
                self._asked_at = index
                blocks.append(tool_use_block(part, id, param))
        self.put("assistant", blocks)

    def _result(self, index: int, part: ToolResultPart) -> None:
        waiting = self._waiting.get(part.call_id)
        if not waiting:
            param = f"messages[{index}].tool_call_id"
            raise InvalidValue(f"{param}: no call before it waits for {part.call_id!r}", param=param)
        block: Block = {"type": "tool_result", "tool_use_id": waiting.popleft()}
        content = self._mixed(part.parts, f"messages[{index}].content")
        if content:
            block["content"] = content
        if part.is_error:
            block["is_error"] = True
        self._markers.put(block, part.cache)
        turns = self.conversation.turns
        if turns[-1]["role"] == "user":
            turns[-1]["content"].insert(self._results, block)
        else:
            self.put("user", [block])
        self._results += 1

    def _mixed(self, parts: Sequence[Any], param: str) -> list[Block]:
        blocks: list[Block] = []
        for index, part in enumerate(parts):
            if isinstance(part, TextPart):
                blocks += text_blocks((part,), self._markers)
            elif isinstance(part, MediaPart):
                blocks.append(self._markers.put(media_block(part, f"{param}[{index}]"), part.cache))
        return blocks
