"""Holds a document against the schema and words what does not fit, with its line and the nearest valid name.

A part that is wrong is taken out and the rest is held against the schema again, so that what depends on several places
can be checked, and reported, in the same run.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.config.file import Document
from app.config.problems import Path, Problem, dotted, nearest
from app.config.schema import FileSettings
from app.config.wording import MAPPING, place_of, worded

_SECRET_NAME = re.compile(
    r"(?:.*_)?(?:api_?keys?|admin_?key|secrets?|password|passwd|credentials?|(?:auth|access|bearer)_?token)|token",
    re.IGNORECASE,
)
_LITELLM = ("model_list", "litellm_settings", "router_settings", "general_settings")
_QUOTED = re.compile(r"'([^']*)'")


def validate(document: Document) -> tuple[FileSettings, list[Problem]]:
    """The settings of all that is right in the document, and a problem for all that is not."""
    # a section whose keys are all commented out is null
    data = {
        key: value for key, value in document.data.items() if value is not None or key not in FileSettings.model_fields
    }
    problems, seen = list(document.problems), set[Path]()
    while True:  # each round takes out at least one key, so it ends
        try:
            return FileSettings.model_validate(data), problems
        except ValidationError as error:
            errors = [(place_of(each), each) for each in error.errors(include_url=False)]
        # what is missing only because it was taken out as wrong has been reported
        fresh = [(path, each) for path, each in errors if not any(old[: len(path)] == path for old in seen)]
        problems += [_problem(document, path, each) for path, each in fresh]
        seen.update(path for path, _ in errors)
        data = copy.deepcopy(data)
        for path, each in errors:
            _take_out(data, path[:-1] if each["type"] == "missing" else path)


def model_at(annotation: Any, path: Path) -> type[BaseModel] | None:
    """The model that describes what stands at `path` below something of this type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not path:
            return annotation
        field = annotation.model_fields.get(str(path[0]))
        return model_at(field.annotation, path[1:]) if field else None
    arguments = get_args(annotation)
    if path and arguments and get_origin(annotation) in (Mapping, tuple):
        return model_at(arguments[1 if get_origin(annotation) is Mapping else 0], path[1:])
    return next((found for each in arguments if (found := model_at(each, path))), None)


def keys(annotation: Any = FileSettings, above: str = "") -> Iterator[str]:
    """Every key there is, dotted, with `NAME` for names that the operator chooses and `[]` for items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            key = f"{above}.{name}" if above else name
            yield key
            yield from keys(field.annotation, key)
        return
    mark = {Mapping: ".NAME", tuple: "[]"}.get(get_origin(annotation), "")
    for each in get_args(annotation):
        yield from keys(each, above + mark)


def _problem(document: Document, path: Path, error: ErrorDetails) -> Problem:
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        return document.problem(path, *_unknown_key(path))
    message = worded(error)
    if message == MAPPING and isinstance(error["input"], str) and ":" in error["input"]:
        message += "; is there a space after the colon?"
    meant = context.get("nearest")
    if "expected" in context and isinstance(error["input"], str):
        meant = nearest(error["input"], _QUOTED.findall(context["expected"]))
    return document.problem(path, message, meant)


def _unknown_key(path: Path) -> tuple[str, str | None]:
    model, name = model_at(FileSettings, path[:-1]), str(path[-1])
    valid = list(model.model_fields) if model else []
    if len(path) == 1 and name in _LITELLM:
        return "is LiteLLM's; make a file of ours out of its own with: tierway import litellm", None
    if _SECRET_NAME.fullmatch(name):
        return "secrets do not belong in the file; put it in an environment variable and name that in api_key_env", None
    if meant := nearest(name, valid):
        return "unknown key", dotted((*path[:-1], meant))
    elsewhere = next((key for key in keys() if key.rpartition(".")[2] == name), None)
    return f"unknown key; valid here: {', '.join(valid)}", elsewhere


def _take_out(data: Any, path: Path) -> None:
    """Takes what stands at `path` out of `data`, or what it is a part of when it has no key of its own."""
    holders = list(_walk(data, path))
    for holder, part in zip(reversed(holders), reversed(path[: len(holders)]), strict=True):
        if isinstance(holder, dict) and part in holder:
            del holder[part]
            return


def _walk(data: Any, path: Path) -> Iterator[Any]:
    """`data` and each thing inside it on the path, as far as the path goes."""
    for part in path:
        yield data
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return
