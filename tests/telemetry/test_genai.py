"""What a request looks like in a trace: the names that every tool for GenAI knows, each fact once, and no text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes, http_attributes

from app.core.clock import ManualClock
from app.core.messages import MediaPart, Message, RefusalPart, TextPart, ThinkingPart, ToolResultPart, ToolUsePart
from app.core.money import Tokens
from app.core.plan import Candidate, Plan
from app.core.record import Attempt, Record
from app.core.steps import NANO, Steps
from app.core.verdict import Verdict
from app.telemetry.genai import CLIENT, SERVER, Span, asked_of, spans_of
from tests.core.nouns import card

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BEGAN = 1_000.0
PLAN = Plan(
    (
        Candidate(card("gpu/qwen", kind="vllm"), "it can"),
        Candidate(card("claude/opus", kind="anthropic"), "it can"),
    ),
    "cost",
    verdict=Verdict(0.2, 0.9, "code", "1"),
)


def told(content: int = 0, **fields: Any) -> tuple[Record, Steps]:
    """A stream that one model failed and another answered."""
    clock = ManualClock(start=BEGAN)
    steps = Steps(TRACE, CALLER, clock, content)
    began = clock.monotonic()
    clock.advance(0.01)
    steps.note("plan", began)
    for model in ("gpu/qwen", "claude/opus"):
        began = clock.monotonic()
        clock.advance(0.01)
        steps.note("admit", began, model)
        steps.attempt()
        clock.advance(1.0)
    attempts = (
        Attempt("gpu/qwen", "gpu", "timeout", "upstream", 1.0),
        Attempt("claude/opus", "claude", "ok", None, 0.98, 5_000_000, Tokens(10, 5, 4, 3, 0, 2)),
    )
    made = Record(
        **{
            **dict.fromkeys(("request_id", "root_id"), "req-1"),
            **{"parent_id": None, "depth": 0, "endpoint": "chat", "model_requested": "auto", "stream": True},
            **{"status": 200, "started_at": BEGAN, "seconds": 2.02, "overhead_seconds": 0.04},
            "model": "claude/opus",
            "session": "s-1",
            "tenant": "acme",
            "key_id": "key-1",
            "attempts": attempts,
            "tokens": Tokens(10, 5, 4),
            "cost_nano": 5_000_000,
            "first_token_seconds": 1.5,
            "finish": "stop",
            "plan": PLAN,
            "steps": steps,
            **fields,
        },
    )
    return made, steps


def spans(content: int = 0, **fields: Any) -> list[Span]:
    return spans_of(*told(content, **fields), settled=int((BEGAN + 2.5) * NANO))


def test_a_request_is_one_tree() -> None:
    root, *parts = spans()
    assert (root.name, root.kind, root.parent_id, root.error) == ("tierway.request", SERVER, CALLER, None)
    names = [part.name.removeprefix("tierway.") for part in parts]
    assert names == ["plan", "admit", "admit", "attempt", "attempt", "stream", "settle"]
    assert {part.parent_id for part in parts} == {root.span_id}
    assert len({span.span_id for span in (root, *parts)}) == 8
    at = dict(zip(names, parts, strict=True))
    assert (root.began, root.ended) == (int(BEGAN * NANO), int((BEGAN + 2.02) * NANO))
    assert at["stream"].began == int((BEGAN + 1.5) * NANO) and at["settle"].ended == int((BEGAN + 2.5) * NANO)
    assert all(root.began <= part.began <= part.ended for part in parts)


def test_an_attempt_speaks_of_models_as_everybody_does() -> None:
    _, *parts = spans()
    failed, served = (part for part in parts if part.name == "tierway.attempt")
    assert failed.kind == served.kind == CLIENT and (failed.error, served.error) == ("timeout", None)
    assert dict(failed.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "qwen",
        "gen_ai.conversation.id": "s-1",
        "gen_ai.request.stream": True,
        "tierway.model": "gpu/qwen",
        "tierway.upstream": "gpu",
        "tierway.attempt": 1,
        "tierway.outcome": "timeout",
        "tierway.blame": "upstream",
        "error.type": "timeout",
    }
    assert served.attributes["gen_ai.provider.name"] == "anthropic"
    assert served.attributes["gen_ai.response.model"] == "opus"
    assert served.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    usage = {name.removeprefix("gen_ai.usage."): value for name, value in served.attributes.items() if "usage" in name}
    assert usage == {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read.input_tokens": 4,
        "cache_creation.input_tokens": 3,
        "reasoning.output_tokens": 2,
    }
    assert served.attributes["tierway.cost_usd"] == 0.005


def test_every_name_of_others_is_one_of_theirs() -> None:
    """A misspelt attribute is one that no tool shows."""
    modules = (gen_ai_attributes, error_attributes, http_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    record, steps = told(100)
    assert steps.content is not None
    steps.content.asked = "[]"
    used = {name for span in spans_of(record, steps, 0) for name in span.attributes}
    assert "gen_ai.output.messages" in used
    assert {name for name in used if not name.startswith("tierway.")} <= known


def test_tokens_are_there_once() -> None:
    """Who sums up tokens over all spans must not pay twice."""
    assert sum("gen_ai.usage.input_tokens" in span.attributes for span in spans()) == 1


def test_the_request_says_what_its_log_line_says() -> None:
    root = spans(agent="qe-1", model_requested="m" * 1_000, fallback_from="gpu/qwen")[0].attributes
    assert (root["tierway.tenant"], root["tierway.key_id"], root["tierway.agent"]) == ("acme", "key-1", "qe-1")
    assert (root["tierway.task_type"], root["tierway.cost_usd"], root["tierway.tokens_cached"]) == ("code", 0.005, 4)
    assert len(str(root["tierway.model_requested"])) == 257, "what a caller chose is cut"
    assert "tierway.tier" not in root and "error.type" not in root, "what is not known is not said"


@pytest.mark.parametrize(
    ("status", "code", "failed"),
    [
        (200, "upstream_failed", True),
        (502, "upstream_failed", True),
        (400, "invalid_value", False),
        (499, "client_gone", False),
    ],
)
def test_a_callers_mistake_is_no_failure_of_ours(status: int, code: str, failed: bool) -> None:
    """Else an error rate of traces would be one of callers."""
    root = spans(status=status, error_code=code, client_gone=code == "client_gone")[0]
    assert (root.error is not None) is failed and root.attributes["error.type"] == code


def test_texts_are_there_only_where_they_were_kept() -> None:
    record, steps = told(100)
    assert steps.content is not None
    steps.content.asked = "[]"
    steps.content.add("said")
    _, served = (span for span in spans_of(record, steps, 0) if span.name == "tierway.attempt")
    (message,) = orjson.loads(str(served.attributes["gen_ai.output.messages"]))
    assert message == {"role": "assistant", "parts": [{"type": "text", "content": "said"}], "finish_reason": "stop"}
    quiet = spans_of(replace(record, consent="off"), steps, 0)
    for each in (quiet, spans()):
        assert not any("messages" in name for span in each for name in span.attributes)


def test_what_was_asked_is_cut_and_without_images() -> None:
    messages = (
        Message("system", (TextPart("be brief"),)),
        Message("user", (TextPart("x" * 30), MediaPart("image", data="aGk="))),
        Message("assistant", (ThinkingPart("hm"), ToolUsePart("1", "find", '{"a": 1}'), RefusalPart("no"))),
        Message("tool", (ToolResultPart("1", (TextPart("found"),)),)),
    )
    assert orjson.loads(asked_of(messages, 1_000)) == [
        {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
        {"role": "user", "parts": [{"type": "text", "content": "x" * 30}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "arguments": '{"a": 1}'}, {"type": "text", "content": "no"}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "found"}]},
    ]
    _, user = orjson.loads(asked_of(messages, 12))
    assert user["parts"] == [{"type": "text", "content": "xxxx…"}], "and nothing after that"
    assert asked_of((Message("user", (TextPart("\ud800"),)),), 10) == "[]"
