"""The configuration of another gateway as one of ours: the data, the notes on what was left out, and the file of both.

Who reads the other's file is its own module; what the data means is the schema's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from app.config.problems import Problem

PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-")
WIDTH: Final = 200


@dataclass
class Imported:
    """`variables` are those that must hold a key before the data can be loaded."""

    source: str
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[Problem] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)


def lines(imported: Imported) -> Iterator[str]:
    """The notes for people, one line each, whatever stood in the file."""
    for note in imported.notes:
        yield _one_line(str(note))


def as_file(imported: Imported) -> str:
    """The YAML file, headed by all that it does not say."""
    head = [f"Made from {_one_line(imported.source)} by: tierway import litellm"]
    if imported.variables:
        head.append(f"Set before the start: {', '.join(imported.variables)}")
    head += (
        ["Not carried over, or different here:", *(f"  {line}" for line in lines(imported))] if imported.notes else []
    )
    body = yaml.dump(imported.data, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    return "".join(f"# {line}\n" for line in head) + body


class _Dumper(yaml.SafeDumper):
    """Text in quotes unless it is made of letters: readers differ in what else they take for text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    plain = text and PLAIN.issuperset(text) and text[0].isalpha()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
