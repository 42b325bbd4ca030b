from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import InvalidValue
from app.core.messages import Format, Tool, ToolChoice
from app.wire.chat.tools import is_legacy, read_choice, read_format, read_tools

F = {"type": "function", "function": {"name": "f"}}
G = {"type": "custom", "custom": {"name": "g", "description": "d", "format": {"type": "text"}}}
TOOLS = (Tool("f"), Tool("g", custom=True))


def test_tools_of_both_types() -> None:
    schema = {"type": "object"}
    full = {"name": "h", "description": "d", "parameters": schema, "strict": True}
    marked = {"type": "function", "function": full, "cache_control": {"type": "ephemeral"}}
    assert read_tools({"tools": [F, G, marked]}, 3) == (
        Tool("f"),
        Tool("g", "d", custom=True),
        Tool("h", "d", schema, True, cache="5m"),
    )


def test_a_cache_marker_inside_the_function_counts() -> None:
    inner = {"name": "f", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert read_tools({"tools": [{"type": "function", "function": inner}]}, 3) == (Tool("f", cache="1h"),)


def test_legacy_functions_are_tools() -> None:
    body: dict[str, Any] = {"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}}
    assert is_legacy(body)
    tools = read_tools(body, 3)
    assert tools == (Tool("f", schema={}),)
    assert read_choice(body, tools) == ToolChoice("named", ("f",))
    assert read_choice({**body, "function_call": "none"}, tools) == ToolChoice("none")


@pytest.mark.parametrize("body", [{}, {"tools": None}, {"tools": []}, {"functions": [], "tools": None}])
def test_no_tools_are_no_tools(body: dict[str, Any]) -> None:
    assert read_tools(body, 3) == ()
    assert not is_legacy(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [F] * 4}, "tools"),
        ({"tools": [F], "functions": [{"name": "f"}]}, "functions"),
        ({"functions": [{"name": "f"}] * 4}, "functions"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [F, {"type": "function", "function": {}}]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f" * 129}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]}, "tools[0].function.strict"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom.name"),
    ],
)
def test_a_wrong_tool_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_tools(body, 3)
    assert caught.value.param == param


ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "required", "tools": [F, {"type": "custom", "custom": {"name": "g"}}]},
}


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        (None, None),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        (F, ToolChoice("named", ("f",))),
        ({"type": "custom", "custom": {"name": "g"}}, ToolChoice("named", ("g",))),
        (ALLOWED, ToolChoice("required", ("f", "g"))),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [F]}}, ToolChoice("auto", ("f",))),
    ],
)
def test_every_form_of_tool_choice(value: Any, choice: ToolChoice | None) -> None:
    assert read_choice({"tool_choice": value}, TOOLS) == choice


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("any", "tool_choice"),
        (5, "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "function": {}}, "tool_choice.function.name"),
        ({"type": "function", "function": {"name": "nobody"}}, "tool_choice"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": [F]}}, "tool_choice.allowed_tools.mode"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": []}}, "tool_choice.allowed_tools.tools"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [{}]}}, "tool_choice.allowed_tools.tools[0].type"),
        (
            {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "function", "function": {}}]}},
            "tool_choice.allowed_tools.tools[0].function.name",
        ),
    ],
)
def test_a_wrong_tool_choice_is_named(value: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_choice({"tool_choice": value}, TOOLS)
    assert caught.value.param == param


def test_a_choice_without_tools_says_nothing_or_is_wrong() -> None:
    assert read_choice({"tool_choice": "auto"}, ()) is None
    with pytest.raises(InvalidValue):
        read_choice({"tool_choice": "required"}, ())


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, Format("json_object")),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
            Format("json_schema", {"type": "object"}, "n", True),
        ),
    ],
)
def test_response_formats(value: Any, form: Format | None) -> None:
    assert read_format({"response_format": value}) == form


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": "yaml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "response_format.json_schema.schema"),
    ],
)
def test_a_wrong_format_is_named(value: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_format({"response_format": value})
    assert caught.value.param == param
