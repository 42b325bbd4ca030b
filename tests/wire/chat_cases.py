"""Recorded conversations with OpenAI-compatible servers, and the few objects every chat test needs.

Each conversation is one request answered twice by the same server: `NAME.sse` holds the bytes of the stream,
`NAME.json` the request, the unstreamed reply, and what both come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.core.card import Ability, Card
from app.core.events import Answer, Event, Start, Text, fold
from app.core.record import Served
from app.core.request import Request, Terms
from app.wire import chat
from app.wire.codec import Limits

FOLDER = Path(__file__).parent / "golden" / "chat"
TERMS = Terms("req-1", "req-1")
SAY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Go."}]}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


def card(name: str = "gpt-6-luna", **quirks: Any) -> Card:
    return Card(f"up/{name}", name, "up", "openai", False, frozenset(Ability), quirks=quirks)


def ask(**fields: Any) -> Request:
    """The request a client's body becomes."""
    return chat.read_request(orjson.dumps({**SAY, **fields}), TERMS, Limits())


def served(**fields: Any) -> Served:
    return Served(
        **{"request_id": "req-1", "model": "up/m", "upstream": "up", "reason": "cheapest", "attempts": 1, **fields}
    )


@dataclass(frozen=True)
class Conversation:
    name: str
    request: dict[str, Any]
    stream: bytes
    reply: dict[str, Any]
    choices: list[dict[str, Any]]
    usage: list[int] | None

    def asked(self, **more: Any) -> Request:
        return ask(**{**self.request, **more})

    def events(self, chunks: Iterable[bytes] | None = None, **more: Any) -> list[Event]:
        request = self.asked(stream=True, **more)
        return read([self.stream] if chunks is None else chunks, request)

    def whole(self, **more: Any) -> list[Event]:
        request = self.asked(**more)
        return chat.read_reply(orjson.dumps(self.reply), request, card(), chat.write_request(request, card()))


def conversations() -> list[Conversation]:
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        case = orjson.loads(path.read_bytes())
        stream = path.with_suffix(".sse").read_bytes()
        found.append(Conversation(path.stem, case["request"], stream, case["reply"], case["choices"], case["usage"]))
    assert len(found) > 20, "the recorded conversations are gone"
    return found


def read(chunks: Iterable[bytes], request: Request | None = None, model: Card | None = None) -> list[Event]:
    """The events of a whole stream."""
    request, model = request or ask(stream=True), model or card()
    reader = chat.reader(request, model, chat.write_request(request, model))
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return events + reader.end()


def written(events: Iterable[Event], request: Request) -> bytes:
    """The stream a client gets."""
    writer = chat.writer(request)
    return b"".join([writer.write(event) for event in events] + [writer.end()])


def datas(stream: bytes) -> Iterator[Any]:
    """The JSON of each event of a stream; `[DONE]` as a string."""
    for block in stream.removesuffix(b"\n\n").split(b"\n\n"):
        assert block.startswith(b"data: ") and b"\n" not in block, block
        data = block[6:]
        yield "[DONE]" if data == b"[DONE]" else orjson.loads(data)


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> bytes:
    """A chunk as any server might send it."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_763_600_000, "model": "gpt-6-luna"}
    return b"data: " + orjson.dumps({**head, "choices": [choice], **more}) + b"\n\n"


def summary(answer: Answer) -> list[dict[str, Any]]:
    """What an answer says, in the shape of the recorded expectations."""
    return [
        {
            "text": choice.text or None,
            "finish": choice.finish,
            "reasoning": choice.reasoning,
            "refusal": choice.refusal,
            "calls": [[call.id, call.name, call.arguments] for call in choice.calls],
        }
        for choice in answer.choices
    ]


def expected(conversation: Conversation, answer: Answer) -> list[dict[str, Any]]:
    """The recorded expectation, with the ids that a server left out taken from the answer."""
    wanted = [{**choice, "calls": [list(call) for call in choice["calls"]]} for choice in conversation.choices]
    for choice, got in zip(wanted, answer.choices, strict=True):
        for call, made in zip(choice["calls"], got.calls, strict=True):
            call[0] = call[0] or made.id
            assert made.id, "every call has an id"
    return wanted


def tokens(answer: Answer) -> list[int] | None:
    if answer.usage is None:
        return None
    used = answer.usage.tokens
    return [used.prompt, used.completion, used.cache_read, used.reasoning]


def bare(events: list[Event]) -> Answer:
    """The answer without what only one way of asking has: raw bytes and the JSON body."""
    answer = fold(events)
    start = answer.start
    answer.start = Start(start.id, start.model, start.created, start.dialect, fingerprint=start.fingerprint)
    return answer


def as_one(events: list[Event]) -> list[Event]:
    """The same with all plain text that follows each other in one event, as if all of it had come at once."""
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if (
            isinstance(event, Text)
            and isinstance(last, Text)
            and event.raw
            and last.raw
            and event.choice == last.choice
        ):
            raw = last.raw + b"\n\ndata: " + event.raw
            joined[-1] = Text(last.text + event.text, event.choice, raw=raw, pieces=last.pieces + event.pieces)
        else:
            joined.append(event)
    return joined
