"""Any bytes at all end in data or in a problem with a line, never in an exception."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from app.config.file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse, read_file


def problems(text: str | bytes) -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    return [str(each) for each in parse(raw, "t.yaml").problems]


def test_scalars_mean_what_they_look_like() -> None:
    """`on` as a key, a model called 1:30 or a date must not turn into something else."""
    document = parse(
        b"a: {on: true, off: No, d: 2024-10-22, t: 1:30, i: 7, n: -1, f: 0.5, e: 1e3, z: ~, s: '5', inf: .inf,"
        b" big: 1_0}",
        "t.yaml",
    )
    assert document.problems == []
    assert document.data["a"] == {
        **{"on": True, "off": "No", "d": "2024-10-22", "t": "1:30", "i": 7, "n": -1},
        **{"f": 0.5, "e": 1000.0, "z": None, "s": "5", "inf": float("inf"), "big": "1_0"},
    }


def test_every_value_has_its_line() -> None:
    document = parse(b"a:\n  b:\n    - x\n    - y\nc: 1\n", "t.yaml")
    assert document.line(("a", "b", 1)) == 4
    assert document.line(("c",)) == 5
    assert document.line(("a", "b", 9, "deeper")) == 2
    assert document.line(("nowhere",)) is None


@pytest.mark.parametrize("text", ["", " \n\n", "# nothing\n", "~", "null\n", "---\n", "\ufeff"])
def test_an_empty_file_is_a_mistake(text: str) -> None:
    """A full disk or a half-done copy leaves one, and it would take away every budget."""
    assert problems(text) == ["t.yaml: is empty; {} says that nothing is to be set"]


def test_a_file_may_say_that_nothing_is_set() -> None:
    document = parse(b"{}", "t.yaml")
    assert (document.data, document.problems) == ({}, [])


def test_a_key_written_twice_names_both_lines() -> None:
    assert problems("a: 1\nb: 2\na: 3\n") == ["t.yaml:3: a: is written twice, first on line 1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system ['true']", "t.yaml:1: a: YAML tags are not allowed here"),
        ("a: !secret x", "t.yaml:1: a: YAML tags are not allowed here"),
        ("- a\n- b\n", "t.yaml:1: must be a mapping of keys to values"),
        ("word", "t.yaml:1: must be a mapping of keys to values"),
        ("x:\n  ? [a, b]\n  : 1\n", "t.yaml:2: x: a key must be text"),
        (b"a: 1\nb: \xff\n", "t.yaml:2: is not UTF-8 text"),
        (
            "a: 1\n\tb: 2\n",
            "t.yaml:2: is not valid YAML: found character '\\t' that cannot start any token"
            "; indent with spaces, never with tabs",
        ),
        (
            "a:\n  b: 1\n c: 2\n",
            "t.yaml:3: is not valid YAML: expected <block end>, but found '<block mapping start>'"
            "; is this line indented like its neighbours?",
        ),
        (
            "a: b: c\n",
            "t.yaml:1: is not valid YAML: mapping values are not allowed here"
            "; put quotes around a text that holds a colon",
        ),
        ("a: 1\n---\nb: 2\n", "t.yaml:2: is not valid YAML: but found another document"),
        ("a: *nobody\n", "t.yaml:1: is not valid YAML: found undefined alias 'nobody'"),
        (b"a: \x07", "t.yaml: is not valid YAML: special characters are not allowed"),
    ],
)
def test_what_is_wrong_with_the_form_is_said_with_its_line(text: str | bytes, said: str) -> None:
    assert problems(text) == [said]


def test_an_excerpt_of_the_file_is_never_repeated() -> None:
    """A secret on the broken line would end up in a log."""
    assert "sk-secret" not in problems("api_key: 'sk-secret\nb: [\n")[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
        "a: " + "[" * 20_000,
        "a: &a [*a]",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{y}: &{y} [*{x},*{x},*{x},*{x},*{x},*{x},*{x},*{x},*{x}]\n"
            for x, y in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: [" + "1," * (MAX_VALUES + 10) + "]",
        "a: " + "x" * MAX_BYTES,
    ],
    ids=["deep", "very-deep", "cycle", "bomb", "many", "large"],
)
def test_a_file_without_bounds_is_refused_at_once(text: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert len(found[0]) < 300


def test_shared_parts_may_be_written_once() -> None:
    assert parse(b"a: &t {x: 1}\nb: *t\n", "t.yaml").data == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_number_of_ten_thousand_digits_is_no_crash() -> None:
    assert parse(b"a: " + b"9" * 10_000, "t.yaml").data == {"a": "9" * 10_000}


@hypothesis(deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!#\n '\"|>?,~1.", max_size=60).map(str.encode))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    document = parse(raw, "t.yaml")
    assert isinstance(document.data, dict)


def test_a_file_is_read_with_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(path).data == {"a": 1}


def test_a_missing_file_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    assert str(read_file(tmp_path / "no.yaml").problems[0]).endswith(
        "no.yaml: cannot be read: No such file or directory"
    )
    assert "cannot be read" in str(read_file(tmp_path).problems[0])


@pytest.mark.parametrize("text", ['a: "\\ud800"', '"\\udfff": 1', 'a: ["\\udc00x"]'])
def test_half_a_character_is_told_with_its_line(text: str) -> None:
    """The gateway would not start, and not say why."""
    assert problems(text)[0].startswith("t.yaml:1:") and "half of a character" in problems(text)[0]
