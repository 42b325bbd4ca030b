"""Typed access to JSON that may be anything: what is missing or of the wrong type becomes an error that names the
place, as `messages[2].content[0].type`.

`at` is the path of the object a field is in, ending with a dot, or empty. JSON null counts as absent. Client halves use
the `InvalidValue`-raising functions; readers of upstream replies use `parse` and judge types themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import orjson

from app.core.errors import InvalidJson, InvalidValue, RequestTooLarge

T = TypeVar("T", str, bool, dict[str, Any], list[Any])

MAX_DEPTH: Final = 64
MAX_TOKENS: Final = 10**12
COUNTED_BYTES: Final = 2_000
_NAME_LENGTH: Final = 512
_NAMES: Final[Mapping[type, str]] = {str: "a string", bool: "true or false", dict: "an object", list: "an array"}


class TooDeep(ValueError):
    """JSON nested beyond the bound."""


def parse(data: bytes, depth: int = MAX_DEPTH) -> Any:
    """The JSON value; ValueError if it is none, `TooDeep` if it is nested deeper than `depth`."""
    value = orjson.loads(data)
    if len(data) < COUNTED_BYTES:  # to search costs more to begin than to count, and a tenth per byte
        opened = data.count(b"{") + data.count(b"[") > depth
    else:
        opened = _often(b"{", data, depth // 2) or _often(b"[", data, depth // 2)
    if opened and _deeper(value, depth):
        raise TooDeep
    return value


def _often(sign: bytes, data: bytes, most: int) -> bool:
    """Whether it is there more than `most` times."""
    at = -1
    for _ in range(most + 1):
        if (at := data.find(sign, at + 1)) < 0:
            return False
    return True


def parse_body(data: bytes, body_bytes: int, depth: int) -> dict[str, Any]:
    """A client's JSON body."""
    if len(data) > body_bytes:
        raise RequestTooLarge(f"the body has {len(data)} bytes; at most {body_bytes} are allowed")
    try:
        body = parse(data, depth)
    except TooDeep:
        raise InvalidJson(f"the body is nested deeper than {depth} levels") from None
    except ValueError as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from None
    if type(body) is not dict:
        raise InvalidValue("the body must be a JSON object")
    return body


def _deeper(value: Any, depth: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def wrong(path: str, wanted: str, value: object) -> InvalidValue:
    """The error for a field that is not what it must be."""
    if value is None:
        return InvalidValue(f"'{path}' is required and must be {wanted}", param=path)
    return InvalidValue(f"'{path}' must be {wanted}", param=path)


def required(fields: Mapping[str, Any], name: str, kind: type[T], at: str = "") -> T:
    value = fields.get(name)
    if type(value) is kind:
        return value
    raise wrong(at + name, _NAMES[kind], value)


def optional(fields: Mapping[str, Any], name: str, kind: type[T], at: str = "") -> T | None:
    if name not in fields:
        return None
    value = fields[name]
    if value is None or type(value) is kind:
        return value
    raise wrong(at + name, _NAMES[kind], value)


def nonempty(fields: Mapping[str, Any], name: str, at: str = "") -> str:
    """A required string with at least one character."""
    value = required(fields, name, str, at)
    if not value:
        raise InvalidValue(f"'{at}{name}' must not be empty", param=at + name)
    return value


def integer(fields: Mapping[str, Any], name: str, low: int, high: int | None = None, at: str = "") -> int | None:
    if name not in fields or (value := fields[name]) is None:
        return None
    if type(value) is int and value >= low and (high is None or value <= high):
        return value
    bound = f"of at least {low}" if high is None else f"from {low} to {high}"
    raise wrong(at + name, f"an integer {bound}", value)


def number(fields: Mapping[str, Any], name: str, low: float, high: float, at: str = "") -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if (type(value) is int or type(value) is float) and low <= value <= high:
        return value
    raise wrong(at + name, f"a number from {low:g} to {high:g}", value)


def one_of(fields: Mapping[str, Any], name: str, allowed: frozenset[str], at: str = "") -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is str and value in allowed:
        return value
    raise wrong(at + name, "one of " + ", ".join(sorted(allowed)), value)


def objects(values: list[Any], path: str) -> list[tuple[str, dict[str, Any]]]:
    """The items of an array of objects, each with its path."""
    found = []
    for index, value in enumerate(values):
        at = f"{path}[{index}]"
        if type(value) is not dict:
            raise InvalidValue(f"'{at}' must be an object", param=at)
        found.append((at, value))
    return found


def token_count(fields: Any, name: str) -> int | None:
    """A count of tokens as an upstream gives it; None where it says none that can be true."""
    if type(fields) is not dict or name not in fields:
        return None
    value = fields[name]
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def usable_name(value: Any) -> str | None:
    """A name fit to travel on in headers and labels; None for anything else."""
    return value if isinstance(value, str) and 0 < len(value) <= _NAME_LENGTH and value.isprintable() else None
