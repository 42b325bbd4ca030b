"""Who may use which model: a key that is too wide spends somebody else's money."""

from __future__ import annotations

import pytest

from app.core.caller import ANONYMOUS, Caller


@pytest.mark.parametrize(
    ("models", "names", "allowed"),
    [
        ((), ("gpu/any",), True),
        (("gpu/qwen",), ("gpu/qwen", "qwen"), True),
        (("qwen",), ("gpu/qwen", "qwen"), True),
        (("gpu/*",), ("gpu/org/qwen", "org/qwen"), True),
        (("gpu/*",), ("claude/opus", "opus"), False),
        (("claude/claude-[hs]*",), ("claude/claude-sonnet",), True),
        (("claude/claude-[hs]*",), ("claude/claude-opus",), False),
        (("GPU/*",), ("gpu/qwen",), False),
        (("nothing", "auto"), ("gpu/qwen", "qwen", "auto"), True),
        (("qwen",), ("gpu/qwen-large", "qwen-large"), False),
        (("gpu/*",), (), False),
    ],
)
def test_a_key_may_use_what_its_patterns_name(models: tuple[str, ...], names: tuple[str, ...], allowed: bool) -> None:
    """A pattern matches whole names, in their own case, by any of the names that a model has."""
    assert Caller(models=models).may_use(*names) is allowed


def test_nobody_in_particular_may_use_everything() -> None:
    """Zero configuration works without a key."""
    assert ANONYMOUS.may_use("claude/opus")
    assert ANONYMOUS.privacy == "any"
    assert ANONYMOUS.key_id is None
