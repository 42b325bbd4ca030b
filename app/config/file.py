"""Reads one YAML file into plain data and remembers on which line everything stands. What it means is the schema's.

The YAML is the plain part of YAML 1.2: `on`, `yes`, dates and `12:30` are text, a key written twice is an error,
tags are refused. The file is trusted no more than a request: its size, depth and number of values are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

import yaml

from app.config.problems import Path, Problem, dotted

MAX_BYTES: Final = 1_048_576
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 50_000

HALF_WORDS: Final = "holds half of a character, written as \\ud800 to \\udfff"
_HALF: Final = re.compile("[\ud800-\udfff]")
_PLAIN: Final = "tag:yaml.org,2002:"
_HINTS: Final = (
    ("'\\t'", "; indent with spaces, never with tabs"),
    ("expected <block end>", "; is this line indented like its neighbours?"),
    ("mapping values are not allowed here", "; put quotes around a text that holds a colon"),
)
"""What people did who were told this."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 alone; `fallback: {on: true}` must not become `{True: True}`."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML declares it


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_PLAIN + _tag, re.compile(f"(?:{_pattern})$"), _first)


@dataclass
class Document:
    """The data of a file, the line of each path in it, and what was wrong with its form."""

    name: str = "configuration file"
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Path) -> int | None:
        """The line of the path, else of the nearest thing around it that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: Path, message: str, nearest: str | None = None) -> Problem:
        return Problem(self.name, self.line(path), dotted(path), message, nearest)


def read_file(path: FilePath) -> Document:
    """The document at `path`; a file that cannot be read is one problem, not an exception."""
    name = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Document(
            name, problems=[Problem(name, None, "", f"cannot be read: {error.strerror or 'unknown error'}")]
        )
    return parse(raw, name)


def parse(raw: bytes, name: str) -> Document:
    """The document in `raw`, whatever is in it."""
    document = Document(name)
    if len(raw) > MAX_BYTES:
        document.problems.append(Problem(name, None, "", f"is larger than {MAX_BYTES} bytes"))
        return document
    try:
        node = yaml.compose(raw.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError as error:
        document.problems.append(Problem(name, raw[: error.start].count(b"\n") + 1, "", "is not UTF-8 text"))
    except RecursionError:
        document.problems.append(Problem(name, None, "", "is nested too deeply"))
    except yaml.YAMLError as error:
        document.problems.append(_syntax_problem(error, name))
    else:
        _fill(document, node)
    return document


def _syntax_problem(error: yaml.YAMLError, name: str) -> Problem:
    """PyYAML's own words without its excerpt of the file, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    hint = next((hint for words, hint in _HINTS if words in said), "")
    return Problem(name, mark.line + 1 if mark else None, "", f"is not valid YAML: {said}{hint}")


def _fill(document: Document, node: yaml.Node | None) -> None:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _PLAIN + "null"):
        # Far likelier cut off, or not yet written, than meant: it would take away every upstream and every budget.
        document.problems.append(Problem(document.name, None, "", "is empty; {} says that nothing is to be set"))
        return
    if not isinstance(node, yaml.MappingNode):
        document.problems.append(
            Problem(document.name, node.start_mark.line + 1, "", "must be a mapping of keys to values")
        )
        return
    data = _Reader(document).read(node, ())
    document.data = data if isinstance(data, dict) else {}


class _Reader:
    """Turns nodes into data; one per document, because it counts what it has made."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._values = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or len(path) > MAX_DEPTH:
            return self._refuse(node, path, "holds too many or too deeply nested values")
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, path)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return self._sequence(node, path)
            case yaml.ScalarNode() if _HALF.search(node.value):
                return self._refuse(node, path, HALF_WORDS)
            case yaml.ScalarNode() if node.tag in _SCALARS:
                return _SCALARS[node.tag](node.value)
            case _:
                return self._refuse(node, path, "YAML tags are not allowed here")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, path, "a key must be text")
                continue
            key = key_node.value
            if _HALF.search(key):
                self._refuse(key_node, path, HALF_WORDS)
                continue
            inner = (*path, key)
            if key in data:
                self._refuse(key_node, inner, f"is written twice, first on line {self._document.line(inner)}")
                continue
            self._document.lines[inner] = key_node.start_mark.line + 1
            data[key] = self.read(value_node, inner)
        return data

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        data: list[Any] = []
        for index, item in enumerate(node.value):
            inner = (*path, index)
            self._document.lines[inner] = item.start_mark.line + 1
            data.append(self.read(item, inner))
        return data

    def _refuse(self, node: yaml.Node, path: Path, message: str) -> None:
        document = self._document
        if self._values <= MAX_VALUES + 1:  # once it is too much, say so once
            document.problems.append(Problem(document.name, node.start_mark.line + 1, dotted(path), message))


def _integer(text: str) -> int | str:
    """Digits without end stay text: Python refuses to convert them, and no setting is that large."""
    return int(text) if len(text) <= 40 else text


_SCALARS: Final[Mapping[str, Any]] = {
    _PLAIN + "str": str,
    _PLAIN + "int": _integer,
    _PLAIN + "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    _PLAIN + "bool": lambda text: text.lower() == "true",
    _PLAIN + "null": lambda text: None,
}
