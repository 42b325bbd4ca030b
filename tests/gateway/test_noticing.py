from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.events import Event, Finish, Reasoning, Text, ToolCall
from app.core.messages import Format, Tool
from app.core.outcome import Noticed
from app.core.request import Request
from app.gateway import noticing
from app.gateway.noticing import Noticing, compiles, has_shape, is_refusal, is_repeating
from tests.core.nouns import chat, embedding

SCHEMA = {"type": "object", "required": ["a", "b"]}
AS_JSON = chat(format=Format("json_schema", SCHEMA))
WITH_TOOL = chat(tools=(Tool("look", schema=SCHEMA), Tool("stop")))


def seen(events: Sequence[Event], request: Request | None = None) -> Noticed:
    watcher = Noticing(request or chat())
    for event in events:
        watcher.see(event)
    found = watcher.noticed()
    assert found is not None
    return found


def text(words: str, request: Request | None = None) -> Noticed:
    return seen([Text(words), Finish("stop")], request)


def call(*arguments: str, name: str = "look", **fields: Any) -> Noticed:
    first, *more = arguments
    pieces = [ToolCall(0, first, "id", name, **fields), *(ToolCall(0, piece) for piece in more)]
    return seen(pieces, WITH_TOOL)


def test_an_ordinary_answer_has_nothing_to_it() -> None:
    assert text("Paris is the capital of France.") == Noticed()
    assert text("short", chat(max_tokens=5)) == Noticed(limited=True)


def test_embeddings_are_no_answers() -> None:
    assert Noticing(embedding()).noticed() is None


@pytest.mark.parametrize("events", [[], [Text("")], [Text(" \n")], [Reasoning("hm")]])
def test_an_answer_without_anything_in_it_is_noticed(events: list[Event]) -> None:
    """Models that only think, or say nothing, end with `stop` all the same."""
    assert seen(events).bare


@given(
    st.lists(st.integers(0, 40), max_size=6), st.sampled_from(['{"a":1,"b":2}', '{"a":1}', "{", "I cannot help you"])
)
def test_however_an_answer_is_cut_the_judgement_is_the_same(cuts: list[int], words: str) -> None:
    marks = [0, *sorted(min(cut, len(words)) for cut in cuts), len(words)]
    pieces: list[Event] = [Text(words[a:b]) for a, b in pairwise(marks)]
    assert seen(pieces, AS_JSON) == text(words, AS_JSON)


# --- shape ------------------------------------------------------------------------------------------------------------


def test_json_that_was_demanded_must_parse() -> None:
    """Code that reads the answer breaks on anything else."""
    assert text('{"a": 1, "b": [2]}', AS_JSON).parses is True
    for wrong in (
        '{"a": 1',
        'Here it is: {"a": 1, "b": 2}',
        '```json\n{"a": 1, "b": 2}\n```',
        '{"a": 1}',
        "[1]",
        "\ud800",
    ):
        assert text(wrong, AS_JSON).parses is False
    assert text("[1]", chat(format=Format("json_schema", {"type": "array"}))).parses is True
    assert text("[1]", chat(format=Format("json_object"))).parses is False
    assert text("{").parses is None


def test_arguments_must_parse_and_have_what_the_tool_requires() -> None:
    assert call('{"a":1,', '"b":2}').parses is True
    assert call('{"a":1}').parses is False
    assert call('{"a":1').parses is False
    assert call("", name="stop").parses is True
    assert call("{}", name="other").parses is False
    assert call("free text", custom=True).parses is None


def test_a_call_in_place_of_demanded_json_is_no_broken_json() -> None:
    request = chat(format=Format("json_schema", SCHEMA), tools=WITH_TOOL.tools)
    assert seen([ToolCall(0, '{"a":1,"b":2}', "id", "look")], request).parses is True
    assert seen([ToolCall(0, "{}", "id", "stop"), Text("{")], request).parses is False


def test_what_is_too_long_to_keep_is_not_judged() -> None:
    """Half of a JSON text is no proof that the whole is broken."""
    long = '{"a": "' + "x" * noticing.WHOLE_CHARS + '", "b": 1}'
    assert seen([Text(long[i : i + 1000]) for i in range(0, len(long), 1000)], AS_JSON).parses is None
    assert seen([ToolCall(0, long, "id", "look")], WITH_TOOL).parses is None
    calls: list[Event] = [ToolCall(n, '{"a":1,"b":2}', "id", "look") for n in range(noticing.CALLS_MAX)]
    assert seen([*calls, ToolCall(99, "{", "id", "look")], WITH_TOOL).parses is True


def test_only_so_much_of_an_answer_is_kept() -> None:
    """A stream of hours must not fill the memory."""
    watcher = Noticing(chat())
    for _ in range(10_000):
        watcher.see(Text("word " * 10))
        assert sum(map(len, watcher._pieces)) <= 5 * noticing.TAIL_CHARS
    assert watcher.noticed() == Noticed(repeating=True)


def test_other_choices_are_not_mixed_in() -> None:
    events: list[Event] = [Text('{"a":1,', 0), Text("XX", 1), Text('"b":2}', 0), ToolCall(0, "{", "i", "x", choice=1)]
    assert seen(events, AS_JSON) == Noticed(parses=True)


@given(
    st.text(),
    st.dictionaries(st.sampled_from(["type", "required", "x"]), st.one_of(st.text(), st.integers(), st.none())),
)
def test_any_text_and_any_schema_can_be_judged(words: str, schema: dict[str, Any]) -> None:
    has_shape(words, schema)
    has_shape('{"a": 1}', {"type": "object", **schema})
    has_shape('{"a": 1}', {"type": "object", "required": [words, 5, None]})


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I can’t assist with this request.",
        "I cannot provide instructions for that.",
        "As an AI language model, I cannot discuss this.",
        "Sorry, I am unable to comply.",
        "Unfortunately, I'm not able to help with this.",
        "**I won't generate that.**",
    ],
)
def test_a_refusal_is_noticed(words: str) -> None:
    assert text(words).refused


@pytest.mark.parametrize(
    "words",
    [
        "I'm sorry to hear that. Here is what helps: rest.",
        "You cannot help it: floats are like that.",
        "I can help with that.",
        "The function cannot provide a default.",
        "I can't help but notice the missing index. " + "Add it so. " * 60,
        "",
    ],
)
def test_what_helps_is_no_refusal(words: str) -> None:
    assert not text(words).refused


def test_an_upstreams_own_word_for_a_refusal_counts() -> None:
    assert seen([Text("Nein.", refusal=True)], AS_JSON) == Noticed(refused=True)


def test_a_call_after_polite_words_is_no_refusal() -> None:
    assert not seen([Text("I cannot answer that by heart."), ToolCall(0, "{}", "i", "stop")], WITH_TOOL).refused


@given(st.text(max_size=700))
def test_any_text_may_be_a_refusal(words: str) -> None:
    is_refusal(words)


# --- repetition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit", ["ha", "the same words again. ", "\n", "漢字", "x" * 50, "A whole sentence that goes on. " * 8]
)
def test_a_loop_is_noticed(unit: str) -> None:
    """A model that cannot stop burns tokens until its limit."""
    assert text("Here is the answer. " + unit * (6_000 // len(unit))).repeating


def test_tables_code_and_prose_are_no_loops() -> None:
    table = "".join(f"| {n} | {n * n} | {n**3 % 97} |\n" for n in range(300))
    code = "".join(f"def get_{n}(self):\n    return self._{n * 7}\n\n" for n in range(150))
    prose = " ".join(
        f"On day {n} we went {['north', 'south', 'east'][n % 3]} and saw {n * 13 % 41} birds." for n in range(90)
    )
    assert not any(is_repeating(each[-noticing.TAIL_CHARS :]) for each in (table, code, prose))
    assert not is_repeating("ha" * 200)


@given(st.text(min_size=noticing.REPEATED_CHARS, max_size=noticing.REPEATED_CHARS + 400))
def test_any_text_can_be_looked_at_for_loops(words: str) -> None:
    is_repeating(words)


# --- code -------------------------------------------------------------------------------------------------------------


def block(code: str, language: str = "python") -> str:
    return f"Like this:\n```{language}\n{code}\n```\nDone."


def test_code_that_cannot_be_parsed_is_noticed() -> None:
    assert text(block("def f(x):\n    return x")).compiles is True
    assert text(block("def f(x)\n    return x")).compiles is False
    assert text(block('{"a": 1}', "json")).compiles is True
    assert text(block('{"a": 1,}', "json")).compiles is False
    assert text(block("x = 1") + "\n" + block("x = = 1")).compiles is False


@pytest.mark.parametrize(
    "words",
    [
        block(">>> 1 +\n2"),
        block("def f(:\n    ..."),
        block("$ pip install x"),
        block("fn main() {", "rust"),
        block('{"a": 1} // note', "json"),
        "```python\ndef f(",
        "no code",
    ],
)
def test_what_nobody_meant_to_be_parsed_is_not_judged(words: str) -> None:
    assert text(words).compiles is None


@pytest.mark.parametrize(
    "code", ["-" * 4000 + "1", "(" * 4000, "x" + ".x" * 1900, "\0", "'\\d'", "9" * 4000, "\ud800", "x='\\N{no}'"]
)
def test_hostile_code_is_survived(code: str) -> None:
    """The parser is the interpreter's own; nothing an upstream sends may get out of it."""
    assert compiles(block(code)) in (True, False)


def test_only_so_many_blocks_are_parsed() -> None:
    assert compiles("\n".join([block("x = 1")] * noticing.BLOCKS_MAX + [block("x = = 1")])) is True


@given(st.text())
def test_any_code_can_be_judged(code: str) -> None:
    compiles(block(code))
    compiles(block(code, "json"))
