"""Without this memory every turn of a conversation may go to another model, which reads all of it again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.caller import ANONYMOUS, Caller
from app.core.messages import Message
from app.core.request import Request
from app.gateway.conversations import Conversations, conversation_of, goes_on, history_tokens, is_bound
from tests.core.nouns import chat, terms
from tests.gateway.talks import CALL, LOOP, RESULT, SECOND_TURN, assistant, system, thought, user


def talk(*messages: Message, **own: Any) -> Request:
    return chat(messages=messages, terms=terms(**own), input_bytes=400)


def key(*messages: Message, caller: Caller = ANONYMOUS, **own: Any) -> bytes:
    found = conversation_of(talk(*messages, **own), caller)
    assert found is not None
    return found


# --- which conversation it is ---------------------------------------------------------------------------------------


def test_every_turn_of_a_conversation_has_the_same_key() -> None:
    """Also when an agent writes the time into its system prompt."""
    turns = [
        (system("It is noon."), user("Hello.")),
        (system("It is one."), *SECOND_TURN),
        (system("It is two."), *SECOND_TURN, CALL, RESULT),
    ]
    assert len({key(*turn) for turn in turns}) == 1


def test_other_callers_agents_and_openings_have_keys_of_their_own() -> None:
    """One tenant's conversation must not say where another's goes."""
    keys = [
        key(user("Hello.")),
        key(user("Hello!")),
        key(user("Hello."), agent="qe"),
        key(user("Hello."), caller=Caller(key_id="k1")),
        key(user("Hello."), session="s"),
        key(user("Hello."), session="s", caller=Caller(key_id="k1")),
        key(user("Hello."), session="t"),
        key(user("x" * 3_000)),
        key(user("x" * 4_000)),
    ]
    assert len(set(keys)) == len(keys)


def test_a_session_is_one_conversation_whatever_is_said_in_it() -> None:
    assert key(user("Hello."), session="s") == key(user("Something else."), session="s") == key(session="s")


def test_without_any_words_of_a_user_it_is_no_conversation() -> None:
    assert conversation_of(talk(system(), assistant()), ANONYMOUS) is None
    assert conversation_of(talk(), ANONYMOUS) is None


@given(st.text(min_size=1))
def test_any_text_has_a_key(text: str) -> None:
    """A lone surrogate in a prompt must not end in an error of ours."""
    assert len(key(user(text + "\ud800"))) == 16


# --- who answered it ------------------------------------------------------------------------------------------------


def test_the_model_that_answered_last_is_remembered() -> None:
    served = Conversations()
    assert served.previous(b"a") is None
    served.answered(b"a", "gpu/qwen")
    served.answered(b"a", "claude/opus")
    assert (served.previous(b"a"), served.previous(b"b")) == ("claude/opus", None)


def test_what_a_rollout_chose_goes_with_the_rollout() -> None:
    """Else a canary that was rolled back would keep every conversation that it ever had."""
    served = Conversations()
    served.answered(b"a", "gpu/new", "canary")
    assert served.previous(b"a", "canary") == "gpu/new"
    assert served.previous(b"a") is None and served.previous(b"a", "other") is None
    assert served.previous(b"a", stays=True) == "gpu/new", "not in the middle of a tool loop"


def test_what_is_no_conversation_is_not_remembered() -> None:
    """Else all of those would be one."""
    served = Conversations()
    served.answered(None, "gpu/qwen")
    assert served.previous(None) is None


def test_the_memory_has_a_bound_and_forgets_who_was_silent_longest() -> None:
    served = Conversations(remembered=2)
    for name in (b"a", b"b", b"a", b"c"):
        served.answered(name, "gpu/qwen")
    assert [served.previous(name) for name in (b"a", b"b", b"c")] == ["gpu/qwen", None, "gpu/qwen"]


# --- what its history says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "on", "tokens"),
    [((), False, 0), ((user("Hi"),), False, 0), (SECOND_TURN, True, 100), (LOOP, True, 100)],
)
def test_a_conversation_goes_on_once_something_was_answered(
    messages: tuple[Message, ...], on: bool, tokens: int
) -> None:
    assert goes_on(talk(*messages)) is on
    assert history_tokens(talk(*messages)) == tokens


@pytest.mark.parametrize(
    ("message", "bound"),
    [(thought(), True), (thought(None, "opaque"), True), (thought(None), False), (assistant(), False)],
)
def test_signed_thinking_binds_a_conversation_to_who_signed(message: Message, bound: bool) -> None:
    """Another model would refuse the whole request."""
    assert is_bound(talk(user("Hi"), message, user("Go on"))) is bound
