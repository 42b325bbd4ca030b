"""Requests as each Claude model takes them: what it refuses is not sent, what is not sent is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import orjson
import pytest

from app.core.card import Ability
from app.core.errors import UnsupportedParameter
from app.core.messages import Format, Message, TextPart, ThinkingPart, Tool, ToolChoice
from app.wire import messages
from app.wire.codec import Limits
from app.wire.messages.params import BINDING_BETA, JSON_OBJECT_ORDER, answer_room, rules_of
from app.wire.messages.rules import RULES
from tests.wire.messages_cases import (
    BUDGETED,
    CURRENT,
    OLD,
    TERMS,
    ask,
    call,
    card,
    outgoing,
    result,
    said,
    written,
)

TOOLS = (Tool("f"), Tool("g"))
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL_LOOP = (said("user", "go"), said("assistant", ThinkingPart("hm", "sig"), call("x")), result("x"))


def test_the_least_request() -> None:
    assert written(ask()) == {
        "model": CURRENT,
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    }
    assert outgoing(ask()).headers == {"anthropic-version": "2026-10-21"}
    assert outgoing(ask()).memo is None
    assert written(ask(stream=True))["stream"] is True


def test_the_rules_of_the_card_come_first() -> None:
    """Discovery asked the API itself; the name is only a guess."""
    rules = replace(RULES[OLD], max_output=77)
    assert rules_of(card(quirks={"rules": rules})) is rules
    assert rules_of(card(quirks={"rules": {"max_output": 1}})) == RULES[CURRENT]


def test_max_tokens_stay_below_what_the_model_and_the_card_allow() -> None:
    assert written(ask(max_tokens=10))["max_tokens"] == 10
    assert written(ask(max_tokens=999_999))["max_tokens"] == 128_000
    body = messages.write_request(ask(), card(max_output=4_000)).body
    assert orjson.loads(body)["max_tokens"] == 4_000


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": 0}, "logprobs"),
        ({"needs": frozenset({Ability.AUDIO_OUTPUT})}, "modalities"),
        ({"stop": ("\n",)}, "stop"),
        ({"tools": (Tool("f", custom=True),)}, "tools[0]"),
        ({"tools": TOOLS, "tool_choice": ToolChoice("required")}, "tool_choice"),
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, Any], param: str) -> None:
    """Another model may do it; the caller must not get something else than asked for."""
    with pytest.raises(UnsupportedParameter) as caught:
        outgoing(ask(**fields))
    assert caught.value.param == param


def test_hints_that_cannot_be_followed_are_named() -> None:
    hints = {"seed": 1, "logit_bias": {}, "temperature": 0.5, "user": None, "service_tier": "flex"}
    sent = outgoing(ask(said("user", "x"), hints=hints, extra={"mystery": 1}))
    assert sent.ignored == ("seed", "logit_bias", "temperature", "service_tier", "mystery")
    assert outgoing(ask(Message("user", (TextPart("x"),), name="bob"))).ignored == ("name",)


@pytest.mark.parametrize(
    ("hints", "sent", "ignored"),
    [
        ({"temperature": 0.3}, {"temperature": 0.3}, ()),
        ({"temperature": 1.7}, {"temperature": 1}, ()),
        ({"top_p": 0.9}, {"top_p": 0.9}, ()),
        ({"temperature": 0.3, "top_p": 0.9, "top_k": 5}, {"temperature": 0.3, "top_k": 5}, ("top_p",)),
        ({"temperature": "hot"}, {}, ("temperature",)),
    ],
)
def test_sampling_of_models_that_take_it(hints: dict[str, Any], sent: dict[str, Any], ignored: tuple[str, ...]) -> None:
    request = ask(hints=hints)
    body = written(request, OLD)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == sent
    assert outgoing(request, OLD).ignored == ignored
    assert outgoing(request, OLD).headers == {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize("name", [OLD, BUDGETED])
def test_sampling_and_thinking_do_not_go_together(name: str) -> None:
    sent = outgoing(ask(hints={"temperature": 0.3}, effort="high"), name)
    assert sent.ignored == ("temperature",)
    assert "temperature" not in orjson.loads(sent.body)


def test_effort_becomes_effort_or_budget() -> None:
    assert written(ask(effort="max"))["output_config"] == {"effort": "max"}
    assert written(ask(effort="low"), BUDGETED)["thinking"] == {"type": "enabled", "budget_tokens": 2_048}
    assert written(ask(extra={"thinking": {"type": "adaptive"}}), OLD)["thinking"] == {"type": "adaptive"}
    assert outgoing(ask(extra={"thinking": {"type": "adaptive"}}), OLD).ignored == ()


def test_thinking_is_shown_where_the_caller_asks_for_it() -> None:
    shown = ask(extra={"thinking": {"type": "adaptive", "display": "summarized"}})
    assert written(shown)["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert "thinking" not in written(ask(extra={"thinking": {"type": "disabled", "display": "summarized"}}), OLD)
    assert "thinking" not in written(ask(extra={"thinking": {"display": ["?"]}}))


def test_thinking_that_was_lost_turns_thinking_off_where_it_is_needed() -> None:
    """An assistant's call without its thinking is a 400 while thinking is on."""
    lost = (said("user", "go"), said("assistant", call("x")), result("x"))
    sent = outgoing(ask(*lost, effort="high"), BUDGETED)
    assert sent.ignored == ("reasoning_effort",)
    assert "thinking" not in orjson.loads(sent.body)
    assert written(ask(*TOOL_LOOP, effort="high"), BUDGETED)["thinking"]["type"] == "enabled"


def test_bound_thinking_may_be_dropped_instead_of_refused() -> None:
    """What stands before it has changed by routing or fitting; the API would answer 400."""
    sent = outgoing(ask(*TOOL_LOOP))
    assert orjson.loads(sent.body)["thinking"] == {
        "type": "adaptive",
        "block_binding": {"prefix_mismatch_behavior": "drop_block"},
    }
    assert sent.headers["anthropic-beta"] == BINDING_BETA
    assert "anthropic-beta" not in outgoing(ask(*TOOL_LOOP), "claude-opus-5").headers
    assert written(ask(*TOOL_LOOP, effort="none"), "claude-sonnet-5-5")["thinking"] == {"type": "between_tools"}


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, None),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (ToolChoice("named", ("g",)), False, {"type": "tool", "name": "g", "disable_parallel_tool_use": True}),
    ],
)
def test_tool_choice(choice: ToolChoice | None, parallel: bool | None, sent: dict[str, Any] | None) -> None:
    body = written(ask(tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel), OLD)
    assert body.get("tool_choice") == sent
    assert [tool["name"] for tool in body["tools"]] == ["f", "g"]


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_the_only_ones_offered(mode: str) -> None:
    body = written(ask(tools=TOOLS, tool_choice=ToolChoice(mode, ("g",))), OLD)
    assert [tool["name"] for tool in body["tools"]] == ["g"]


def test_a_choice_without_tools_is_nothing() -> None:
    assert "tool_choice" not in written(ask(tool_choice=ToolChoice("required"), parallel_tool_calls=False))


def test_json_schema_is_the_models_own() -> None:
    """Not a forced tool, which goes neither with thinking nor with the newer models."""
    body = written(ask(format=Format("json_schema", SCHEMA, "x", True), effort="low"))
    schema = {**SCHEMA, "additionalProperties": False}
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    assert written(ask(format=Format("json_schema")))["output_config"]["format"]["schema"]["type"] == "object"
    with pytest.raises(UnsupportedParameter) as caught:
        outgoing(ask(format=Format("json_schema", SCHEMA)), "claude-opus-4-1")
    assert caught.value.param == "response_format"


def test_json_object_is_an_order() -> None:
    body = written(ask(said("system", "Be kind."), said("user", "x"), format=Format("json_object")))
    assert [block["text"] for block in body["system"]] == ["Be kind.", JSON_OBJECT_ORDER]
    assert "output_config" not in body


def test_stop_user_and_tier() -> None:
    hints = {"user": "bob@example.com", "safety_identifier": "s-1", "service_tier": "default"}
    sent = outgoing(ask(stop=("END", ""), hints=hints))
    body = orjson.loads(sent.body)
    assert body["stop_sequences"] == ["END"]
    assert body["metadata"] == {"user_id": hashlib.sha256(b"s-1").hexdigest()}
    assert body["service_tier"] == "standard_only"
    assert sent.ignored == ()


def test_a_marker_for_the_whole_request_takes_one_of_the_four_places() -> None:
    parts = tuple(TextPart(str(n), cache="5m") for n in range(5))
    sent = outgoing(ask(Message("user", parts), extra={"cache_control": {"type": "ephemeral", "ttl": "1h"}}))
    body = orjson.loads(sent.body)
    marked = [block["text"] for block in body["messages"][0]["content"] if "cache_control" in block]
    assert body["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert (marked, sent.ignored) == (["2", "3", "4"], ())


# --- requests of this dialect ---------------------------------------------------------------------------------------


def native(name: str = CURRENT, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What becomes of a client's own body: the body sent, and what was ignored."""
    body = {"model": "auto", "max_tokens": 2_000, "messages": [{"role": "user", "content": "Hi"}], **fields}
    request = messages.read_request(orjson.dumps(body), TERMS, Limits())
    sent = messages.write_request(request, card(name))
    made: dict[str, Any] = orjson.loads(sent.body)
    return made, sent.ignored


def test_fields_that_nobody_here_knows_survive() -> None:
    body, ignored = native(context_management={"edits": []}, messages=[{"role": "user", "content": "Hi"}])
    assert body["context_management"] == {"edits": []}
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["model"], ignored) == (CURRENT, ())
    assert "stream" not in native(stream=False)[0]
    assert native(stream=True)[0]["stream"] is True


def test_what_the_model_would_refuse_is_taken_out() -> None:
    body, ignored = native(temperature=0.5, top_k=3)
    assert ("temperature" in body, ignored) == (False, ("temperature", "top_k"))
    body, ignored = native(OLD, temperature=0.5, top_p=0.9)
    assert (body["temperature"], "top_p" in body, ignored) == (0.5, False, ("top_p",))
    assert native(max_tokens=999_999)[0]["max_tokens"] == 128_000


@pytest.mark.parametrize(
    ("name", "thinking", "config", "made", "output"),
    [
        (
            BUDGETED,
            {"type": "enabled", "budget_tokens": 1_500},
            None,
            {"type": "enabled", "budget_tokens": 1_500},
            None,
        ),
        (CURRENT, {"type": "adaptive", "display": "summarized"}, {"effort": "max"}, "same", {"effort": "max"}),
        (CURRENT, {"type": "enabled", "budget_tokens": 1_500}, None, None, {"effort": "low"}),
        (BUDGETED, {"type": "adaptive"}, None, {"type": "enabled", "budget_tokens": 1_024}, None),
        ("claude-sonnet-5-5", {"type": "disabled"}, None, {"type": "between_tools"}, None),
        (OLD, None, {"effort": "xhigh"}, {"type": "adaptive"}, {"effort": "max"}),
        (BUDGETED, None, {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}, "budget", "format"),
    ],
)
def test_thinking_is_said_in_the_models_own_words(
    name: str, thinking: Any, config: Any, made: Any, output: Any
) -> None:
    """The router, not the client, chose the model: what the client said of thinking must fit whichever it is."""
    fields = {key: value for key, value in (("thinking", thinking), ("output_config", config)) if value is not None}
    body, _ = native(name, **fields)
    if made == "same":
        made = thinking
    if made == "budget":
        made, output = {"type": "enabled", "budget_tokens": 1_024}, {"format": config["format"]}
    assert (body.get("thinking"), body.get("output_config")) == (made, output)


def test_a_forced_tool_of_a_native_request() -> None:
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    body, _ = native("claude-haiku-5-5", tools=tools, tool_choice={"type": "any"})
    assert body["thinking"] == {"type": "disabled"}
    with pytest.raises(UnsupportedParameter):
        native(tools=tools, tool_choice={"type": "any"})


def test_a_native_prefill() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The"}]
    assert native(BUDGETED, messages=turns)[0]["messages"] == turns
    with pytest.raises(UnsupportedParameter):
        native(messages=turns)


def test_unsigned_thinking_of_a_native_request_is_dropped() -> None:
    """Clients send back what another model thought, which Claude would refuse."""
    blocks = [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "a"}]
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": "b"},
    ]
    assert native(messages=turns)[0]["messages"][1] == {"role": "assistant", "content": [{"type": "text", "text": "a"}]}


EFFORTS = (None, "none", "minimal", "low", "medium", "high", "xhigh", "max")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("most", [None, 1, 1_024, 5_000, 10**6])
def test_the_room_that_is_told_is_the_room_that_is_sent(name: str, most: int | None) -> None:
    """Money is held for what is told; anything more would be spent unseen."""
    for effort in EFFORTS:
        request = ask(effort=effort, max_tokens=most)
        room, _ = answer_room(request, card(name))
        body = written(request, name)
        assert body["max_tokens"] == room
        assert written(replace(request, max_tokens=room), name) == body, "asking for just that changes nothing"


def test_a_lowered_limit_wins_over_the_body_of_a_native_request() -> None:
    body = {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    request = replace(messages.read_request(orjson.dumps(body), TERMS, Limits()), max_tokens=9)
    assert written(request)["max_tokens"] == 9


def test_a_budget_for_thinking_shrinks_with_the_limit() -> None:
    """The API refuses a budget that leaves nothing for the answer."""
    thinking = {"type": "enabled", "budget_tokens": 10_000}
    body = {
        "model": "auto",
        "max_tokens": 16_000,
        "messages": [{"role": "user", "content": "Hi"}],
        "thinking": thinking,
    }
    request = messages.read_request(orjson.dumps(body), TERMS, Limits())
    assert written(request, BUDGETED)["thinking"] == thinking
    lowered = written(replace(request, max_tokens=4_000), BUDGETED)
    assert lowered["max_tokens"] == 4_000 and 1_024 <= lowered["thinking"]["budget_tokens"] < 4_000
    short = written(replace(request, max_tokens=900), BUDGETED)
    assert short["max_tokens"] == 900 and "thinking" not in short
