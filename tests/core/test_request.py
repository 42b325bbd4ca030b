"""What a caller wants, as a value that no later step can change."""

from __future__ import annotations

from dataclasses import replace

from app.core.card import Ability
from app.core.clock import ManualClock
from app.core.request import Request, Terms
from app.core.steps import Steps
from tests.core.nouns import chat, embedding, terms


def test_a_request_goes_by_the_id_of_its_terms() -> None:
    """The id is what a user finds an answer by, in headers, logs and upstreams."""
    own = Terms("req-7", "req-1", parent_id="req-1", depth=1)
    assert chat(terms=own).id == "req-7"
    assert embedding(terms=own).id == "req-7"


def test_the_least_a_request_needs_is_a_model_of_its_kind() -> None:
    """A chat must never be planned on an embedder, nor the other way round."""
    plain = Request("auto", (), Terms("a", "a"), "chat", {})
    assert plain.needs == {Ability.CHAT}
    assert embedding().needs == {Ability.EMBEDDINGS}


def test_defaults_are_what_openai_means_by_nothing_said() -> None:
    plain = chat()
    assert (plain.n, plain.stream, plain.max_tokens, plain.logprobs) == (1, False, None, None)
    assert plain.hints == {}
    assert plain.hints is not chat().hints


def test_a_request_held_to_a_limit_is_otherwise_the_same() -> None:
    """Else a budget would change what is asked, not only how long the answer may be."""
    asked = chat(model="m", stream=True, n=2, effort="low", input_bytes=7, extra={"a": 1}, stop=("b",))
    held = asked.held_to(5)
    assert held.max_tokens == 5
    assert held == replace(asked, max_tokens=5) != asked


def test_an_upstream_is_told_its_place_in_the_trace() -> None:
    """Of a request that is traced, that of the attempt; else that of the request, where it has one."""
    assert terms().trace_headers == {}
    assert terms(trace_parent="00-1-2-00").trace_headers == {"traceparent": "00-1-2-00"}
    steps = Steps("a" * 32, None, ManualClock())
    steps.attempt()
    traced = terms(trace_parent="00-1-2-01", trace_state="vendor=a1", steps=steps)
    assert traced.trace_headers == {"traceparent": steps.header, "tracestate": "vendor=a1"}
