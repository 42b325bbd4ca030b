"""The conversation of a request: what is kept of it is put before what was sent, and the turn is kept when it is over.

A stage of the gateway. It also shortens what no window holds: what the gateway keeps by itself, what the caller sent
only where the caller asked for that. Thinking that a model signed goes back to that model alone. What was asked for and
cannot be (the feature is off, the key keeps nothing) is named to the caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from app.core.caller import Caller
from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import ContextLengthExceeded
from app.core.events import Choice, Event, Fold, Reasoning, Start, Text, ToolCall, Usage
from app.core.messages import Message, ThinkingPart
from app.core.plan import Plan
from app.core.request import Request
from app.core.tasks import ErrorHandler
from app.flags import Flags
from app.gateway.conversations import Conversations, conversation_of
from app.gateway.deciding import decided_flags
from app.routing.estimates import size_of
from app.routing.rollouts import treated_in
from app.sessions.joining import ASSISTANT, Joined, Json, joined, paired, split
from app.sessions.said import NOTHING, Kept, Said, said
from app.sessions.sessions import Sessions, Turn, place_of
from app.sessions.window import room_of, staying, tokens_of
from app.wire.chat.messages import read_messages
from app.wire.chat.objects import write_message
from app.wire.chat.request import needs_of, text_size
from app.wire.fields import parse

HEADER: Final = "x-tierway-session"
THINKING: Final = ("reasoning_content", "reasoning", "thinking_blocks")
SQUEEZES: Final = 4  # how often a conversation is made shorter, each time to half of before
NEW, SAME, CHANGED = "new", "same", "changed"

Ask = Callable[[], AsyncGenerator[Event, None]]


class Entry(NamedTuple):
    """One message as it is sent. `at` is its place among the kept ones, where it is one; `signed` the same with the
    thinking that only the model `by` may have back."""

    message: Json
    at: int | None = None
    by: str | None = None
    signed: Json | None = None


class Conversing:
    """Made once; called once per request. `turns` counts kept turns by whether they stayed with their model."""

    def __init__(
        self,
        sessions: Sessions,
        conversations: Conversations,
        flags: Callable[[], Flags],
        clock: Clock,
        turns: Callable[[str], None],
        on_error: ErrorHandler,
    ) -> None:
        self.sessions = sessions
        self.clock = clock
        self.turns = turns
        self.on_error = on_error
        self._conversations = conversations
        self._flags = flags

    async def __call__(self, caller: Caller, request: Request) -> Conversation | None:
        """The conversation that the request belongs to; None where there is nothing to keep and nothing to shorten.
        Raises `StoreUnavailable`: without what was said before, an answer would be to something else."""
        terms = request.terms
        if terms.depth or request.dialect != "chat" or (terms.session is None and not terms.truncate):
            return None
        if terms.session is None or not self._keeps(caller, request):
            return Conversation(self, caller, request, None, NOTHING)
        place = place_of(caller, terms.session)
        kept = await self.sessions.load(place)
        if kept.model is not None:
            self._conversations.answered(conversation_of(request, caller), kept.model, kept.rollout)
        return Conversation(self, caller, request, place, kept)

    def _keeps(self, caller: Caller, request: Request) -> bool:
        allowed = caller.store_content != "off" and caller.retention_days != 0
        return allowed and decided_flags(self._flags, request, caller)["SESSIONS"]


class Conversation:
    """One turn. `request` is the whole of it, for planning; `sent_to` what one candidate gets."""

    def __init__(self, stage: Conversing, caller: Caller, request: Request, place: str | None, kept: Kept) -> None:
        self._stage = stage
        self._caller = caller
        self._place = place
        self._kept = kept
        system, self._sent = split(request.body.get("messages", ()))
        self._system = system or list(kept.system)
        self._joined = joined(kept.messages, self._sent)
        before = _before(kept, self._joined, self._sent)
        entries = [*map(Entry, self._system), *before, *_again(kept, self._joined, self._sent)]
        first = len(self._system) + len(before)
        self._entries = entries
        self._own = len(entries) if request.terms.truncate else first
        self.request = request if place is None else _restated(request, [each.message for each in entries])
        self._squeezed = 0
        self._arm: str | None = None
        self._card: Card | None = None
        self._stay: Sequence[int] = range(len(entries))
        self._fold = Fold()
        self._room = stage.sessions.max_bytes

    # --- what a candidate gets ----------------------------------------------------------------------------------------

    async def walk(self, ask: Ask, plan: Plan) -> AsyncGenerator[Event, None]:
        """The answer, asked for again with less where every window was too small for all of it. Where that is plain
        from the beginning, it is shortened at once."""
        self._arm = plan.arm
        needed = size_of(self.request).needed
        windows = [candidate.card.context_window for candidate in plan.candidates]
        self._squeezed = int(all(window is not None and window < needed for window in windows))
        while True:
            try:
                async with contextlib.aclosing(ask()) as events:
                    async for event in events:
                        yield event
                return
            except ContextLengthExceeded:
                if not self._shorter():
                    raise

    def sent_to(self, card: Card) -> Request:
        """The conversation as this model should get it."""
        self._card = card
        self._stay = self._staying(card) if self._squeezed else range(len(self._entries))
        chosen = [self._entries[at] for at in self._stay]
        signed = [each.signed is not None and each.by == card.id for each in chosen]
        if len(chosen) == len(self._entries) and not any(signed):
            return self.request
        messages = [self.request.messages[at] for at in self._stay]
        rows = [each.message for each in chosen]
        for index, (each, whole) in enumerate(zip(chosen, signed, strict=True)):
            if whole and each.signed is not None:
                rows[index], messages[index] = each.signed, _thoughtful(messages[index], each.signed)
        return _with(self.request, rows, tuple(messages))

    def _shorter(self) -> bool:
        """Whether less can be sent than was."""
        while self._squeezed < SQUEEZES and self._card is not None:
            self._squeezed += 1
            if len(self._staying(self._card)) < len(self._stay):
                return True
        return False

    def _staying(self, card: Card) -> list[int]:
        messages = self.request.messages
        sizes = [tokens_of(message) for message in messages]
        needed = size_of(self.request).needed
        reserve = needed - min(needed, sum(sizes))
        room = room_of(min(card.context_window or needed, needed), reserve)
        roles = [message.role for message in messages]
        return staying(roles, sizes, int(room * 0.5 ** (self._squeezed - 1)), self._own)

    # --- what is told and kept ----------------------------------------------------------------------------------------

    async def see(self, event: Event) -> None:
        """Every event of the answer, before the caller gets it. The last one waits until the turn is kept: an answer
        that the caller knows to be over is in the store."""
        match event:
            case Start():
                self._tell(event)
            case Usage():
                await self._keep()
                return
            case Text(text=piece) | Reasoning(text=piece) | ToolCall(arguments=piece):
                self._room -= len(piece)
        if self._place is not None and self._room >= 0 and not getattr(event, "choice", 0):
            self._fold.add(event)

    def _tell(self, start: Start) -> None:
        if (missing := self._missing()) and start.served is not None:
            start.served.context = f"shortened; dropped={missing}"
        if self._place is None and self.request.terms.session is not None:
            start.ignored = (*start.ignored, HEADER)
            if start.served is not None:
                start.served.session = None

    def _missing(self) -> int:
        """How many messages of the conversation this answer knows nothing of."""
        squeezed = len(self._entries) - len(self._stay)
        if not self._joined.base and self._kept.said:
            return squeezed
        return squeezed + self._kept.dropped + sum(at < self._joined.base for at in self._kept.hidden)

    async def _keep(self) -> None:
        served = self._fold.start.served if self._fold.start is not None else None
        if self._place is None or served is None or self._room < 0:
            return
        try:
            choices = self._fold.answer().choices
            if choices:
                await self._stage.sessions.keep(self._place, self._kept, self._turn(choices[0], served.model))
                self._stage.turns(_affinity(self._kept.model, served.model))
        except Exception as error:  # noqa: BLE001 - what is kept is not worth an answer
            self._stage.on_error("keeping a turn", error)

    def _turn(self, choice: Choice, model: str) -> Turn:
        now, (base, same) = self._stage.clock.now(), self._joined
        answer, sent = _answer(choice), self._sent
        if sent and sent[-1].get("role") == ASSISTANT:  # which this answer went on from
            answer, sent = _continued(sent[-1], answer), sent[:-1]
        stays = base + min(same, len(sent))
        gone = set(range(len(self._entries))) - set(self._stay)
        hidden = {at for index in gone if (at := self._entries[index].at) is not None}
        return Turn(
            stays=stays,
            said=(*(said(each, None, now) for each in sent[stays - base :]), said(answer, model, now)),
            system=tuple(self._system),
            model=model,
            hidden=self._kept.hidden | hidden,
            days=self._caller.retention_days,
            rollout=treated_in(self._arm),
        )


# --- what is sent -----------------------------------------------------------------------------------------------------


def _before(kept: Kept, place: Joined, sent: Sequence[Json]) -> list[Entry]:
    """The kept messages that stand before what was sent."""
    ats = [at for at in range(place.base) if at not in kept.hidden]
    ours = [_plain(kept.said[at]) for at in ats]
    whole = paired([*ours, *sent], len(ours))
    found = []
    for at, message in zip(ats, whole, strict=False):
        if message is not None:
            found.append(_entry(message, at, kept.said[at]))
    return found


def _again(kept: Kept, place: Joined, sent: Sequence[Json]) -> list[Entry]:
    """What was sent, in the caller's own words; thinking that it left out is remembered."""
    known = kept.said[place.base : place.base + place.same]
    entries = []
    for index, message in enumerate(sent):
        silent = index < len(known) and not any(message.get(name) for name in THINKING)
        entries.append(_entry(message, None, known[index]) if silent else Entry(message))
    return entries


def _entry(message: Json, at: int | None, known: Said) -> Entry:
    blocks = known.message.get("thinking_blocks")
    return Entry(message, at, known.by, {**message, "thinking_blocks": blocks} if blocks and known.by else None)


def _plain(one: Said) -> Json:
    """Without the thinking of a model, which is for no other."""
    if one.by is None or not any(name in one.message for name in THINKING):
        return one.message
    return {name: value for name, value in one.message.items() if name not in THINKING}


def _thoughtful(message: Message, signed: Json) -> Message:
    [whole] = read_messages({"messages": [signed]}, 1)
    thoughts = tuple(part for part in whole.parts if isinstance(part, ThinkingPart))
    return replace(message, parts=(*thoughts, *message.parts))


def _restated(request: Request, rows: list[Json]) -> Request:
    messages = read_messages({"messages": rows}, len(rows))
    needs = request.needs | needs_of(messages, request.tools, request.tool_choice, request.format)
    return replace(_with(request, rows, messages), needs=needs)


def _with(request: Request, rows: list[Json], messages: tuple[Message, ...]) -> Request:
    size = text_size(messages, request.tools, request.format)
    return replace(request, messages=messages, body={**request.body, "messages": rows}, input_bytes=size)


# --- what is kept -----------------------------------------------------------------------------------------------------


def _answer(choice: Choice) -> dict[str, Any]:
    """The answer as a message; of a call that was cut nothing, since nobody could answer it."""
    if choice.finish == "length":
        choice = replace(choice, calls=[call for call in choice.calls if call.custom or _whole(call.arguments)])
    message = write_message(choice)
    return {name: value for name, value in message.items() if value is not None or name == "content"}


def _whole(arguments: str) -> bool:
    try:
        parse(arguments.encode())
    except ValueError:
        return False
    return True


def _continued(begun: Json, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer together with the words that the caller had put into the model's mouth."""
    first = begun.get("content")
    if isinstance(first, list):
        first = "".join(part.get("text", "") for part in first)
    return {**answer, "content": f"{first or ''}{answer.get('content') or ''}"}


def _affinity(before: str | None, now: str) -> str:
    if before is None:
        return NEW
    return SAME if before == now else CHANGED
