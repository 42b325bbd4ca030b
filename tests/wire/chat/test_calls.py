from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadReply
from app.core.events import Call, ToolCall, fold
from app.wire.chat.calls import Calls
from tests.wire.chat_cases import chunk, read


def piece(arguments: Any = None, name: Any = None, **entry: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **entry}


def events(*entries: Any, whole: bool = False) -> list[ToolCall]:
    calls = Calls(0, "seed")
    return [event for entry in entries for event in calls.add(entry, whole=whole)] + calls.close()


def calls(*entries: Any) -> list[Call]:
    """What the pieces come to, each piece in a chunk of its own."""
    stream = [chunk({"tool_calls": [entry]}) for entry in entries]
    return fold(read([*stream, chunk({}, "tool_calls")])).choices[0].calls


def test_id_and_name_come_once_and_arguments_concatenate() -> None:
    assert events(piece("", "f", index=0, id="a"), piece('{"x"', index=0), piece(":1}", index=0)) == [
        ToolCall(0, "", "a", "f"),
        ToolCall(0, '{"x"'),
        ToolCall(0, ":1}"),
    ]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        # repeated id and name
        ([piece("{", "f", index=0, id="a"), piece("}", "f", index=0, id="a")], [Call("a", "f", "{}")]),
        # no index, with id
        ([piece("{", "f", id="a"), piece("}", id="a")], [Call("a", "f", "{}")]),
        # no index, no id on later pieces
        ([piece("{", "f", id="a"), piece("}")], [Call("a", "f", "{}")]),
        # two calls without index
        ([piece("{}", "f", id="a"), piece("{}", "f", id="b")], [Call("a", "f", "{}"), Call("b", "f", "{}")]),
        # same index, another id
        (
            [piece("{}", "f", index=0, id="a"), piece("{}", "f", index=0, id="b")],
            [Call("a", "f", "{}"), Call("b", "f", "{}")],
        ),
        # gaps, and interleaved pieces
        (
            [
                piece("{", "f", index=3, id="a"),
                piece("[", "g", index=7, id="b"),
                piece("}", index=3),
                piece("]", index=7),
            ],
            [Call("a", "f", "{}"), Call("b", "g", "[]")],
        ),
        # the name comes after the first arguments
        ([piece("{", index=0, id="a"), piece("}", "f", index=0)], [Call("a", "f", "{}")]),
        # nothing but a name
        ([piece(None, "f", index=0, id="a")], [Call("a", "f", "{}")]),
        # arguments as an object
        ([piece({"x": 1}, "f", index=0, id="a")], [Call("a", "f", '{"x":1}')]),
        # an id that changes on every piece, without the name, does not begin a call
        ([piece("{", "f", index=0, id="a"), piece("}", index=0, id="b")], [Call("a", "f", "{}")]),
    ],
)
def test_whatever_pieces_a_server_sends(entries: list[dict[str, Any]], expected: list[Call]) -> None:
    assert calls(*entries) == expected


def test_two_calls_with_the_same_id_are_told_apart() -> None:
    """A client that answers by id would otherwise answer one call twice."""
    first, second = calls(
        piece("{", "f", index=0, id="a"),
        piece("[", "f", index=1, id="a"),
        piece("}", "f", index=0, id="a"),
        piece("]", "f", index=1, id="a"),
    )
    assert (first.id, first.arguments) == ("a", "{}")
    assert second.id not in ("", "a") and second.arguments == "[]"


def test_missing_ids_are_made_and_stay_the_same() -> None:
    one, two = calls(piece("{}", "f", index=0), piece("{}", "g", index=0))
    assert one.id != two.id
    assert [one, two] == calls(piece("{}", "f", index=0), piece("{}", "g", index=0))


def test_a_custom_tool_takes_text_and_needs_none() -> None:
    custom = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "g", "input": ""}}
    assert events(custom) == [ToolCall(0, "", "a", "g", custom=True)]


def test_whole_calls_are_never_joined() -> None:
    found = events(piece("{}", "f"), piece("{}", "f"), whole=True)
    assert [event.call for event in found] == [0, 1]


@pytest.mark.parametrize(
    "entry",
    [
        "call",
        {"function": "f"},
        piece("{}", "f", index="0"),
        piece("{}", "f", index=True),
        piece("{}", "f", id=5),
        piece("{}", 5),
        piece(5, "f"),
        piece([], "f"),
        piece("{}", index=0),  # never a name
        {},
    ],
)
def test_nonsense_is_a_bad_reply(entry: Any) -> None:
    with pytest.raises(BadReply):
        events(entry)


JSON: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "a", "f", "custom", "{"]) | st.just([])
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "index": JSON,
        "id": JSON,
        "type": JSON,
        "function": JSON | st.fixed_dictionaries({}, optional={"name": JSON, "arguments": JSON}),
        "custom": JSON | st.fixed_dictionaries({}, optional={"name": JSON, "input": JSON}),
    },
)


@given(st.lists(ENTRY, max_size=6), st.booleans())
def test_whatever_comes_the_calls_keep_their_promises(entries: list[dict[str, Any]], whole: bool) -> None:
    try:
        found = events(*entries, whole=whole)
    except BadReply:
        return
    named = [event for event in found if event.name is not None]
    assert [event.call for event in named] == list(range(len(named)))
    assert len({event.id for event in named}) == len(named) and all(event.id for event in named)
    assert {event.call for event in found} == set(range(len(named)))
