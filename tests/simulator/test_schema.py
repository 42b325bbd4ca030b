"""Without these a demo of structured output gets an answer that its own schema refuses, or crashes the simulator."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.simulator.schema import instance

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
KEYS = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "anyOf",
    "allOf",
    "$ref",
    "minItems",
    "minLength",
    "maxLength",
]
NUMBERS = ["maxLength", "minimum", "exclusiveMinimum", "maximum", "multipleOf", "prefixItems", "format", "const"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
        ({"type": "string"}, "simulated"),
        ({"type": "string", "minLength": 12}, "simulated..."),
        ({"type": "string", "maxLength": 3}, "sim"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "format": "unheard-of"}, "simulated"),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 7}, 7),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "null"}, None),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [0, 0]),
        ({"items": {"type": "string"}}, []),
        ({"prefixItems": [{"const": 1}], "type": "array", "items": {"const": 2}, "minItems": 2}, [1, 2]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 0),
        ({"oneOf": [{"const": "one"}]}, "one"),
        (
            {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"title": "x", "type": "object"}]},
            {"a": 1},
        ),
        ({"allOf": [{"type": "string"}]}, "simulated"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "boolean"}}}, True),
        ({"$ref": "#/nowhere/at/all"}, None),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "exclusiveMinimum": 3, "minimum": 10}, 10),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "number", "minimum": 4, "multipleOf": 3}, 6),
        ({"type": "unheard-of"}, None),
        ({}, "simulated"),
        (None, {}),
    ],
)
def test_smallest_value_of_a_schema(schema: dict[str, Any] | None, value: Any) -> None:
    assert instance(schema) == value


def test_a_schema_that_demands_itself_ends() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert "next" in instance(schema)


@given(st.dictionaries(st.sampled_from(KEYS + NUMBERS), JSON, max_size=6))
def test_no_schema_breaks_it(schema: dict[str, Any]) -> None:
    orjson.dumps(instance(schema))
