"""Without these a request that the real API refuses passes every test of ours."""

from __future__ import annotations

from typing import Any

import pytest

from app.simulator.claude_rules import Asked, complaint
from app.wire.messages.rules import NEW_VERSION, OLD_VERSION, rules_for

OLD, FORCING, NEW = "claude-sonnet-4-5", "claude-haiku-5-5", "claude-opus-5-5"
USE = {"type": "tool_use", "id": "t1", "name": "w", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
TEXT = {"type": "text", "text": "hi"}
TOOL = {"name": "w", "input_schema": {"type": "object"}}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def said(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def check(model: str = NEW, version: str | None = None, **body: Any) -> str | None:
    rules = rules_for(model)
    fields = {"model": model, "max_tokens": 2_000, "messages": [{"role": "user", "content": "hi"}], **body}
    fields = {name: value for name, value in fields.items() if value is not ...}
    return complaint(Asked(fields, version or rules.version, model, rules))


FINE: list[tuple[str, dict[str, Any]]] = [
    (NEW, {}),
    (NEW, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
    (OLD, {"temperature": 0.5}),
    (OLD, {"thinking": {"type": "enabled", "budget_tokens": 1_024}}),
    (OLD, {"messages": [user(TEXT), said(TEXT)]}),
    (FORCING, {"tools": [TOOL], "tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}}),
    (NEW, {"tools": [TOOL], "messages": [user(TEXT), said(USE), user(RESULT, TEXT)]}),
    (NEW, {"messages": [{"role": "system", "content": "s"}, user(TEXT)]}),
    (NEW, {"system": "s", "stop_sequences": ["a"]}),
    (NEW, {"messages": [user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}})]}),
    (NEW, {"messages": [user({"type": "image", "source": {"type": "url", "url": "x"}})]}),
]

WRONG: list[tuple[str, dict[str, Any], str]] = [
    (NEW, {"max_tokens": ...}, "max_tokens: Field required"),
    (NEW, {"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
    (NEW, {"max_tokens": 0}, "greater than or equal to 1"),
    (NEW, {"max_tokens": 128_001}, "128001 > 128000"),
    (NEW, {"messages": []}, "at least one message"),
    (NEW, {"messages": 7}, "at least one message"),
    (NEW, {"seed": 1}, "seed: Extra inputs are not permitted"),
    (NEW, {"temperature": 1}, "temperature"),
    (NEW, {"top_k": 1}, "top_k"),
    (OLD, {"temperature": 0.5, "top_p": 0.5}, "cannot both"),
    (OLD, {"temperature": 1.5}, "range: 0..1"),
    (OLD, {"temperature": "hot"}, "range: 0..1"),
    (NEW, {"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "thinking.type"),
    (NEW, {"thinking": {"type": "disabled"}}, "thinking.type"),
    (NEW, {"thinking": {"type": 7}}, "thinking.type"),
    (OLD, {"thinking": {"type": "enabled", "budget_tokens": 2_000}}, "budget_tokens"),
    (OLD, {"thinking": {"type": "enabled"}}, "budget_tokens"),
    (OLD, {"output_config": {"effort": "low"}}, "effort"),
    (NEW, {"output_config": {"effort": "huge"}}, "effort"),
    (NEW, {"tools": [TOOL], "tool_choice": {"type": "any"}}, "tool_choice"),
    (FORCING, {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "w"}}, "tool_choice"),
    (NEW, {"tools": [{**TOOL, "name": "a b"}]}, "tools.0.name"),
    (NEW, {"tools": [{"name": "w", "input_schema": {"type": "string"}}]}, "input_schema"),
    (NEW, {"tools": [{"name": "w"}]}, "input_schema"),
    (NEW, {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    (OLD, {"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
    (NEW, {"messages": [user(TEXT), said(TEXT)]}, "prefill"),
    (NEW, {"messages": [{"role": "user", "content": " "}]}, "non-whitespace"),
    (NEW, {"system": [{"type": "text", "text": ""}]}, "system.content.0"),
    (NEW, {"stop_sequences": [" "]}, "stop_sequences"),
    (
        NEW,
        {"messages": [user({"type": "image", "source": {"type": "base64", "media_type": "image/bmp"}})]},
        "media_type",
    ),
    (NEW, {"messages": [user(TEXT), said({"type": "document"}), user(TEXT)]}, "document"),
    (NEW, {"messages": [user(TEXT), said(USE), user(TEXT)]}, "without `tool_result`"),
    (OLD, {"messages": [user(TEXT), said(USE)]}, "without `tool_result`"),
    (NEW, {"messages": [user(RESULT)]}, "unexpected `tool_use_id`"),
    (NEW, {"messages": [user(TEXT), said(USE), user(TEXT, RESULT)]}, "must come first"),
    (NEW, {"messages": [user(TEXT), said({**USE, "id": "a.b"}), user({**RESULT, "tool_use_id": "a.b"})]}, "pattern"),
    (NEW, {"messages": [user(TEXT), said(USE, USE), user(RESULT)]}, "unique"),
    (NEW, {"messages": [user(*[{**TEXT, "cache_control": {"type": "ephemeral"}}] * 5)]}, "Found 5"),
]


@pytest.mark.parametrize(("model", "body"), FINE)
def test_what_is_right_passes(model: str, body: dict[str, Any]) -> None:
    assert check(model, **body) is None


@pytest.mark.parametrize(("model", "body", "words"), WRONG)
def test_what_is_wrong_is_said(model: str, body: dict[str, Any], words: str) -> None:
    message = check(model, **body)
    assert message is not None and words in message


def test_the_new_version_refuses_sampling_for_every_model() -> None:
    assert check(OLD, NEW_VERSION, temperature=1) is not None
    assert check(OLD, OLD_VERSION, temperature=1) is None


def test_documents_of_the_assistant_are_refused_by_the_new_version_alone() -> None:
    turns = [user(TEXT), said({"type": "document"}), user(TEXT)]
    assert check(OLD, OLD_VERSION, messages=turns) is None
