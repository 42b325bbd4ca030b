"""The smallest JSON value that satisfies a JSON Schema, for demanded formats and tool arguments.

Covers what schemas of tools and answers use; what it cannot satisfy (a `pattern`, say) it approximates. The schema is
the caller's, so nothing in it is trusted to have the right type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

WORD: Final = "simulated"
_DEEPEST: Final = 32
_WIDEST: Final = 64
_LONGEST: Final = 10_000
_FORMATS: Final = {
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "date-time": "2026-01-01T12:00:00Z",
    "duration": "P1D",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance(schema: Mapping[str, Any] | None) -> Any:
    """A value for the schema; an empty object where there is none."""
    return {} if schema is None else _value(schema, schema, 0)


def _value(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    if "const" in schema:
        return schema["const"]
    if isinstance(options := schema.get("enum"), list) and options:
        return options[0]
    if isinstance(ref := schema.get("$ref"), str):
        return _value(_resolve(ref, root), root, depth + 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list) and options:
            return _value(options[0], root, depth + 1)
    if isinstance(parts := schema.get("allOf"), list) and parts:
        return _all_of(parts, root, depth)
    make = _MAKERS.get(_type(schema))
    return make(schema, root, depth) if make else None


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "items" in schema:
        return "array"
    return "object" if "properties" in schema else "string"


def _resolve(ref: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for name in ref.removeprefix("#").strip("/").split("/"):
        if name:
            found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _all_of(parts: list[Any], root: Mapping[str, Any], depth: int) -> Any:
    values = [_value(part, root, depth + 1) for part in parts[:_WIDEST]]
    objects = [value for value in values if isinstance(value, dict)]
    return {key: value for one in objects for key, value in one.items()} if objects else values[0]


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    properties = schema.get("properties")
    required = schema.get("required")
    properties = properties if isinstance(properties, Mapping) else {}
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return {name: _value(properties.get(name, {}), root, depth + 1) for name in names[:_WIDEST]}


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    first = schema.get("prefixItems")
    fixed = [_value(one, root, depth + 1) for one in first[:_WIDEST]] if isinstance(first, list) else []
    rest = max(0, int(min(_number(schema, "minItems") or 0, _WIDEST)) - len(fixed))
    return fixed + [_value(schema.get("items", {}), root, depth + 1) for _ in range(rest)]


def _string(schema: Mapping[str, Any], _root: Mapping[str, Any], _depth: int) -> Any:
    named = schema.get("format")
    if isinstance(named, str) and named in _FORMATS:
        return _FORMATS[named]
    least = int(min(_number(schema, "minLength") or 0, _LONGEST))
    most = _number(schema, "maxLength")
    text = WORD.ljust(least, ".")
    return text if most is None or most < 0 else text[: int(min(most, _LONGEST))]


def _numeric(schema: Mapping[str, Any]) -> float:
    step = _number(schema, "multipleOf")
    step = step if step is not None and step > 0 else 1
    lowest, above = _number(schema, "minimum"), _number(schema, "exclusiveMinimum")
    if lowest is None and above is None:
        highest = _number(schema, "maximum")
        return 0 if highest is None or highest >= 0 else math.floor(highest / step) * step
    if above is not None and (lowest is None or above >= lowest):
        return (math.floor(above / step) + 1) * step
    assert lowest is not None
    return math.ceil(lowest / step) * step


def _integer(schema: Mapping[str, Any], _root: Mapping[str, Any], _depth: int) -> Any:
    return math.ceil(_numeric(schema))


def _float(schema: Mapping[str, Any], _root: Mapping[str, Any], _depth: int) -> Any:
    return _numeric(schema)


def _number(schema: Mapping[str, Any], key: str) -> float | None:
    value = schema.get(key)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53
    return value if usable else None


_MAKERS: Final[dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], int], Any]]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _float,
    "boolean": lambda *_: True,
    "null": lambda *_: None,
}
