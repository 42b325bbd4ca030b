"""From a request and a model to the script of its answer, in any dialect: the brain's events written by a codec, with
the delays of the model between them. What a server refuses, and how its wire departs from the codec's, is its face's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from app.core.events import Event, Start, Usage, fold
from app.core.request import Request, Terms
from app.simulator.behaviour import SimModel
from app.simulator.brain import Thought
from app.simulator.record import Call
from app.simulator.script import Headers, Script, Step, Wait, streamed, whole
from app.wire.codec import ClientCodec, Limits

LIMITS = Limits(body_bytes=64 * 1024 * 1024, messages=100_000, tools=10_000)
FINGERPRINT = "simulated"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a server brings out answers. `head_first`: headers go out before the first token is there. `retouch` makes
    a stream's frames, or the one body of a JSON reply, what the real server would have sent."""

    codec: ClientCodec
    stream_type: str
    head_first: bool = True
    retouch: Callable[[list[bytes], bool], list[bytes]] | None = None
    headers: Headers = ()


def terms(call: Call) -> Terms:
    """Terms for a codec that wants some; the id is the caller's, where it has one."""
    name = call.headers.get("x-request-id") or call.number
    return Terms(request_id=name, root_id=name)


def speak(manner: Manner, request: Request, start: Start, thought: Thought, model: SimModel) -> Script:
    """The whole reply, as the request asked for it."""
    events: list[Event] = [start, *thought.events, Usage(thought.tokens, details=thought.details)]
    if request.stream:
        return _stream(manner, request, events, model)
    body = manner.codec.write_reply(fold(events), request)
    if manner.retouch:
        [body] = manner.retouch([body], False)
    seconds = model.first_token + _pace(model) * max(0, thought.tokens.completion - 1)
    return (*_wait(seconds), *whole(200, body, headers=manner.headers))


def _stream(manner: Manner, request: Request, events: Iterable[Event], model: SimModel) -> Script:
    writer = manner.codec.writer(request)
    frames = [data for event in events if (data := writer.write(event))]
    frames.append(writer.end())
    if manner.retouch:
        frames = manner.retouch(frames, True)
    first = _wait(model.first_token)
    if manner.head_first:
        # The frame that says that an answer begins needs no token.
        paced: Iterable[Step] = (frames[0], *first, *_paced(frames[1:], _pace(model)))
        return streamed(manner.stream_type, paced, manner.headers)
    return (*first, *streamed(manner.stream_type, _paced(frames, _pace(model)), manner.headers))


def _pace(model: SimModel) -> float:
    return 1 / model.tokens_per_second if model.tokens_per_second else 0.0


def _wait(seconds: float) -> tuple[Wait, ...]:
    return (Wait(seconds),) if seconds else ()


def _paced(frames: list[bytes], pause: float) -> Iterator[Step]:
    for number, frame in enumerate(frames):
        if pause and number:
            yield Wait(pause)
        yield frame
