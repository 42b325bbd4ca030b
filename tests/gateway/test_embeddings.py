"""Embeddings are billed by what was read: the upstream's count where there is one, else an estimate that says so."""

from __future__ import annotations

import pytest

from app.core.errors import Broken
from app.core.events import Usage
from app.core.money import Tokens
from app.core.request import Embeddings
from app.gateway.embeddings import after, commits, replies, usage_of
from tests.core.nouns import card, embedding
from tests.gateway.fakes import FakeUpstream

REPLY = Embeddings(((0.5,),), "m", None)


async def test_the_reply_is_a_stream_of_one() -> None:
    upstream, request = FakeUpstream(embeddings=lambda: REPLY), embedding()
    assert [each async for each in replies(upstream, request, card("gpu/m"))] == [REPLY]
    assert upstream.asked == [request]
    assert commits(REPLY)


def test_an_upstreams_count_is_taken_as_it_is() -> None:
    assert usage_of(Embeddings((), "m", 7), embedding()) == Usage(Tokens(prompt=7))
    assert usage_of(Embeddings((), "m", 0), embedding()) == Usage(Tokens(prompt=0)), "nothing is a count too"


@pytest.mark.parametrize(
    ("inputs", "tokens"), [(("a" * 8, "b" * 5), 4), (("模型会选择",), 4), (((1, 2, 3, 4), (5,)), 5), (("\ud800",), 1)]
)
def test_what_nobody_counted_is_estimated_and_marked(inputs: tuple[str, ...], tokens: int) -> None:
    assert usage_of(REPLY, embedding("auto", inputs)) == Usage(Tokens(prompt=tokens), estimated=True)


def test_nothing_comes_after_a_whole_reply() -> None:
    with pytest.raises(AssertionError):
        after(Broken("reset"))
