"""What cannot be read back as it was written is a conversation lost."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InternalError
from app.sessions.said import NOTHING, UNPACKED_MAX, Kept, read_kept, read_said, said, write_fields
from tests.sessions.talk import says, system, user

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, st.none() | TEXT, st.integers(0, 2**33), st.sampled_from([1, 200, 20_000]))
def test_messages_survive(text: str, by: str | None, at: int, times: int) -> None:
    one = said(user(text * times), by, float(at))
    assert read_said(one.data) == one


def test_long_messages_take_less_room_and_huge_ones_no_time() -> None:
    assert len(said(user("again " * 1_000), None, 1.0).data) < 500
    assert len(said(user("again " * 20_000), None, 1.0).data) > 100_000


def test_sessions_survive() -> None:
    kept = Kept(
        (said(user("a"), None, 1.0), said(says("b"), "gpu/m", 2.0)),
        (system(),),
        *("gpu/m", frozenset({0}), 3, 2, 1.5, 2.5),
        *("17", "18"),
    )
    fields: list[Any] = [b"born", b"17", b"version", b"18"]
    fields += [each.encode() if isinstance(each, str) else each for each in write_fields(kept)]
    assert read_kept(fields, [each.data for each in kept.said]) == kept
    assert read_kept([], []) == NOTHING and kept.messages == [user("a"), says("b")]


def test_parts_are_counted() -> None:
    parts = [{"type": "text", "text": "x"}] * 3
    assert said({"role": "user", "content": parts}, None, 0.0).pieces == 4 and said(user("a"), None, 0.0).pieces == 1


@pytest.mark.parametrize(
    "entry",
    [
        *(
            b"",
            b"[",
            b"[]",
            b"x\x9c",
            b"{}",
            b"[1, null, {}]",
            b'[1, null, {"role": 5}]',
            b'["1", null, {"role": "user"}]',
        ),
        *(
            b'[1, null, {"role": "user", "content": [1]}]',
            b'[1, null, {"role": "user", "tool_calls": [{"function": 1}]}]',
        ),
        b"[" * 300 + b"]" * 300,
        zlib.compress(orjson.dumps([1.0, None, {"role": "user", "content": "x" * UNPACKED_MAX}])),
    ],
)
def test_a_damaged_session_is_said_to_be_one(entry: bytes) -> None:
    """And is no answer made of half a conversation, nor one that takes all memory."""
    about = [each if isinstance(each, bytes) else each.encode() for each in write_fields(Kept(turns=1))]
    with pytest.raises(InternalError):
        read_kept([*about, b"born", b"1", b"version", b"1"], [entry])
