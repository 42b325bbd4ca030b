"""The bound of a prompt: too low and a budget is passed, refused without need and a user is sent away."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Card
from app.core.errors import Again, Unbounded
from app.core.request import Request
from app.spend.families import family_of
from app.spend.prompts import cached_for, prompt_tokens, refuse_unbilled
from tests.spend.bounds_cases import GPT, OTHER, PDF, SOUND, ask, ask_claude, card, file, image, tool

CLAUDE = card()


def tokens(request: Request, model: Card = CLAUDE, *, strict: bool = True) -> int:
    return prompt_tokens(request, model, family_of(model), strict=strict)


@given(st.text(max_size=200), st.text(max_size=50))
def test_every_byte_of_text_counts(said: str, name: str) -> None:
    """As much for names of speakers, and in every role."""
    least = len(said.encode())
    assert tokens(ask(said)) >= tokens(ask("")) + least
    talk = [
        {"role": "system", "content": said},
        {"role": "user", "content": said, "name": name},
        {"role": "assistant", "content": said, "refusal": said, "reasoning_content": said},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": said}}]},
        {"role": "tool", "tool_call_id": "c", "content": said},
    ]
    assert tokens(ask(messages=talk), GPT) >= 7 * least + len(name.encode())


def test_characters_that_a_tokenizer_takes_apart_count_as_what_they_become() -> None:
    assert tokens(ask("\ufdfa" * 1_000)) - tokens(ask("")) == 33_000


def test_tools_and_schemas_count_with_what_explains_them() -> None:
    bare, with_tool = tokens(ask()), tokens(ask(tools=[tool(properties={"x" * 100: {}})]))
    assert with_tool > bare + 1_024 + 2 * 100
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "title": "t" * 100}}}
    assert tokens(ask(response_format=form)) > bare + 2 * 100
    assert tokens(ask(response_format={"type": "json_object"})) > bare
    grammar = {"type": "custom", "custom": {"name": "g", "format": {"type": "grammar", "definition": "d" * 500}}}
    assert tokens(ask(tools=[grammar]), GPT) > tokens(ask(tools=[tool()]), GPT) + 500


def test_redacted_and_signed_thinking_counts() -> None:
    blocks = [
        {"type": "thinking", "thinking": "t", "signature": "s" * 100},
        {"type": "redacted_thinking", "data": "d" * 100},
    ]
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking_blocks": blocks}]
    assert tokens(ask(messages=talk)) > 200


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "https://example.com/a.png"])
def test_an_image_counts_as_the_largest_wherever_it_is(url: str) -> None:
    """What stands behind an address nobody knows beforehand."""
    assert tokens(ask("", image(url))) - tokens(ask("")) >= 4_840
    assert tokens(ask("", image(url)), GPT) - tokens(ask(""), GPT) >= 24_600


def test_documents() -> None:
    """Text by its bytes; a PDF fills the window at most, as more is refused."""
    data = base64.b64encode(b"word " * 100).decode()
    text = file(filename="a.txt", file_data=f"data:text/plain;base64,{data}")
    assert 500 <= tokens(ask(text)) - tokens(ask("")) < 600
    assert tokens(ask(PDF)) == 1_000_000
    assert tokens(ask(PDF), card("claude-haiku-4-5")) == 200_000
    broken = file(filename="a.txt", file_data="data:text/plain;base64,A" + "B" * 100)
    assert tokens(ask(broken)) > 100


def test_a_prompt_beyond_the_window_is_never_billed() -> None:
    assert tokens(ask("a" * 300_000), card("claude-haiku-4-5")) == 200_000
    assert tokens(ask("a" * 300_000), OTHER) > 300_000


@pytest.mark.parametrize(("part", "model"), [(PDF, GPT), (SOUND, GPT), (image(), OTHER), (SOUND, OTHER)])
def test_what_has_no_bound_is_refused_by_name_and_guessed_where_that_is_allowed(part: Any, model: Card) -> None:
    with pytest.raises(Unbounded, match="budget") as caught:
        tokens(ask(part), model)
    assert caught.value.param == "messages[0]" and caught.value.again is Again.NEXT and caught.value.status == 400
    assert tokens(ask(part), model, strict=False) > tokens(ask(""), model)


def test_a_document_known_by_its_id_alone_is_guessed_generously() -> None:
    assert tokens(ask(file(file_id="file-1")), GPT, strict=False) > 100_000


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"service_tier": "priority"}, "service_tier"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"models": ["dearer"]}, "models"),
        ({"messages": [{"role": "assistant", "content": "a", "audio": {"id": "a"}}]}, "messages[0].audio"),
    ],
)
def test_what_is_billed_otherwise_is_refused(fields: dict[str, Any], param: str) -> None:
    """A search by the call, a dearer tier, tokens beyond max_tokens: the budget would not see them coming."""
    with pytest.raises(Unbounded) as caught:
        refuse_unbilled(ask(**fields), GPT)
    assert caught.value.param == param
    refuse_unbilled(ask(**fields), CLAUDE)  # none of this reaches a model of another dialect


def test_models_that_search_by_themselves_are_refused() -> None:
    with pytest.raises(Unbounded):
        refuse_unbilled(ask(), card("gpt-4o-search-preview", "openai"))


def test_ordinary_fields_are_not_refused() -> None:
    fields = {
        "service_tier": "auto",
        "top_k": 3,
        "chat_template_kwargs": {"a": 1},
        "seed": 1,
        "user": "u",
        "logprobs": True,
    }
    refuse_unbilled(ask(**fields), GPT)
    refuse_unbilled(ask(foo=1), card("m", "vllm", quirks={"drop": {"foo"}}))
    refuse_unbilled(ask(foo=1), card("m", "openai", quirks={"allow": {"seed"}}))
    assert tokens(ask(chat_template_kwargs={"a": "x" * 100}), GPT) > tokens(ask(), GPT) + 100


@pytest.mark.parametrize("name", ["mcp_servers", "container", "inference_geo", "speed", "context_management"])
def test_native_fields_that_change_the_bill_are_refused(name: str) -> None:
    with pytest.raises(Unbounded) as caught:
        refuse_unbilled(ask_claude(**{name: "x"}), CLAUDE)
    assert caught.value.param == name
    refuse_unbilled(ask_claude(cache_control={"type": "ephemeral"}, service_tier="auto"), CLAUDE)
    refuse_unbilled(ask_claude(**{name: "x"}), GPT)


MARK_5M, MARK_1H = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize("claude", [True, False])
def test_markers_are_found_wherever_they_stand(claude: bool) -> None:
    """A prompt that is written to a cache for an hour costs twice as much."""
    text = {"type": "text", "text": "a", "cache_control": MARK_5M}
    marked = {**tool(), "cache_control": MARK_1H}
    result = {"role": "tool", "tool_call_id": "c", "content": [{**text, "cache_control": MARK_1H}]}
    if claude:
        use = {"type": "tool_use", "id": "t", "name": "f", "input": {}, "cache_control": MARK_1H}
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [use]}]
        assert cached_for(ask_claude(), CLAUDE) is None
        assert cached_for(ask_claude(system=[text]), CLAUDE) == "5m"
        assert cached_for(ask_claude(messages=talk), CLAUDE) == "1h"
        assert cached_for(ask_claude(messages=talk[:1], cache_control="?"), CLAUDE) == "1h"
        return
    assert cached_for(ask(), CLAUDE) is None
    assert cached_for(ask(text), CLAUDE) == "5m"
    assert cached_for(ask(text, tools=[marked]), CLAUDE) == "1h"
    assert cached_for(ask(messages=[{"role": "user", "content": "a"}, result]), CLAUDE) == "1h"
    assert cached_for(ask(cache_control=MARK_1H), CLAUDE) == "1h"


def test_openai_writes_its_cache_unasked() -> None:
    assert cached_for(ask(), GPT) == "5m"
    assert cached_for(ask(prompt_cache_retention="24h"), GPT) == "1h"
    breakpoint_ = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}
    assert cached_for(ask(breakpoint_), GPT) == "1h"
    assert cached_for(ask(), card("m", "ollama")) is None
