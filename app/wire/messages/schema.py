"""Makes a JSON Schema one that Claude's structured output takes, without changing what a valid answer is more than
it must: objects are closed, `oneOf` becomes `anyOf`, and keywords that are not enforced move into the description,
where the model at least reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from app.core.errors import InvalidValue, UnsupportedParameter

STRING_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
MAX_NESTING: Final = 64
_MAPS: Final = ("$defs", "definitions", "properties")
_UNIONS: Final = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
_KEPT: Final = frozenset({"type", "$ref", "required", "title", "description", "enum", "const"})
_BESIDE_REF: Final = frozenset({"$ref", "$defs", "definitions"})
_SILENT: Final = frozenset({"$schema", "$id", "$comment", "additionalProperties", "strict"})
"""Keywords that say nothing to a model, or that are set anyway."""


def transform(schema: Any, param: str, nesting: int = MAX_NESTING) -> dict[str, Any]:
    """The schema as Claude takes it. Errors name `param`: `InvalidValue` for what is no schema,
    `UnsupportedParameter` for an object of free keys, which would come out always empty."""
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise InvalidValue("the schema, and each schema in it, must be an object", param=param)
    if not nesting:
        raise InvalidValue(f"the schema is nested deeper than {MAX_NESTING} levels", param=param)
    if "$ref" in schema:
        schema = {key: value for key, value in schema.items() if key in _BESIDE_REF}
    result: dict[str, Any] = {}
    told: list[str] = []
    for key, value in schema.items():
        moved = key in _SILENT or _move(result, key, value, lambda inner: transform(inner, param, nesting - 1))
        if not moved and not _enforced(result, key, value, schema.get("type")):
            told.append(f"{key}: {orjson.dumps(value).decode()}")
    if _is_object(schema):
        _close(result, schema, param)
    if told:
        known = result.get("description")
        result["description"] = (f"{known}\n\n" if isinstance(known, str) else "") + "{" + ", ".join(told) + "}"
    return result


def _move(result: dict[str, Any], key: str, value: Any, inside: Callable[[Any], dict[str, Any]]) -> bool:
    """Takes over a keyword that holds schemas; False when it is another."""
    if key in _MAPS and isinstance(value, dict):
        result[key] = {name: inside(each) for name, each in value.items()}
    elif key in _UNIONS and isinstance(value, list):
        result.setdefault(_UNIONS[key], []).extend(inside(each) for each in value)
    elif key == "items" and not isinstance(value, list):  # a list is the old form of a tuple, and not enforced
        result[key] = inside(value)
    else:
        return False
    return True


def _enforced(result: dict[str, Any], key: str, value: Any, kind: Any) -> bool:
    """Takes over a keyword that is enforced as it stands; False when it can only be told."""
    enforced = (
        key in _KEPT
        or (key == "minItems" and value in (0, 1))
        or (key == "format" and kind == "string" and isinstance(value, str) and value in STRING_FORMATS)
    )
    if enforced:
        result[key] = value
    return enforced


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or ("properties" in schema and not kind)


def _close(result: dict[str, Any], schema: dict[str, Any], param: str) -> None:
    if isinstance(schema.get("additionalProperties"), dict) and not schema.get("properties"):
        raise UnsupportedParameter("this model's structured output has no objects of free keys", param=param)
    result.setdefault("properties", {})
    result["additionalProperties"] = False
