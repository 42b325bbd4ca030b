"""What is handed in when nothing is known: a plan must not be worse for it."""

from __future__ import annotations

from app.routing.signals import QUIET
from tests.core.nouns import card

CARD = card("gpu/a")


def test_nothing_known_speaks_against_nobody() -> None:
    assert QUIET.demoted(CARD) is None
    assert QUIET.load(CARD) == 0.0
    assert QUIET.first_token(CARD) is None
    assert QUIET.observed(CARD, "code", "simple") is None
    assert QUIET.draw == 1.0  # no chance is taken
