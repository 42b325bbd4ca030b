"""Whether an object is what Kubernetes takes: its own schemas, strict, so that a misspelt field is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

SCHEMAS: Final = Path(__file__).with_name("kubernetes-1.37.json")
KEYWORDS: Final = {"type", "properties", "additionalProperties", "required", "items", "enum", "oneOf", "$ref"}
TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


@cache
def schemas() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SCHEMAS.read_text())
    return found


def wrong(document: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with an object, by its place in it."""
    kind = f"{document['apiVersion']} {document['kind']}"
    return list(_wrong(document, schemas()["kinds"][kind], kind))


def _wrong(value: Any, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    assert set(schema) <= KEYWORDS, f"this knows nothing of {set(schema) - KEYWORDS}"
    if "$ref" in schema:
        yield from _wrong(value, schemas()["definitions"][schema["$ref"]], where)
        return
    if "oneOf" in schema and not any(not list(_wrong(value, each, where)) for each in schema["oneOf"]):
        yield f"{where}: {value!r} is none of what it may be"
    if "type" in schema and not _is(value, schema["type"]):
        yield f"{where}: {value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, dict):
        yield from _wrong_object(value, schema, where)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _wrong(item, schema.get("items", {}), f"{where}[{number}]")


def _wrong_object(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}: {name} is missing"
    for name, each in value.items():
        if name in known:
            yield from _wrong(each, known[name], f"{where}.{name}")
        elif others is False or (others is True and "properties" in schema):
            yield f"{where}: there is no field {name}"
        elif isinstance(others, Mapping):
            yield from _wrong(each, others, f"{where}.{name}")


def _is(value: Any, names: str | list[str]) -> bool:
    """null is never taken: nobody means it who writes it."""
    wanted = [names] if isinstance(names, str) else names
    return any(
        isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in wanted
        if name != "null"
    )
