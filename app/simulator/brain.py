"""What a simulated model answers: deterministic, useful for tests and demos, and it always says that it is simulated.

Pure: a Request in, the content of an answer out. What the caller can ask for in the last user message:

    call NAME, use NAME       calls an offered tool of that name (several names: several calls);
                              `NAME({"city": "Paris"})` says with what
    sim:tokens=N              an answer of N tokens
    sim:unicode               an answer with characters of every width
    sim:reason                thinks before it answers, asked for or not
    sim:fault=NAME            the fault of that name (see `faults`) happens to this very reply

Tool results are answered with what they said. `max_tokens`, `stop`, `n`, `response_format`, `tool_choice`, effort and
logprobs are honoured.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, zip_longest
from typing import Any, Final

import orjson

from app.core.events import Event, Finish, Reasoning, Text, ToolCall
from app.core.messages import MediaPart, Message, TextPart, Tool, ToolResultPart
from app.core.money import Tokens
from app.core.request import Request
from app.core.tokens import TOKENS_PER_IMAGE, estimate
from app.simulator.schema import instance

UNICODE: Final = "naïve Ünïcödé: 你好, שלום, 👩‍👩‍👧‍👦 🏳️‍🌈 é ﷽ 𝒳"
_TOKEN: Final = re.compile(r"\s*\S{1,12}|\s+")
_DIRECTIVE: Final = re.compile(r"\bsim:(\w+)(?:=(\S+))?")
_ASKS: Final = re.compile(r"\b(?:call|use)\b", re.IGNORECASE)
_MOST_TOKENS: Final = 200_000
_ECHO: Final = 2_000
_FILLER: Final = (" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten")


@dataclass(frozen=True, slots=True)
class Thought:
    """The content of an answer, and its usage with what the server adds to it."""

    events: tuple[Event, ...]
    tokens: Tokens
    details: dict[str, Any] | None = None


def directives(text: str) -> dict[str, str]:
    """What a message asks of the simulator itself."""
    if "sim:" not in text:
        return {}
    return {name: value or "" for name, value in _DIRECTIVE.findall(text)}


def prompt_tokens(request: Request) -> int:
    """How many tokens the simulated models make of a request."""
    images = sum(isinstance(part, MediaPart) for message in request.messages for part in message.parts)
    return max(1, estimate(request.input_bytes)) + images * TOKENS_PER_IMAGE


def last_user(messages: Sequence[Message]) -> Message | None:
    return next((message for message in reversed(messages) if message.role == "user"), None)


def think(request: Request, tier: str, *, limit: int, prompt: int) -> Thought:
    """The answer of a model of that tier. `limit` is the most tokens it can give, `prompt` how many it was sent."""
    if request.max_tokens is not None:
        limit = min(limit, request.max_tokens)
    choices = [_choice(request, tier, limit, index) for index in range(request.n)]
    rounds = zip_longest(*choices)
    events = tuple(event for row in rounds for event in row if event is not None)
    reasoning = sum(isinstance(event, Reasoning) for event in events)
    return Thought(events, Tokens(prompt=prompt, completion=len(events) - len(choices), reasoning=reasoning))


def _choice(request: Request, tier: str, limit: int, index: int) -> list[Event]:
    """One choice; each event but the last is one token."""
    user = last_user(request.messages)
    said = user.text if user else ""
    asked = directives(said)
    events: list[Event] = list(_reasoning(request, asked, said, index))
    calls = _calls(request, said)
    if calls:
        events += _tool_calls(request, calls, index)
        finish = Finish("tool_calls", index)
    else:
        tokens, stopped_by = _until(request.stop, _tokens(request, _text(request, tier, said, asked, index), asked))
        events += _spoken(request, tokens, index)
        finish = Finish("stop", index, extra=None if stopped_by is None else {"stop_reason": stopped_by})
    if len(events) > limit:
        return [*events[:limit], Finish("length", index)]
    return [*events, finish]


def _reasoning(request: Request, asked: dict[str, str], said: str, index: int) -> Iterator[Event]:
    if request.effort in (None, "none") and "reason" not in asked:
        return
    thinking = f"Simulated thinking with effort {request.effort or 'medium'} about {len(said)} characters."
    for token in _TOKEN.findall(thinking):
        yield Reasoning(token, index)


# --- tools ----------------------------------------------------------------------------------------------------------


def _calls(request: Request, said: str) -> list[tuple[Tool, str]]:
    """The tools to call, each with its arguments."""
    choice = request.tool_choice
    mode, allowed = (choice.mode, choice.names) if choice else ("auto", ())
    offered = [tool for tool in request.tools if not allowed or tool.name in allowed]
    if mode == "none" or not offered or not request.messages:
        return []
    called = [tool for tool in offered if mode == "named" or _names(tool, said)]
    if not called and mode == "required":
        called = offered[:1]
    elif mode == "auto" and request.messages[-1].role != "user":
        called = []  # the tools have answered: now it is our turn
    elif request.parallel_tool_calls is False:
        called = called[:1]
    return [(tool, _arguments(tool, said)) for tool in called]


def _names(tool: Tool, said: str) -> bool:
    return _ASKS.search(said) is not None and re.search(rf"(?<![\w-]){re.escape(tool.name)}(?![\w-])", said) is not None


def _arguments(tool: Tool, said: str) -> str:
    given = _given(tool.name, said)
    if tool.custom:
        return "simulated input"
    return orjson.dumps(instance(tool.schema) if given is None else given).decode()


def _given(name: str, said: str) -> Any:
    """The object in `name({...})`, if there is one."""
    _, found, rest = said.partition(f"{name}(")
    if not found:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _tool_calls(request: Request, calls: Sequence[tuple[Tool, str]], index: int) -> Iterator[Event]:
    for number, (tool, arguments) in enumerate(calls):
        yield ToolCall(number, "", f"call_{_digest(f'{request.id} {index} {number}')}", tool.name, index, tool.custom)
        for token in _TOKEN.findall(arguments):
            yield ToolCall(number, token, choice=index, custom=tool.custom)


# --- words ----------------------------------------------------------------------------------------------------------


def _text(request: Request, tier: str, said: str, asked: dict[str, str], index: int) -> str:
    if request.format is not None:
        value = {"simulated": tier} if request.format.schema is None else instance(request.format.schema)
        return orjson.dumps(value).decode()
    parts = [f"[simulated {tier}]"]
    parts += [f"I see {count}." for count in _media(request.messages)]
    results = _results(request.messages)
    parts.append(f"The tool said: {results}" if results is not None else f"You said: {said[:_ECHO]}")
    if "unicode" in asked:
        parts.append(UNICODE)
    if index:
        parts.append(f"(choice {index + 1})")
    return " ".join(parts)


def _media(messages: Sequence[Message]) -> list[str]:
    kinds = [part.kind for message in messages for part in message.parts if isinstance(part, MediaPart)]
    return [f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) > 1)}" for kind in sorted(set(kinds))]


def _results(messages: Sequence[Message]) -> str | None:
    """What the tools said, when it is their results that wait for an answer."""
    results = [part for part in messages[-1].parts if isinstance(part, ToolResultPart)] if messages else []
    if not results:
        return None
    texts = ["".join(one.text for one in part.parts if isinstance(one, TextPart)) for part in results]
    return "; ".join(texts)[:_ECHO]


def _tokens(request: Request, text: str, asked: dict[str, str]) -> list[str]:
    tokens = _TOKEN.findall(text)
    wanted = asked.get("tokens", "")
    if wanted.isdecimal() and request.format is None:
        count = min(int(wanted[:9]), _MOST_TOKENS)
        tokens = [*tokens, *islice(cycle(_FILLER), max(0, count - len(tokens)))][:count]
    return tokens


def _until(stops: Sequence[str], tokens: list[str]) -> tuple[list[str], str | None]:
    """The tokens up to the first stop sequence in their text, and which that was."""
    text = "".join(tokens) if stops else ""
    found = [(text.index(stop), stop) for stop in stops if stop and stop in text]
    if not found:
        return tokens, None
    at, stop = min(found)
    return _TOKEN.findall(text[:at]), stop


def _spoken(request: Request, tokens: Sequence[str], index: int) -> Iterator[Event]:
    for token in tokens:
        probable = None if request.logprobs is None else _logprobs(token, request.logprobs)
        yield Text(token, index, logprobs=probable)


def _logprobs(token: str, alternatives: int) -> dict[str, Any]:
    """OpenAI's object for one token; probabilities are made up, and the same each time."""
    top = [_logprob(token, -0.1), *(_logprob(f" alt{rank}", -1.0 - rank) for rank in range(1, alternatives))]
    return {"content": [{**_logprob(token, -0.1), "top_logprobs": top[:alternatives]}], "refusal": None}


def _logprob(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()
