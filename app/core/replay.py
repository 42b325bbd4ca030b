"""An answer that is whole, as the events of a stream again: each part of it in one piece. The reverse of the fold."""

from __future__ import annotations

from collections.abc import Iterator

from app.core.events import Answer, Choice, Event, Finish, Reasoning, Text, ToolCall


def replay(answer: Answer) -> Iterator[Event]:
    """Start, every choice one after the other, Usage."""
    yield answer.start
    for choice in answer.choices:
        yield from _choice(choice)
    if answer.usage is not None:
        yield answer.usage


def _choice(choice: Choice) -> Iterator[Event]:
    index = choice.index
    for thought in choice.thoughts:
        yield Reasoning(thought.text, index, thought.signature, thought.redacted)
    if choice.text is not None or choice.extra:
        logprobs = None if choice.text is None else choice.logprobs
        yield Text(choice.text or "", index, logprobs=logprobs, extra=choice.extra or None)
    if choice.refusal is not None:
        yield Text(choice.refusal, index, refusal=True, logprobs=choice.logprobs if choice.text is None else None)
    for number, call in enumerate(choice.calls):
        yield ToolCall(number, call.arguments, call.id, call.name, index, call.custom)
    if choice.finish is not None:
        yield Finish(choice.finish, index, choice.detail, choice.finish_extra or None)
