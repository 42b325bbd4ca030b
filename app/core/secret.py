"""What API keys look like, ours and those of the usual providers, so that one that was put where a name belongs is not
taken for a name: names are logged, counted and stored."""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "tw-"
"""How the keys begin that are made here."""
_KEY: Final = re.compile(r"\b(?:tw|sk)-[A-Za-z0-9_-]{40}")


def holds_key(text: str) -> bool:
    return "-" in text and _KEY.search(text) is not None
