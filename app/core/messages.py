"""What a conversation is made of, in no dialect.

Parsed once from the caller's body; codecs that translate write their own wire from it. Nothing is repaired here: what
a wire cannot take, its codec refuses or maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.value import value


@value(frozen=True, slots=True)
class TextPart:
    """`cache` marks the end of a prefix worth caching upstream: `5m` or `1h`."""

    text: str
    cache: str | None = None


@value(frozen=True, slots=True)
class MediaPart:
    """An image, a sound or a file: inline as base64 text in `data`, or by `url`, or by `file_id`."""

    kind: str  # image | audio | file
    media_type: str | None = None  # image/png, audio/wav, application/pdf; None when only a URL is known
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    detail: str | None = None
    cache: str | None = None


@value(frozen=True, slots=True)
class ToolUsePart:
    """An assistant's call of a tool; `arguments` is JSON text as it was sent (`custom`: free text)."""

    id: str
    name: str
    arguments: str
    custom: bool = False


@value(frozen=True, slots=True)
class ToolResultPart:
    """What a tool gave back."""

    call_id: str
    parts: tuple[TextPart | MediaPart, ...]
    is_error: bool = False
    cache: str | None = None


@value(frozen=True, slots=True)
class ThinkingPart:
    """An assistant's earlier thinking: signed text, or an opaque block."""

    text: str
    signature: str | None = None
    redacted: str | None = None


@value(frozen=True, slots=True)
class RefusalPart:
    text: str


Part = TextPart | MediaPart | ToolUsePart | ToolResultPart | ThinkingPart | RefusalPart


@value(frozen=True, slots=True)
class Message:
    """One turn. A `tool` message holds one ToolResultPart per result."""

    role: str  # system | developer | user | assistant | tool
    parts: tuple[Part, ...]
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined."""
        if len(self.parts) == 1 and type(self.parts[0]) is TextPart:
            return self.parts[0].text
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@value(frozen=True, slots=True)
class Tool:
    """A tool on offer. `schema` is JSON Schema of the arguments, None for a function without any;
    `custom`: a tool that takes free text, whose definition stays in the caller's body."""

    name: str
    description: str | None = None
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None
    custom: bool = False
    cache: str | None = None


@value(frozen=True, slots=True)
class ToolChoice:
    """`auto`, `none`, `required` (some tool), or `named` (the one in `names`). With `auto` and `required`, `names`
    restricts the tools that may be used (OpenAI's allowed_tools); empty means all."""

    mode: str = "auto"
    names: tuple[str, ...] = ()

    @property
    def forced(self) -> bool:
        return self.mode in ("required", "named")


@value(frozen=True, slots=True)
class Format:
    """The demanded shape of the answer: `json_object`, or `json_schema` with its schema."""

    kind: str
    schema: Mapping[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None
