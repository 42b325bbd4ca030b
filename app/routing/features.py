"""What is classified: the last human ask of a request, and facts about the request around it. Pure.

Agents and editors wrap what a person typed in reminders, environment dumps, file listings and pasted files; a
classifier that reads those learns the harness and not the question. Only head and tail of a long ask are kept, since
what is asked stands mostly at one of its ends. Judging is left to `classifier`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Final, NamedTuple

from app.core.messages import MediaPart, Message, TextPart, ToolResultPart, ToolUsePart
from app.core.request import Request
from app.routing.lexical import Words, read

HEAD_CHARS: Final = 1_400
TAIL_CHARS: Final = 600
GIST_HEAD: Final = 400
GIST_TAIL: Final = 200
RECENT: Final = 8  # so many of the last tool results and calls are looked at
_RAW_HALF: Final = 16_384  # searched for harness blocks
_CLEAN_HALF: Final = 4_096  # searched for listings and dumps
_DUMP_CHARS: Final = 4_000
_LISTING_LINES: Final = 8
_RESULT_HEAD: Final = 300

_HARNESS: Final = (
    "system-reminder|system_reminder|environment_details|environment_context|env|user_info|user_instructions|INSTRUCTIONS"
    "|git_status|project_layout|file_listing|file_list|files|file_contents?|file|documents?|attached_files|attachments"
    "|open_and_recently_viewed_files|additional_data|current_file|ide_opened_file|ide_selection|ide_diagnostics"
    "|command-name|command-message|command-args|local-command-stdout|local-command-stderr|repo_map|repository_map"
    "|available_skills|tool_results?|function_results?|workspace_info|editor_context"
)
_OPEN = re.compile(rf"<({_HARNESS})(?:\s[^<>]*)?>")
_CLOSE = re.compile(rf"</({_HARNESS})>")
_WRAPPERS: Final = ("user_query", "user_message", "task", "feedback", "question")
_NO_PATH_ENDS: Final = ("", ";", ")", ",", "{", "}", ":", ".")
_LISTING_MARKS: Final = " 	│├└─*-"

Signs = Mapping[str, Sequence[str]]
"""Under a character those that hold it: one character is looked for many times faster than several."""

_CODE_SIGNS: Final[Signs] = {
    "(": ("();", "print("),
    ")": (") {", "):\n"),
    "{": ("{\n",),
    "}": ("};",),
    "=": ("==", "=>"),
    ">": ("->",),
    ":": ("::",),
    "#": ("#include",),
    " ": ("def ", "class ", "import ", "return ", "function ", "const ", "SELECT "),
    ".": ("self.",),
}
_MATHS_SIGNS: Final[Signs] = {
    "\\": ("\\frac", "\\sum", "\\int", "\\sqrt", "\\begin{"),
    "^": ("^2", "^n", "^{"),
    "_": ("_n",),
    "=": ("x =", "y ="),
    "(": ("f(x)",),
    "e": ("equation", "integer", "theorem", "prove", "derivative", "integral"),
    **{sign: (sign,) for sign in "∑∫√≤≥"},
}
_LANGUAGES: Final = frozenset(
    b"python javascript typescript java rust ruby php swift kotlin scala haskell perl lua sql bash html css julia"
    b" matlab dart golang cpp csharp elixir erlang clojure fortran cobol zig powershell".split()
)
_SYMBOL_LANGUAGES: Final = ("C++", "C#")
_FAILURES: Final = (
    "error:",
    "exception",
    "traceback",
    "failed",
    "fatal:",
    "permission denied",
    "not found",
    "no such file",
)
_FAILED_STARTS: Final = ("error", "exit code 1", "exit code: 1", "command failed")


class Facts(NamedTuple):
    """What is known of a request besides the words of its ask. All of it can be counted without a model."""

    ask_chars: int = 0
    request_bytes: int = 0
    messages: int = 1
    code: bool = False
    maths: bool = False
    languages: int = 0  # programming languages named in the ask
    tools_offered: int = 0
    tools_used: int = 0
    recent_errors: int = 0  # among the last tool results
    recent_repeats: int = 0  # how often the commonest of the last tool calls was made again
    images: int = 0
    schema: bool = False
    max_tokens: int = 0  # 0: not said
    tool_turn: bool = False  # only carries tool results, and so belongs to the model of its tool loop

    def numbers(self) -> tuple[float, ...]:
        """In the order of the fields, for learners."""
        return tuple(map(float, self))


class Topic(NamedTuple):
    """The facts that an ask's words alone tell: the same for every turn that carries it."""

    code: bool
    maths: bool
    languages: int


class Asked(NamedTuple):
    """`text` is head and tail of the last human ask, `gist` a shorter cut of it that is cheap to embed."""

    text: str
    gist: str
    facts: Facts


def asked(request: Request) -> Asked:
    """What a request asks for, and the facts around it."""
    text, chars = last_ask(request.messages)
    return Asked(text, gist_of(text), facts_of(request, chars, topic_of(text, read(text))))


def topic_of(text: str, words: Words) -> Topic:
    """`words` are the text's."""
    return Topic(is_code(text), is_maths(text), languages(text, words.distinct))


def facts_of(request: Request, chars: int, topic: Topic) -> Facts:
    """`chars` are those of the message that the ask is in, `topic` what its words tell."""
    results: list[ToolResultPart] = []
    calls: list[ToolUsePart] = []
    images = 0
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, TextPart):
                continue
            if isinstance(part, ToolResultPart):
                results.append(part)
            elif isinstance(part, ToolUsePart):
                calls.append(part)
            elif isinstance(part, MediaPart) and part.kind == "image":
                images += 1
    calls = calls[-RECENT:]
    return Facts(
        chars,
        request.input_bytes,
        len(request.messages),
        *topic,
        tools_offered=len(request.tools),
        tools_used=len(calls),
        recent_errors=sum(map(_failed, results[-RECENT:])) if results else 0,
        recent_repeats=_repeats(calls) if calls else 0,
        images=images,
        schema=request.format is not None and request.format.kind == "json_schema",
        max_tokens=request.max_tokens or 0,
        tool_turn=bool(results) and only_tool_results(request.messages),
    )


def asked_text(prompt: str) -> Asked:
    """A bare prompt, as `asked` sees it in a request of one message."""
    text = clean(prompt)
    size = len(prompt.encode("utf-8", "replace"))
    return Asked(text, gist_of(text), Facts(len(prompt), size, 1, *topic_of(text, read(text))))


def last_ask(messages: Sequence[Message]) -> tuple[str, int]:
    """The last thing a person said, cleaned, and how many characters that message has; ("", 0) if nobody did."""
    for message in reversed(messages):
        if message.role == "user" and (text := message.text) and (ask := clean(text)):
            return ask, len(text)
    return "", 0


def only_tool_results(messages: Sequence[Message]) -> bool:
    """Whether all that came since the assistant spoke are results of its tools."""
    seen = False
    for message in reversed(messages):
        if message.role == "assistant":
            break
        if message.role in ("system", "developer"):
            continue
        seen = any(isinstance(part, ToolResultPart) for part in message.parts)
        if not seen or (message.text and clean(message.text)):
            return False
    return seen


def clean(text: str) -> str:
    """Without harness blocks, listings and pasted dumps; head and tail of what is left."""
    if len(text) > 2 * _RAW_HALF:
        text = f"{_without_blocks(text[:_RAW_HALF])}\n{_without_blocks(_after_cut_block(text[-_RAW_HALF:]))}"
    else:
        text = _without_blocks(text)
    text = cut(text, _CLEAN_HALF, _CLEAN_HALF)
    if len(text) > _DUMP_CHARS and "`" in text:
        text = _without_dumps(text)
    if text.count("\n") >= _LISTING_LINES:
        text = _without_listings(text)
    return cut(text.strip(), HEAD_CHARS, TAIL_CHARS)


def cut(text: str, head: int, tail: int) -> str:
    """Head and tail of a text that is too long."""
    return text if len(text) <= head + tail + 1 else f"{text[:head]}\n{text[-tail:]}"


def is_code(text: str) -> bool:
    return ("`" in text and "```" in text) or _count(_CODE_SIGNS, text) >= 3


def is_maths(text: str) -> bool:
    return _count(_MATHS_SIGNS, text) >= 2


def _count(signs: Signs, text: str) -> int:
    """How many of them there are."""
    return sum(sum(map(text.__contains__, group)) for mark, group in signs.items() if mark in text)


def languages(text: str, words: Set[bytes]) -> int:
    """How many programming languages are named; `words` are the text's."""
    return len(_LANGUAGES & words) + sum(map(text.__contains__, _SYMBOL_LANGUAGES))


def gist_of(text: str) -> str:
    return cut(text, GIST_HEAD, GIST_TAIL)


def _without_blocks(text: str) -> str:
    """What stands outside harness blocks; within the harness's mark for what a person typed, only that."""
    if "<" not in text:
        return text
    kept, end = [], 0
    while (block := _OPEN.search(text, end)) is not None:
        kept.append(text[end : block.start()])
        close = text.find(f"</{block[1]}>", block.end())
        end = len(text) if close < 0 else close + len(block[1]) + 3
    kept.append(text[end:])
    outside = "".join(kept)
    for name in _WRAPPERS:
        _, opened, rest = outside.partition(f"<{name}>")
        inside, closed, _ = rest.partition(f"</{name}>")
        if opened and closed:
            return inside
    return outside


def _after_cut_block(tail: str) -> str:
    """The tail of a text, without the end of a harness block whose beginning was cut away."""
    close = _CLOSE.search(tail) if "<" in tail else None
    return tail if close is None or f"<{close[1]}" in tail[: close.start()] else tail[close.end() :]


def _without_dumps(text: str) -> str:
    pieces = text.split("```")
    pieces[1::2] = ["" if len(piece) > _DUMP_CHARS else piece for piece in pieces[1::2]]
    return "```".join(pieces)


def _without_listings(text: str) -> str:
    """Without runs of lines that are nothing but paths."""
    kept: list[str] = []
    run: list[str] = []
    for line in text.split("\n"):
        if _is_path(line.strip(_LISTING_MARKS)):
            run.append(line)
            continue
        kept += run if len(run) < _LISTING_LINES else ()
        run.clear()
        kept.append(line)
    kept += run if len(run) < _LISTING_LINES else ()
    return "\n".join(kept)


def _is_path(line: str) -> bool:
    return " " not in line and ("/" in line or "." in line) and line[-1:] not in _NO_PATH_ENDS


def _failed(result: ToolResultPart) -> bool:
    """Whether a tool failed. Most harnesses do not say so but in the text."""
    if result.is_error:
        return True
    text = "".join(part.text for part in result.parts if isinstance(part, TextPart))[:_RESULT_HEAD].lower().lstrip()
    return text.startswith(_FAILED_STARTS) or any(sign in text for sign in _FAILURES)


def _repeats(calls: Sequence[ToolUsePart]) -> int:
    counts = Counter((call.name, call.arguments) for call in calls)
    return max(counts.values(), default=1) - 1
