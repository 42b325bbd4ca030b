"""What may be configured already and has no effect in this version, as one table: who writes it is told so.

A row goes when the feature comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from app.config.resolve import KINDS
from app.config.settings import Settings

LATER: Final[Mapping[str, str]] = {}
"""Keys and sections, as `validate.keys` writes them, and variables; with what to tell who sets them."""


def said_of(key: str) -> str | None:
    """What the table says of a key, or of a section that it is in."""
    return next((words for row, words in LATER.items() if key == row or key.startswith((f"{row}.", f"{row}["))), None)


def without_effect(settings: Settings) -> list[tuple[str, str]]:
    """What is set to something else than its default and has no effect: where, and what to tell."""
    return [(where, words) for where, key in _changed(settings) if (words := said_of(key))]


def _changed(settings: Settings) -> Iterator[tuple[str, str]]:
    """Where it is, and the key or variable it is an instance of."""
    bare = Settings()
    for section in ("budget", "sessions", "streaming"):
        here, there = getattr(settings, section), getattr(bare, section)
        for name in type(there).model_fields:
            if getattr(here, name) != getattr(there, name):
                yield f"{section}.{name}", f"{section}.{name}"
    for upstream in settings.upstreams.values():
        if upstream.max_concurrency != KINDS[upstream.kind].max_concurrency:
            yield f"upstreams.{upstream.name}.max_concurrency", "upstreams.NAME.max_concurrency"
        if upstream.cost_per_hour:
            yield f"upstreams.{upstream.name}.cost_per_hour", "upstreams.NAME.cost_per_hour"
    yield from _changed_flags(settings, bare)


def _changed_flags(settings: Settings, bare: Settings) -> Iterator[tuple[str, str]]:
    usual = bare.flags.start
    for name, share in settings.flags.start.items():
        if share != usual[name]:
            yield f"FEATURE_{name}", f"FEATURE_{name}"
    overrides = settings.flags.overrides
    for table in type(overrides).model_fields:
        for who, flags in getattr(overrides, table).items():
            for name, share in flags.items():
                if share != usual[name.upper()]:
                    yield f"features.overrides.{table}.{who}.{name}", f"FEATURE_{name.upper()}"
