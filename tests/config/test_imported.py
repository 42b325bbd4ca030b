"""What is written must say what was meant, and nothing in a foreign file may become a line of ours."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.config.file import parse
from app.config.imported import Imported, as_file, lines
from app.config.problems import Problem

SCALARS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=200),
    st.integers(-(10**9), 10**9),
    st.floats(0, 10**9),
    st.booleans(),
    st.sampled_from(["on", "true", "null", "1e5", "0x1f", "12:30", "~", "2026-01-01", "a: b", "# x", "", ".5"]),
)
DATA = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=200),
    st.recursive(
        SCALARS, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text("abc/:.*", min_size=1), inner))
    ),
    max_size=5,
)


@given(DATA)
def test_what_is_written_is_read_back_the_same(data: dict[str, object]) -> None:
    """By our reader, to which `on` is text and `1e5` is a number, whatever other readers think."""
    document = parse(as_file(Imported("config.yaml", data)).encode(), "made")
    assert document.problems == [] and document.data == data


def test_notes_stay_notes() -> None:
    """A key with a line break in it must not break out of the comment."""
    note = Problem("a\nupstreams: {}", 3, "x\ny: 1\r\u2028z", "is\x85not\nknown")
    made = Imported("b\nmodels: {}", {"limits": {"in_flight": 1}}, [note], ["A_KEY"])
    text = as_file(made)
    assert yaml.safe_load(text) == {"limits": {"in_flight": 1}} == parse(text.encode(), "made").data
    assert all(line.startswith("#") for line in text.splitlines()[:-2])
    assert all(line.isprintable() for line in lines(made))
    assert "A_KEY" in text


def test_without_notes_there_is_no_list_of_them() -> None:
    assert "Not carried over" not in as_file(Imported("c"))
