"""Lua scripts, named by the hash of what they say, so that two releases never run each other's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    source: str
    sha: str


def load(name: str) -> Script:
    """The script in `lua/NAME.lua`."""
    source = files("app.store").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
