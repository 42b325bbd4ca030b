"""Which errors every operation of the OpenAPI document may answer with, and in which shape.

FastAPI can tell of 422 alone, and in a shape that is not ours; what is common to all operations is said here once, what
only one of them answers stands at its route.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]

ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
SHAPE: Final[Json] = {"$ref": "#/components/schemas/Error"}
NOT_OURS: Final = ("HTTPValidationError", "ValidationError")
"""The shapes that the framework would give its errors; ours have another."""

WITH_KEY: Final = {
    "401": "The key is missing or not valid.",
    "429": "A limit of the key is reached, or too many wrong keys came from this address; see `retry-after`.",
    "503": "The store does not answer, the gateway is overloaded, or it is shutting down; see `retry-after`.",
}
WITH_BODY: Final = {
    "400": "The body is not valid JSON, or a value in it is wrong: `error.param` names the field.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "422": "A value is wrong, or there is no such field: `error.param` names it.",
}
WITH_PARAMETERS: Final = {"422": WITH_BODY["422"]}
WITH_NAME: Final = {"404": "There is nothing of this name."}
OF_OPERATORS: Final = {"404": "There is nothing of this name, or no `TIERWAY_ADMIN_KEY` is set."}


def described(words: dict[str, str]) -> dict[int | str, Any]:
    """Responses with these statuses, each an error."""
    content = {"application/json": {"schema": SHAPE}}
    return {status: {"description": text, "content": content} for status, text in words.items()}


def answers(*kinds: str, about: str = "The answer", fields: Json | None = None) -> Json:
    """For a route whose replies FastAPI does not make: their content types, and the fields of those in JSON."""
    shape: Json = {"type": "object", "required": list(fields or {}), "properties": fields or {}}
    content = {kind: {"schema": shape if kind == "application/json" else {}} for kind in kinds}
    return {"description": about, "content": content}


def document_errors(document: Json) -> None:
    """Adds them to every operation; what an operation says itself stays."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = ERROR
    for name in NOT_OURS:
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if _is_the_frameworks(responses.get("422")):
                del responses["422"]
            for words in _errors(path, operation):
                responses = {**described(words), **responses}
            operation["responses"] = dict(sorted(responses.items()))


def _errors(path: str, operation: Json) -> Iterator[dict[str, str]]:
    if operation.get("security"):
        yield WITH_KEY
    if path.startswith("/admin/"):
        yield OF_OPERATORS
    if "{" in path:
        yield WITH_NAME
    if "requestBody" in operation:
        yield WITH_BODY
    if operation.get("parameters"):
        yield WITH_PARAMETERS


def _is_the_frameworks(response: Json | None) -> bool:
    return response is not None and any(name in str(response) for name in NOT_OURS)
