from __future__ import annotations

import secrets

import pytest

from app.access.keys import SECRET_BYTES
from app.core.secret import PREFIX, holds_key


@pytest.mark.parametrize("around", ["{}", "my key is {}", "{}!", "Bearer {}"])
def test_what_we_make_is_known_wherever_it_stands(around: str) -> None:
    """Else a key that somebody pastes into the wrong field is in every log."""
    for _ in range(50):
        assert holds_key(around.format(PREFIX + secrets.token_urlsafe(SECRET_BYTES)))


def test_what_others_make_is_known() -> None:
    assert holds_key("sk-ant-api03-" + "x" * 90) and holds_key("sk-proj-" + "y_-" * 40)


@pytest.mark.parametrize(
    "name", ["auto", "qe-agent-1", "tw-team", "task-force-4711", "sk-learn", "3f1c7a2e-5b0d-4c6f-9a8e-1d2b3c4d5e6f" * 2]
)
def test_names_are_names(name: str) -> None:
    assert not holds_key(name)
