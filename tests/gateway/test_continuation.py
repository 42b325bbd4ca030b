"""The model that goes on must see what was said as its own, and be told to go on where it does not by itself."""

from __future__ import annotations

from app.core.card import Ability
from app.core.money import Tokens
from app.core.plan import Candidate
from app.core.request import Request
from app.gateway.continuation import GO_ON, Continuation
from tests.core.nouns import card, chat, embedding
from tests.gateway.talks import user

BEGAN = Candidate(card("gpu/a"), "first")
REQUEST = chat(messages=(user("Hi"),), body={"messages": [{"role": "user", "content": "Hi"}]}, input_bytes=2)


def after(said: str = "Hello wor") -> Continuation:
    return Continuation(said, ("gpu/a",), 1.0, Tokens(10, 5), BEGAN, None)


def asked(request: Request, *abilities: Ability, said: str = "Hello wor") -> Request:
    made = after(said).asked_of(request, card("gpu/b", abilities=frozenset({Ability.CHAT, *abilities})))
    assert isinstance(made, Request)
    return made


def test_a_model_that_takes_the_beginning_gets_it_as_its_own_last_words() -> None:
    made = asked(REQUEST, Ability.PREFILL)
    assert [(one.role, one.text) for one in made.messages] == [("user", "Hi"), ("assistant", "Hello wor")]
    assert made.body["messages"][1:] == [{"role": "assistant", "content": "Hello wor"}]
    assert made.input_bytes == 2 + len("Hello wor"), "what it may cost counts what is sent"


def test_any_other_is_told_to_go_on() -> None:
    made = asked(REQUEST)
    assert [one.role for one in made.messages] == ["user", "assistant", "user"]
    assert made.body["messages"][-1] == {"role": "user", "content": GO_ON} and made.messages[-1].text == GO_ON
    assert REQUEST.body["messages"] == [{"role": "user", "content": "Hi"}], "the caller's body is as it was"


def test_the_rest_may_be_as_long_as_what_is_left() -> None:
    """What the caller set as the most counts for the whole answer."""
    assert asked(chat(max_tokens=100, body={})).max_tokens == 95
    assert asked(chat(max_tokens=3, body={})).max_tokens == 1
    assert asked(chat(body={})).max_tokens is None


def test_where_nothing_was_said_the_answer_just_begins_again() -> None:
    assert asked(REQUEST, said="") is REQUEST
    texts = embedding()
    assert after().asked_of(texts, card("gpu/b")) is texts


def test_another_server_goes_first() -> None:
    """It breaks more often than a model does."""
    names = ("gpu/a", "gpu/b", "claude/c")
    plan = [Candidate(card(name), "it can") for name in names]
    assert [each.card.id for each in after().left(plan)] == ["claude/c", "gpu/b"]
