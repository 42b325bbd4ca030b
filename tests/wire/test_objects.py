"""The list of models and the error object, as clients see them, and hostile lists of models from upstreams."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model

from app.core import errors
from app.core.card import Ability, Card
from app.core.errors import (
    BadReply,
    GatewayError,
    InvalidValue,
    MethodNotAllowed,
    RateLimited,
    Rejected,
    Shed,
    StreamExpired,
    TimedOut,
)
from app.core.money import Price
from app.wire.objects import AUTO_MODELS, Listed, read_models, write_error, write_model, write_models

CARD = Card(
    id="claude/opus",
    name="opus",
    upstream="claude",
    kind="anthropic",
    local=False,
    abilities=frozenset({Ability.TOOLS, Ability.CHAT}),
    context_window=200_000,
    price=Price(4_000_000, 20_000_000, 200_000, 5_000_000, 8_000_000),
    complexity=(0.6, 1.0),
    created=1_700_000_000,
)
UNKNOWN = Card(id="gpu/x", name="x", upstream="gpu", kind="vllm", local=True, abilities=frozenset())

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
ENTRY_FIELDS = ["id", "created", "max_model_len", "max_tokens", "owned_by", "parent", "root", "capabilities"]


def every_error() -> list[type[GatewayError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)]
    return [kind for kind in kinds if kind.__init__ in (GatewayError.__init__, MethodNotAllowed.__init__)]


def test_a_card_is_listed_with_everything_known_of_it() -> None:
    """Clients and people choose by these fields; a wrong price or window sends them to the wrong model."""
    listed = orjson.loads(write_models([CARD], {"claude/opus": "ready"}))
    assert listed["object"] == "list"
    assert listed["data"][-1] == {
        "id": "claude/opus",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "claude",
        "tierway": {
            "upstream": "claude",
            "local": False,
            "context_window": 200_000,
            "abilities": ["chat", "tools"],
            "complexity": [0.6, 1.0],
            "price": {"input": 4.0, "output": 20.0, "cache_read": 0.2, "cache_write": 5.0},
            "state": "ready",
        },
    }


def test_what_is_unknown_is_null_and_never_zero() -> None:
    """A model of unknown price must not look free."""
    details = orjson.loads(write_model(UNKNOWN))["tierway"]
    assert (details["price"], details["context_window"], details["state"]) == (None, None, None)


def test_the_auto_names_are_listed_and_shown_alone() -> None:
    """A client that only offers listed models could not choose `auto` otherwise."""
    ids = [model["id"] for model in orjson.loads(write_models([CARD], {}))["data"]]
    assert ids == [*AUTO_MODELS, "claude/opus"]
    alone = orjson.loads(write_model("auto:privacy"))
    assert (alone["id"], alone["owned_by"], alone["tierway"]["local"]) == ("auto:privacy", "tierway", True)
    assert alone["tierway"].keys() == orjson.loads(write_model(CARD))["tierway"].keys()


def test_the_official_client_reads_every_entry() -> None:
    """The openai client's own type demands id, object, created and owned_by of the right types."""
    for entry in orjson.loads(write_models([CARD, UNKNOWN], {}))["data"]:
        Model.model_validate(entry, strict=True)


def test_a_simulated_model_says_so() -> None:
    """Nobody may take the simulator's words for a model's."""
    simulated = Card(id="s/m", name="m", upstream="s", kind="vllm", local=True, abilities=frozenset(), simulated=True)
    assert orjson.loads(write_model(simulated))["tierway"]["simulated"] is True


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_the_four_fields(kind: type[GatewayError]) -> None:
    """Clients match on `code` and break when one of the four is missing."""
    check_shape(kind("what went wrong", param="messages"))


@pytest.mark.parametrize(
    "error",
    [
        TimedOut("too late", phase="idle"),
        Rejected("wrong", status=422, param="x"),
        RateLimited("too often", rates=(), retry_after=1.0),
        StreamExpired("gone", about={"model": "m"}),
        Shed("too much", cause="memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_that_say_more_have_the_four_fields_too(error: GatewayError) -> None:
    check_shape(error)


def check_shape(error: GatewayError) -> None:
    body = orjson.loads(write_error(error))
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert (body["error"]["type"], body["error"]["code"]) == (error.type, error.code)


def test_a_callers_error_names_the_field_and_others_name_none() -> None:
    body = orjson.loads(write_error(InvalidValue("too hot", param="temperature")))["error"]
    assert (body["message"], body["param"]) == ("too hot", "temperature")
    assert orjson.loads(write_error(InvalidValue("no")))["error"]["param"] is None


def test_an_error_about_unwritable_text_is_still_written() -> None:
    body = orjson.loads(write_error(InvalidValue("bad \ud800 name", param="\udfff")))["error"]
    assert (body["message"], body["param"]) == ("bad ? name", "?")


def test_vllm_models_are_read_with_window_and_parent() -> None:
    """The window decides what a model may be sent; the parent tells a LoRA adapter from a model."""
    body = orjson.dumps(
        {
            "object": "list",
            "data": [
                {"id": "base", "created": 5, "owned_by": "vllm", "root": "r", "parent": None, "max_model_len": 8192},
                {"id": "lora", "parent": "base", "max_model_len": None, "permission": [{}]},
            ],
        }
    )
    assert read_models(body) == (
        Listed("base", created=5, owned_by="vllm", context_window=8192, root="r"),
        Listed("lora", parent="base"),
    )


def test_capabilities_are_read_in_all_their_shapes() -> None:
    def capabilities(value: Any) -> dict[str, bool]:
        (model,) = read_models(orjson.dumps({"data": [{"id": "m", "capabilities": value}]}))
        return dict(model.capabilities)

    assert capabilities(["tools", 3, "vision"]) == {"tools": True, "vision": True}
    assert capabilities({"image_input": {"supported": True}, "batch": False, "x": 3}) == {
        "image_input": True,
        "batch": False,
    }
    assert capabilities({"thinking": {"supported": True, "types": {"adaptive": {"supported": False}}}}) == {
        "thinking": True,
        "thinking.types.adaptive": False,
    }
    assert capabilities(True) == capabilities("tools") == capabilities({"supported": True}) == {}


def test_other_servers_shapes_are_read() -> None:
    """A bare list, and other names for the window."""
    (model,) = read_models(b'[{"id": "m", "context_length": 4096, "max_completion_tokens": 100}]')
    assert (model.context_window, model.max_output) == (4096, 100)


def test_a_broken_entry_does_not_hide_the_others() -> None:
    body = orjson.dumps(
        {"data": [None, {}, {"id": 3}, {"id": ""}, {"id": "a\r\nb: c"}, {"id": "x" * 600}, {"id": "ok"}]}
    )
    assert [model.id for model in read_models(body)] == ["ok"]


def test_a_model_listed_twice_is_one_model() -> None:
    assert len(read_models(b'{"data": [{"id": "m"}, {"id": "m"}]}')) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": {}}', b"3", b"null", b'{"data": "x"}', b"\xff"])
def test_what_is_no_list_of_models_is_a_bad_reply(body: bytes) -> None:
    with pytest.raises(BadReply):
        read_models(body)


def test_nested_capabilities_cannot_exhaust_the_stack() -> None:
    bomb = b'{"data":[{"id":"m","capabilities":' + b'{"supported":' * 900 + b"1" + b"}" * 900 + b"}]}"
    assert read_models(bomb)[0].capabilities == {}


@given(st.binary())
def test_any_bytes_end_in_models_or_a_bad_reply(body: bytes) -> None:
    try:
        read_models(body)
    except BadReply:
        pass


@given(st.lists(st.dictionaries(st.sampled_from(ENTRY_FIELDS), JSON), max_size=3))
def test_entries_of_wrong_types_are_read_or_passed_over(entries: list[dict[str, Any]]) -> None:
    for model in read_models(orjson.dumps({"data": entries})):
        assert model.id
        assert model.context_window is None or model.context_window > 0
