"""Conversations for tests: what was said so far, in few words."""

from __future__ import annotations

from app.core.messages import Message, TextPart, ThinkingPart, ToolResultPart, ToolUsePart


def user(text: str) -> Message:
    return Message("user", (TextPart(text),))


def assistant(text: str = "Here it is.") -> Message:
    return Message("assistant", (TextPart(text),))


def thought(signature: str | None = "sig", redacted: str | None = None) -> Message:
    return Message("assistant", (ThinkingPart("hm", signature, redacted), TextPart("Here it is.")))


def system(text: str = "Be kind.") -> Message:
    return Message("system", (TextPart(text),))


CALL = Message("assistant", (ToolUsePart("c1", "read", "{}"),))
RESULT = Message("tool", (ToolResultPart("c1", (TextPart("42"),)),))
LOOP = (user("Read the file."), CALL, RESULT)
SECOND_TURN = (user("Hello."), assistant(), user("And now?"))
