"""A user must be able to take the conversation along, and to read it."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from app.sessions.export import as_json, as_markdown, fenced
from app.sessions.said import Kept, said
from tests.sessions.talk import calls, result, says, system, user

KEPT = Kept(
    (
        said(user("What is in it?"), None, 1.0),
        said({**calls("c1"), "reasoning_content": "hm"}, "gpu/m", 2.0),
        said(result("c1", "``` 42 ```"), None, 3.0),
        said({**says("42."), "refusal": "No more."}, "claude/m", 4.0),
        said({"role": "user", "content": [{"type": "text", "text": "And?"}, {"type": "image_url"}]}, None, 5.0),
    ),
    (system("Be kind."),),
    model="claude/m",
    dropped=2,
    turns=2,
    created_at=1.5,
    updated_at=4.5,
)


def test_as_json_it_can_be_sent_again() -> None:
    read = orjson.loads(as_json("s-1", KEPT))
    assert read["messages"] == [system("Be kind."), *KEPT.messages]
    about = {"object": "session", "model": "claude/m", "turns": 2, "dropped_messages": 2}
    assert (read["id"], read["created_at"], read["updated_at"]) == ("s-1", 1, 4)
    assert {name: read[name] for name in about} == about


def test_as_markdown_it_can_be_read() -> None:
    text = as_markdown("s-1", KEPT)
    order = ["# Session s-1", "2 oldest", "## System", "Be kind.", "## User", "What is in it?", "## Assistant (gpu/m)"]
    order += ["hm", "Calls `read`:", "```json\n{}\n```", "## Tool", "42", "## Assistant (claude/m)", "No more.", "And?"]
    order += ["*[image_url]*"]
    found = [text.index(piece) for piece in order]
    assert found == sorted(found)
    assert "oldest" not in as_markdown("s", Kept()) and as_markdown("s", Kept()) == "# Session s\n"


@given(st.text("`a\n", max_size=30))
def test_nothing_ends_a_block(text: str) -> None:
    block = fenced(text)
    fence = block[: block.index("\n")]
    assert fence not in text and block.endswith(f"\n{fence}")
