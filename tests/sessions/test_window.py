"""What is cut wrongly is refused by every provider, or answered without what the user asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.messages import (
    MediaPart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolUsePart,
)
from app.sessions.window import SHARE, fit, room_of, staying, tokens_of

TEN = "x" * 24  # with the template's 4: ten tokens


def message(role: str, *parts: Part) -> Message:
    return Message(role, parts or (TextPart(TEN),))


def call(call_id: str = "c") -> Message:
    return message("assistant", ToolUsePart(call_id, "read", "y" * 20))


def result(call_id: str = "c") -> Message:
    return message("tool", ToolResultPart(call_id, (TextPart(TEN),)))


SYSTEM, USER, SAYS = message("system"), message("user"), message("assistant")
TALK = (SYSTEM, USER, SAYS, USER, SAYS, USER, SAYS, USER)


def test_what_fits_is_left_alone() -> None:
    assert fit(TALK, 80) == TALK and fit(TALK, 90, reserve=10) == TALK


def test_the_oldest_turns_go_first_to_three_quarters() -> None:
    assert fit(TALK, 79) == (SYSTEM, USER, SAYS, USER), "room for 59"
    assert fit(TALK, 85, reserve=10) == (SYSTEM, USER, SAYS, USER, SAYS, USER), "room for 63"
    assert fit(TALK, 79, reserve=40) == (SYSTEM, USER), "room for 39"


def test_the_beginning_stays_the_same_for_some_turns() -> None:
    """Else the upstream's prefix cache is of no use from the first cut on."""
    talk = [SYSTEM, *(USER, SAYS) * 40]
    kept = list(fit(talk, 400))
    for _ in range(4):
        assert list(fit([*kept, USER, SAYS], 400)) == [*kept, USER, SAYS]
        kept += [USER, SAYS]


def test_the_last_words_stay_whatever_they_take() -> None:
    long = message("user", TextPart("x" * 4_000))
    assert fit((*TALK, SAYS, long), 100) == (SYSTEM, long)


def test_a_long_loop_loses_its_oldest_exchanges_and_keeps_the_ask() -> None:
    ask = message("user", TextPart("mend it"))
    talk = [SYSTEM, USER, SAYS, ask, *(call(), result()) * 10]
    kept = fit(talk, 100)
    assert kept[:2] == (SYSTEM, ask) and kept[-2:] == (call(), result()) and len(kept) < 10


def test_what_is_the_callers_own_stays() -> None:
    assert fit(TALK, 50, own=3) == (SYSTEM, *TALK[3:])
    assert fit(TALK, 50, own=1) == TALK


def test_the_room_is_never_negative() -> None:
    assert room_of(100, 10) == 75 and room_of(100, 90) == 10 and room_of(100, 200) == 0


def test_every_part_has_a_size() -> None:
    assert tokens_of(message("user", MediaPart("image", url="https://x"))) > 1_000
    assert tokens_of(message("tool", ToolResultPart("c", (MediaPart("image", data="x"), TextPart(TEN))))) > 1_000
    assert tokens_of(message("assistant", ThinkingPart(TEN), RefusalPart(TEN))) == 16
    assert tokens_of(message("user", TextPart("\ud800"))) == 5


ROLES = st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), max_size=24)


@given(ROLES, st.data())
def test_what_stays(roles: list[str], data: st.DataObject) -> None:
    """Instructions, the last ask, the caller's own and the end stay; order too; results stay with what they answer;
    nothing goes that did not have to."""
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=len(roles), max_size=len(roles)))
    room, own = data.draw(st.integers(0, 150)), data.draw(st.integers(0, len(roles)))
    stays = staying(roles, sizes, room, own)
    assert stays == sorted(set(stays))
    gone = set(range(len(roles))) - set(stays)
    assert not gone if sum(sizes) <= room else True
    assert not any(at >= own for at in gone)
    assert not any(roles[at] == "system" for at in gone if at == 0 or roles[at] != "tool")
    users = [at for at, role in enumerate(roles) if role == "user"]
    assert not users or users[-1] in stays
    for at in range(1, len(roles)):
        if roles[at] == "tool":
            assert (at in gone) == (at - 1 in gone), "a result without its call, or a call without its result"
    if roles:
        assert len(roles) - 1 in stays
    assert sum(sizes[at] for at in stays) <= room or staying(roles, sizes, 0, own) == stays


@given(st.integers(1, 12), st.integers(0, 200))
def test_turns_go_whole(count: int, room: int) -> None:
    roles = ["user", "assistant", "tool", "assistant"] * count
    stays = staying(roles, [5] * len(roles), room)
    assert roles[stays[0]] == "user"
    assert SHARE == 0.75
