"""Writes a request the way Ollama's native `/api/chat` wants it.

The window is fixed per model and sent on every call, and cutting is forbidden, so that what does not fit is an error
and never a silent loss. What changes the meaning of an answer and cannot be said here is refused; hints that cannot
be said are dropped and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from app.core.card import PARAM_OF, Ability, Card
from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import (
    MediaPart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolResultPart,
    ToolUsePart,
)
from app.core.request import Request
from app.core.tokens import bytes_of
from app.wire.codec import Outgoing
from app.wire.ollama.window import window

CANNOT: Final = frozenset(
    {
        Ability.MANY,
        Ability.FORCED_TOOLS,
        Ability.CUSTOM_TOOLS,
        Ability.AUDIO,
        Ability.AUDIO_OUTPUT,
        Ability.FILES,
    }
)
"""What this wire has no words for, whatever the model."""

OPTION_OF: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "num_predict": "num_predict",
    "mirostat": "mirostat",
    "mirostat_eta": "mirostat_eta",
    "mirostat_tau": "mirostat_tau",
}
"""A caller's field -> the option it sets. Options that would reload the model (num_ctx, num_gpu, ...) or change what is
kept of a long prompt (num_keep) are not the caller's to set."""

_PASSED_ON: Final = frozenset({"keep_alive", "think"})
_ROLE_OF: Final[Mapping[str, str]] = {"developer": "system"}
_EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh", "max")
_NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


def write_request(request: Request, card: Card) -> Outgoing:
    """Raises `UnsupportedParameter` for what this wire cannot say, `InvalidValue` for history it cannot take.

    `memo` is the number of bytes of message text that was sent, for the check of what was evaluated.
    """
    _refuse(request)
    transcript = _Transcript()
    for index, message in enumerate(request.messages):
        transcript.add(index, message)
    options, ignored = _options(request, card)
    body: dict[str, Any] = {
        "model": card.name,
        "messages": transcript.written,
        "stream": request.stream,
        "truncate": False,
        "shift": False,
        "options": options,
    }
    if tools := _tools(request):
        body["tools"] = tools
    if request.format is not None:
        body["format"] = request.format.schema if request.format.schema is not None else "json"
    if request.logprobs is not None:
        body["logprobs"] = True
        if request.logprobs:
            body["top_logprobs"] = request.logprobs
    if (keep_alive := request.extra.get("keep_alive")) is not None:
        body["keep_alive"] = keep_alive
    think = _think(request, card)
    if think is not None:
        body["think"] = think
    ignored += _unsaid(request, transcript, think)
    return Outgoing(_dumped(body), ignored=tuple(ignored), memo=transcript.text_bytes)


def _dumped(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:  # arguments come as text, so their depth was not seen before
        raise InvalidValue("a tool call's arguments are nested too deeply", param="messages") from None


def _refuse(request: Request) -> None:
    demanded = set(request.needs)
    if request.n > 1:
        demanded.add(Ability.MANY)
    if request.tool_choice is not None and request.tool_choice.forced:
        demanded.add(Ability.FORCED_TOOLS)
    if any(tool.custom for tool in request.tools):
        demanded.add(Ability.CUSTOM_TOOLS)
    for ability in sorted(demanded & CANNOT):
        raise UnsupportedParameter(
            f"this model's server cannot do what {PARAM_OF[ability]!r} asks for ({ability})", param=PARAM_OF[ability]
        )


def _options(request: Request, card: Card) -> tuple[dict[str, Any], list[str]]:
    options: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in (*request.hints.items(), *request.extra.items()):
        if name == "options" and isinstance(value, Mapping):
            _take(value.items(), options, ignored, "options.")
        elif name not in _PASSED_ON:
            _take(((name, value),), options, ignored, "")
    if (told := window(card)) is not None:
        options["num_ctx"] = told
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    if request.stop:
        options["stop"] = list(request.stop)
    return options, ignored


def _take(fields: Iterable[tuple[str, Any]], options: dict[str, Any], ignored: list[str], prefix: str) -> None:
    for name, value in fields:
        if value is None:
            continue
        option = OPTION_OF.get(name)
        if option is None:
            ignored.append(prefix + name)
        else:
            options[option] = value


def _tools(request: Request) -> list[dict[str, Any]]:
    choice = request.tool_choice
    if choice is None:
        return [_tool(tool) for tool in request.tools]
    if choice.mode == "none":
        return []
    return [_tool(tool) for tool in request.tools if not choice.names or tool.name in choice.names]


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.schema if tool.schema is not None else _NO_ARGUMENTS
    return {"type": "function", "function": function}


def _think(request: Request, card: Card) -> bool | str | None:
    """What to say about thinking; None leaves it to the model. Most models know only on and off; the quirk
    `think_levels` lists the levels of those that know more."""
    if Ability.REASONING not in card.abilities:
        return None
    asked = request.effort
    if asked is None:
        think = request.extra.get("think")
        return think if isinstance(think, (bool, str)) else None
    if asked == "none":
        return False
    levels = card.quirks.get("think_levels")
    if not levels or asked not in _EFFORTS:
        return True
    wanted = _EFFORTS.index(asked)
    return str(min(levels, key=lambda level: abs(_EFFORTS.index(level) - wanted)))


def _unsaid(request: Request, transcript: _Transcript, think: bool | str | None) -> list[str]:
    """Fields of the request, by the caller's names, that had no place."""
    unsaid = []
    if request.effort not in (None, "none") and think is None:
        unsaid.append("reasoning_effort")
    if request.extra.get("think") not in (None, False) and think is None:
        unsaid.append("think")
    if request.parallel_tool_calls is False:
        unsaid.append("parallel_tool_calls")
    if any(tool.strict for tool in request.tools):
        unsaid.append("tools.function.strict")
    if transcript.named:
        unsaid.append("messages.name")
    return unsaid


class _Transcript:
    """The conversation as it is written so far, and the bytes of its text.

    Thinking is not counted: most templates leave that of earlier turns out.
    """

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.text_bytes = 0
        self.named = False
        self._tool_of: dict[str, str] = {}

    def add(self, index: int, message: Message) -> None:
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        for result in results:
            self._add_result(result)
        if results and len(results) == len(message.parts):
            return
        self.named = self.named or message.name is not None
        written = self._add(_ROLE_OF.get(message.role, message.role), message.parts)
        if thinking := "".join(part.text for part in message.parts if isinstance(part, ThinkingPart)):
            written["thinking"] = thinking
        if uses := [part for part in message.parts if isinstance(part, ToolUsePart)]:
            written["tool_calls"] = [self._call(index, position, use) for position, use in enumerate(uses)]

    def _add(self, role: str, parts: Iterable[Part]) -> dict[str, Any]:
        text, images = [], []
        for part in parts:
            if isinstance(part, (TextPart, RefusalPart)):
                text.append(part.text)
            elif isinstance(part, MediaPart):
                images.append(_image(part))
        content = "".join(text)
        self._count(content)
        written: dict[str, Any] = {"role": role, "content": content}
        if images:
            written["images"] = images
        self.written.append(written)
        return written

    def _add_result(self, result: ToolResultPart) -> None:
        written = self._add("tool", result.parts)
        written["tool_call_id"] = result.call_id
        if (name := self._tool_of.get(result.call_id)) is not None:
            written["tool_name"] = name

    def _call(self, index: int, position: int, use: ToolUsePart) -> dict[str, Any]:
        self._count(use.arguments)
        self._tool_of[use.id] = use.name
        function = {"index": position, "name": use.name, "arguments": _arguments(use, index, position)}
        return {"id": use.id, "function": function}

    def _count(self, text: str) -> None:
        self.text_bytes += bytes_of(text)


def _image(part: MediaPart) -> str:
    if part.kind != "image":
        raise UnsupportedParameter(f"this model's server takes no {part.kind} input", param="messages")
    if part.data is None:
        raise UnsupportedParameter("this model's server takes images only inline, as data URLs", param="messages")
    return part.data


def _arguments(use: ToolUsePart, index: int, position: int) -> dict[str, Any]:
    """Ollama wants the object itself; OpenAI's callers send its JSON text, empty for none."""
    param = f"messages[{index}].tool_calls[{position}].function.arguments"
    if use.custom:
        raise UnsupportedParameter("this model's server knows no custom tools", param=param)
    try:
        arguments = orjson.loads(use.arguments) if use.arguments.strip() else {}
    except orjson.JSONDecodeError:
        raise InvalidValue(f"{param} is not valid JSON", param=param) from None
    if not isinstance(arguments, dict):
        raise InvalidValue(f"{param} is not a JSON object", param=param)
    return arguments
