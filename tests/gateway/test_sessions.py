"""Without this a model gets the wrong conversation, or one that no provider takes, or the next turn knows nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from app.config.schema import Overrides
from app.core.caller import ANONYMOUS, Caller
from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.errors import BadReply, ContextLengthExceeded
from app.core.events import Event, Fault, Finish, Reasoning, Start, Text, ToolCall, Usage
from app.core.messages import TextPart, ThinkingPart
from app.core.money import Tokens
from app.core.plan import Candidate, Plan
from app.core.record import Served
from app.core.request import Request
from app.core.tasks import TaskOwner
from app.flags import Flags
from app.gateway.conversations import Conversations, conversation_of
from app.gateway.sessions import Conversation, Conversing
from app.sessions.sessions import MAX_BYTES, Sessions, place_of
from app.store.client import Store
from app.wire import chat
from app.wire.codec import Limits
from tests.core.nouns import card, terms
from tests.sessions.talk import Json, result, says, system, turns, user

GPU, CLAUDE = card("gpu/m"), card("claude/opus", kind="anthropic")


class House:
    """The stage on a real store, as one gateway has it."""

    def __init__(self, store: Store, on: float = 1.0, max_bytes: int = MAX_BYTES) -> None:
        clock = ManualClock()
        self.errors: list[tuple[str, BaseException]] = []
        self.tasks = TaskOwner(self._failed)
        self.sessions = Sessions(store, clock, self.tasks, self._failed, max_bytes=max_bytes)
        self.conversations = Conversations()
        self.counted: list[str] = []
        flags = Flags({"SESSIONS": on}, frozenset(), Overrides())
        self.stage = Conversing(
            self.sessions, self.conversations, lambda: flags, clock, self.counted.append, self._failed
        )

    def _failed(self, where: str, error: BaseException) -> None:
        self.errors.append((where, error))

    async def begin(self, messages: Sequence[Json], caller: Caller = ANONYMOUS, **more: Any) -> Conversation | None:
        return await self.stage(caller, asked(messages, **more))

    async def turn(
        self, messages: Sequence[Json], *answer: Event, at: Card = GPU, caller: Caller = ANONYMOUS, **more: Any
    ) -> list[Json]:
        """What the model was sent in one turn of session `s`."""
        conversation = await self.begin(messages, caller, **{"session": "s", **more})
        assert conversation is not None
        sent = conversation.sent_to(at)
        for event in answered(at, *(answer or (Text("answer"), Finish("stop")))):
            await conversation.see(event)
        return rows(sent)

    async def kept(self, caller: Caller = ANONYMOUS) -> list[Json]:
        kept = await self.sessions.load(place_of(caller, "s"))
        return [dict(each) for each in (*kept.system, *kept.messages)]


@pytest.fixture
async def house(store: Store) -> AsyncIterator[House]:
    house = House(store)
    yield house
    assert not house.errors


def asked(messages: Sequence[Json], *, body: Json | None = None, **about: Any) -> Request:
    fields = {"model": "auto", "messages": list(messages), **(body or {})}
    return chat.read_request(orjson.dumps(fields), terms(**about), Limits())


def answered(at: Card, *events: Event) -> list[Event]:
    served = Served("req-1", at.id, at.upstream, "because", 1, session="s")
    return [Start("id", at.name, 1, "chat", served=served), *events, Usage(Tokens(1, 1))]


def rows(request: Request) -> list[Json]:
    """Its messages, which are the same in both of their forms."""
    again = asked(request.body["messages"], body={name: request.body[name] for name in request.body if name != "model"})
    assert again.messages == request.messages and again.input_bytes == request.input_bytes
    return [dict(each) for each in request.body["messages"]]


async def test_without_a_session_nothing_happens(house: House) -> None:
    """Also for what another request caused: shadows and the steps of a mode are no turns."""
    assert await house.begin([user("a")]) is None
    assert await house.begin([user("a")], session="s", depth=1) is None
    request = asked([user("a")], session="s")
    object.__setattr__(request, "dialect", "messages")
    assert await house.stage(ANONYMOUS, request) is None


async def test_turn_after_turn(house: House) -> None:
    """A client that sends only its new words, one that sends all of them, and any mixture: the model gets the same."""
    for number in range(1, 6):
        words = [user(f"ask {number}")]
        sent = [*turns(number - 1), *words] if number % 2 else words
        got = await house.turn(sent, Text(f"answer {number}"), Finish("stop"))
        assert got == [*turns(number - 1), *words]
    assert await house.kept() == turns(5)
    assert house.counted == ["new", *["same"] * 4]


async def test_the_plan_sees_the_whole(house: House) -> None:
    """The abilities that the history needs, its size, and the model that answered it last."""
    image = {"type": "image_url", "image_url": {"url": "https://x/a.png"}}
    await house.turn([{"role": "user", "content": [image]}, user("x" * 400)])
    conversation = await house.begin([user("b")], session="s")
    assert conversation is not None
    request = conversation.request
    assert Ability.IMAGES in request.needs and request.input_bytes > 400 and len(request.messages) == 4
    assert house.conversations.previous(conversation_of(request, ANONYMOUS)) == "gpu/m"


async def test_instructions_stay_until_there_are_new_ones(house: House) -> None:
    assert await house.turn([system("One."), user("a")]) == [system("One."), user("a")]
    assert (await house.turn([user("b")]))[0] == system("One.")
    got = await house.turn([system("Two."), user("c")])
    assert got[0] == system("Two.") and len([each for each in got if each["role"] == "system"]) == 1
    assert (await house.kept())[0] == system("Two.")


async def test_an_edited_history_replaces_ours(house: House) -> None:
    await house.turn([user("a")])
    await house.turn([user("b")])
    edited = [user("a"), says("answer"), user("other")]
    assert await house.turn(edited) == edited
    assert await house.kept() == [*edited, says("answer")]


async def test_the_clients_own_words_are_sent_as_they_are(house: House) -> None:
    """Where its history is ours in other clothes, those clothes are the ones that the model sees."""
    await house.turn([user("a")])
    again = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {**says("answer"), "name": None}]
    assert await house.turn([*again, user("b")]) == [*again, user("b")]
    assert await house.kept() == [user("a"), says("answer"), user("b"), says("answer")]


async def test_tools(house: House) -> None:
    call = ToolCall(0, '{"path": "x"}', "c1", "read")
    await house.turn([user("a")], call, Finish("tool_calls"))
    got = await house.turn([result("c1")])
    assert got[1]["tool_calls"][0]["function"] == {"name": "read", "arguments": '{"path": "x"}'}
    assert got[1]["content"] is None and got[2] == result("c1")


async def test_calls_that_were_cut_or_never_answered_do_not_end_the_session(house: House) -> None:
    cut = ToolCall(0, '{"path": "', "c1", "read"), ToolCall(1, "{}", "c2", "read")
    await house.turn([user("a")], *cut, Finish("length"))
    [call] = (await house.kept())[1]["tool_calls"]
    assert call["id"] == "c2"
    assert await house.turn([user("b")]) == [user("a"), user("b")]
    assert len(await house.kept()) == 4, "what was said is kept all the same"


async def test_thinking_goes_back_to_its_model_alone(house: House) -> None:
    """Its signature is worth nothing elsewhere, and a model that finds its thinking missing refuses the tool's result
    or thinks again. The plan is not bound by it."""
    thought = Reasoning("hm"), Reasoning("", signature="sig")
    await house.turn([user("a")], *thought, Text("answer"), Finish("stop"), at=CLAUDE)
    block = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    for sent in ([user("b")], [user("a"), says("answer"), user("b")]):
        conversation = await house.begin(sent, session="s")
        assert conversation is not None
        assert not any(isinstance(part, ThinkingPart) for each in conversation.request.messages for part in each.parts)
        theirs = conversation.sent_to(CLAUDE)
        assert rows(theirs)[1] == {**says("answer"), "thinking_blocks": [block]}
        assert theirs.messages[1].parts == (ThinkingPart("hm", "sig"), TextPart("answer"))
        assert "thinking_blocks" not in rows(conversation.sent_to(GPU))[1]
    own = [user("a"), {**says("answer"), "reasoning_content": "mine"}, user("b")]
    assert await house.turn(own, at=CLAUDE) == own, "unless the client sends its own"


async def test_unsigned_thinking_is_kept_and_not_sent(house: House) -> None:
    await house.turn([user("a")], Reasoning("hm"), Text("answer"), Finish("stop"))
    assert (await house.kept())[1]["reasoning_content"] == "hm"
    assert await house.turn([user("b")]) == [user("a"), says("answer"), user("b")]


async def test_of_several_answers_the_first_is_kept(house: House) -> None:
    await house.turn([user("a")], Text("one"), Text("two", choice=1), Finish("stop"), Finish("stop", 1))
    assert await house.kept() == [user("a"), says("one")]


async def test_words_put_into_the_mouth_of_a_model_are_one_with_its_answer(house: House) -> None:
    await house.turn([user("a"), says("Sure, ")], Text("here."), Finish("stop"))
    assert await house.kept() == [user("a"), says("Sure, here.")]
    parts = {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}
    await house.turn([user("b"), parts], Text("."), Finish("stop"))
    assert (await house.kept())[3] == says("Yes.")
    await house.turn(await house.kept(), Text(" More."), Finish("stop"))
    assert (await house.kept())[3:] == [says("Yes. More.")]


async def test_only_finished_turns_are_kept(house: House) -> None:
    conversation = await house.begin([user("a")], session="s")
    assert conversation is not None
    for event in [*answered(GPU, Text("half"))[:-1], Fault(BadReply("broke"))]:
        await conversation.see(event)
    assert await house.kept() == [] and house.counted == []


async def test_an_answer_of_nothing_is_no_turn(house: House) -> None:
    await house.turn([user("a")], Fault(BadReply("x")))
    assert await house.kept() == []


async def test_an_answer_too_long_to_keep(store: Store) -> None:
    house = House(store, max_bytes=1_000)
    await house.turn([user("a")])
    await house.turn([user("b")], *[Text("x" * 300)] * 5, Finish("stop"))
    assert await house.kept() == [user("a"), says("answer")]


async def test_a_session_changes_its_model(house: House) -> None:
    await house.turn([user("a")])
    await house.turn([user("b")], at=CLAUDE)
    assert house.counted == ["new", "changed"]


async def test_tenants_never_meet(house: House) -> None:
    one, two = Caller("k1", tenant="acme"), Caller("k2", tenant="other")
    await house.turn([user("mine")], caller=one)
    assert await house.turn([user("b")], caller=two) == [user("b")]
    assert await house.turn([user("c")], caller=one) == [user("mine"), says("answer"), user("c")]
    assert await house.turn([user("d")]) == [user("d")]


# --- where nothing is kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "on"),
    [(Caller("k", store_content="off"), 1.0), (Caller("k", retention_days=0), 1.0), (ANONYMOUS, 0.0)],
)
async def test_nothing_is_kept_and_the_reply_says_so(store: Store, caller: Caller, on: float) -> None:
    house = House(store, on)
    conversation = await house.begin([user("a")], caller, session="s")
    assert conversation is not None and rows(conversation.request) == [user("a")]
    start, *rest = answered(GPU, Text("b"), Finish("stop"))
    for event in (start, *rest):
        await conversation.see(event)
    assert isinstance(start, Start) and start.served is not None
    assert start.ignored == ("x-tierway-session",) and start.served.session is None
    assert await house.kept(caller) == [] and house.counted == []
    assert conversation.request.terms.session == "s", "its limits still bind"


async def test_a_key_may_shorten_how_long(house: House, store: Store) -> None:
    caller = Caller("k", retention_days=1)
    await house.turn([user("a")], caller=caller)
    [key] = await store.call("KEYS", "{tierway}:session:*")
    assert await store.call("TTL", key) <= 86_400


async def test_an_error_of_ours_does_not_take_the_answer(store: Store) -> None:
    house = House(store)
    await house.turn([user("a")], Text("\ud800"), Finish("stop"))
    assert [where for where, _ in house.errors] == ["keeping a turn"]


# --- windows ----------------------------------------------------------------------------------------------------------


class Upstreams:
    """Candidates with windows, each of which refuses what is longer than it really is."""

    def __init__(self, conversation: Conversation, *cards: Card, real: int | None = None, after: int = 0) -> None:
        self.plan = Plan(tuple(Candidate(each, "x") for each in cards), "cost")
        self.conversation = conversation
        self.real = real
        self.sent: list[list[Json]] = []

    async def ask(self) -> AsyncGenerator[Event, None]:
        at = self.plan.candidates[0].card
        request = self.conversation.sent_to(at)
        self.sent.append(rows(request))
        await asyncio.sleep(0)
        if self.real is not None and request.input_bytes > self.real:
            raise ContextLengthExceeded("too long")
        for event in answered(at, Text("ok"), Finish("stop")):
            yield event

    async def answer(self) -> str | None:
        """What the reply says of the window."""
        said: list[str | None] = []
        async with contextlib.aclosing(self.conversation.walk(self.ask, self.plan)) as events:
            async for event in events:
                await self.conversation.see(event)
                if isinstance(event, Start) and event.served is not None:
                    said.append(event.served.context)
        return said[0]


LONG = [each for number in range(10) for each in (user(f"{number}" + "x" * 399), says(f"{number}" + "y" * 399))]
"""About 2,000 tokens, and 80 for the template."""


async def grown(house: House, messages: Sequence[Json] = LONG) -> None:
    """A session of all this."""
    await house.turn([*messages[:-1]], Text(messages[-1]["content"]), Finish("stop"))


async def windowed(house: House, *windows: int | None, real: int | None = None, **more: Any) -> Upstreams:
    sent = more.pop("sent", [user("new")])
    conversation = await house.begin(sent, **{"session": "s", **more})
    assert conversation is not None
    cards = [card(f"gpu/{at}", context_window=window) for at, window in enumerate(windows)]
    return Upstreams(conversation, *cards, real=real)


async def test_what_fits_somewhere_is_left_alone(house: House) -> None:
    """A larger window comes before a shorter conversation."""
    await grown(house)
    upstreams = await windowed(house, 1_000, 4_000)
    assert await upstreams.answer() is None and upstreams.sent == [[*LONG, user("new")]]


async def test_what_fits_nowhere_is_shortened_and_stays_so(house: House) -> None:
    """To three quarters; and the next turns begin as this one did, so that the prefix cache holds. Nothing is lost."""
    await grown(house, [system(), *LONG])
    upstreams = await windowed(house, 1_000)
    assert await upstreams.answer() == "shortened; dropped=14"
    assert upstreams.sent == [[system(), *LONG[14:], user("new")]]
    later = await windowed(house, 1_000, sent=[user("newer")])
    assert await later.answer() == "shortened; dropped=14"
    assert later.sent == [[*upstreams.sent[0], says("ok"), user("newer")]]
    assert len(await house.kept()) == 1 + len(LONG) + 4
    own = await windowed(house, 9_000, sent=[*LONG, user("new"), says("ok"), user("other")])
    assert await own.answer() is None and len(own.sent[0]) == 24, "a client may still send all of it"


async def test_a_refusal_is_believed(house: House) -> None:
    """Texts of many tokens are longer than they look; a session must not end because of that. Known windows or not."""
    for window in (4_000, None):
        await house.sessions.delete(place_of(ANONYMOUS, "s"))
        await grown(house)
        upstreams = await windowed(house, window, real=2_500)
        said = await upstreams.answer()
        assert said is not None and said.startswith("shortened; dropped=")
        lengths = [len(each) for each in upstreams.sent]
        assert lengths == sorted(set(lengths), reverse=True) and lengths[0] == 21 and len(lengths) <= 4


async def test_what_the_client_sent_is_not_shortened_unasked(house: House) -> None:
    upstreams = await windowed(house, 1_000, real=2_500, sent=[*LONG, user("new")])
    with pytest.raises(ContextLengthExceeded):
        await upstreams.answer()
    assert upstreams.sent == [[*LONG, user("new")]]


@pytest.mark.parametrize("session", ["s", None])
async def test_what_the_client_sent_is_shortened_where_it_asks_for_that(house: House, session: str | None) -> None:
    """Also without a session. What is kept is still the whole."""
    sent = [system(), *LONG, user("new")]
    upstreams = await windowed(house, 1_000, real=3_000, sent=sent, truncate=True, session=session)
    assert await upstreams.answer() == "shortened; dropped=14"
    assert upstreams.sent == [[system(), *LONG[14:], user("new")]]
    assert len(await house.kept()) == (23 if session else 0)


async def test_nothing_left_to_leave_out(house: House) -> None:
    await grown(house)
    upstreams = await windowed(house, 1_000, real=2)
    with pytest.raises(ContextLengthExceeded):
        await upstreams.answer()
    assert len(upstreams.sent[-1]) == 1 and len(upstreams.sent) < 5


async def test_a_refusal_before_anything_was_sent(house: House) -> None:
    """What keeps a request from all candidates is not a window."""
    conversation = await house.begin([user("a")], session="s")
    assert conversation is not None

    async def ask() -> AsyncGenerator[Event, None]:
        for event in list[Event]():
            yield event
        raise ContextLengthExceeded("too long")

    with pytest.raises(ContextLengthExceeded):
        await anext(conversation.walk(ask, Plan((Candidate(GPU, "x"),), "cost")))


async def test_a_loss_is_said(store: Store) -> None:
    """A session that outgrew its bytes forgets its oldest turns, and each reply says how many."""
    house = House(store, max_bytes=1_000)
    for _ in range(20):
        await house.turn([user("a" * 50)], Text("b" * 50), Finish("stop"))
    kept = len(await house.kept())
    upstreams = await windowed(house, None)
    assert await upstreams.answer() == f"shortened; dropped={40 - kept}"


@pytest.mark.timeout(300)  # every allocation is traced
async def test_a_hundred_sessions_leave_memory_flat(house: House) -> None:
    """Of twenty turns each, nothing stays in the gateway but who answered last."""
    traced = []
    tracemalloc.start()
    try:
        for turn in range(20):
            for number in range(100):
                await house.turn([user(f"{turn} " + "x" * 2_000)], session=f"s{number}")
            gc.collect()
            traced.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    said = 100 * 10 * 2_000  # in the second half alone
    assert traced[-1] - traced[9] < said / 20, traced
