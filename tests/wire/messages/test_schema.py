"""Schemas as Claude takes them: the maker's own client is the reference; what it would not keep is at least told."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import GatewayError, InvalidValue, UnsupportedParameter
from app.wire.messages.schema import MAX_NESTING, transform

INVOICE: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "title": "Invoice",
    "description": "One invoice.",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "day": {"type": "string", "format": "date", "description": "When"},
        "state": {"enum": ["open", "paid"]},
        "kind": {"const": "invoice"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "minItems": 1},
        "who": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["id", "lines"],
    "$defs": {"Line": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
}


def test_a_schema_that_is_enforced_whole_comes_out_as_the_makers_client_makes_it() -> None:
    ours = transform(INVOICE, "p")
    theirs = anthropic.transform_schema({key: value for key, value in INVOICE.items() if key != "$schema"})
    assert ours == theirs
    assert ours["additionalProperties"] is False
    assert ours["$defs"]["Line"]["additionalProperties"] is False


def test_what_is_not_enforced_is_told() -> None:
    """A bound that only vanished would be broken more often than one that the model reads."""
    schema = {"type": "integer", "minimum": 1, "maximum": 9, "description": "A digit"}
    assert transform(schema, "p") == {"type": "integer", "description": "A digit\n\n{minimum: 1, maximum: 9}"}
    assert transform({"type": "string", "format": "phone"}, "p")["description"] == '{format: "phone"}'
    assert transform({"type": "array", "minItems": 3}, "p") == {"type": "array", "description": "{minItems: 3}"}
    assert transform({"type": "array", "items": [{"type": "null"}]}, "p")["description"] == '{items: [{"type":"null"}]}'


def test_one_of_becomes_any_of() -> None:
    schema = {"oneOf": [{"type": "string"}, {"type": "object", "properties": {}}]}
    assert transform(schema, "p") == {
        "anyOf": [{"type": "string"}, {"type": "object", "properties": {}, "additionalProperties": False}]
    }


def test_objects_are_closed_however_they_are_written() -> None:
    assert transform({"properties": {"a": {"type": "null"}}}, "p")["additionalProperties"] is False
    assert transform({"type": ["object", "null"]}, "p")["properties"] == {}
    assert transform({"type": "object", "additionalProperties": True, "strict": True}, "p") == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


def test_a_reference_stands_alone() -> None:
    assert transform({"$ref": "#/$defs/A", "description": "x", "$defs": {"A": True}}, "p") == {
        "$ref": "#/$defs/A",
        "$defs": {"A": {}},
    }


def test_an_object_of_free_keys_is_refused() -> None:
    """Closed, it could only be empty: the caller must learn that, not wonder at empty answers."""
    with pytest.raises(UnsupportedParameter) as caught:
        transform({"type": "object", "additionalProperties": {"type": "string"}}, "response_format")
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("schema", [None, 3, [], {"items": 1}, {"properties": {"a": "b"}}, {"anyOf": [None]}])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidValue):
        transform(schema, "p")


def test_a_bottomless_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_NESTING + 1):
        schema = {"items": schema}
    with pytest.raises(InvalidValue):
        transform(schema, "p")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "properties", "items", "anyOf", "oneOf", "$ref", "$defs", "enum", "format", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    )
)
def test_nonsense_ends_in_a_core_error_or_a_schema(schema: Any) -> None:
    try:
        assert isinstance(transform(schema, "p"), dict)
    except GatewayError:
        pass
