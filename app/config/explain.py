"""The resolved configuration for people: `tierway check` prints it. Secrets appear as where they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import BaseModel, SecretStr

from app.config.settings import Settings

SET = "set"


def explain(settings: Settings) -> dict[str, Any]:
    """Everything that is in force, as plain data in the order of the settings; what is unknown or unset is None."""
    data: dict[str, Any] = plain(settings)
    del data["sources"]
    data["config_version"] = data.pop("version")
    for (*holders, last), variable in settings.sources.items():
        target = data
        for holder in holders:
            target = target[holder]
        target[last] = f"{SET} (from {variable})"
    return data


def as_json(settings: Settings) -> str:
    return orjson.dumps(explain(settings), option=orjson.OPT_INDENT_2).decode()


def as_yaml(settings: Settings) -> str:
    return yaml.safe_dump(explain(settings), sort_keys=False, allow_unicode=True, width=120)


def plain(value: Any) -> Any:
    """Any setting as what JSON can hold; a secret is only said to be set."""
    match value:
        case SecretStr():
            return SET
        case BaseModel():
            return {name: plain(getattr(value, name)) for name in type(value).model_fields}
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case tuple() | list():
            return [plain(each) for each in value]
        case frozenset() | set():
            return sorted(plain(each) for each in value)
        case Decimal():
            return float(value)
        case Enum():
            return value.value
        case Path():
            return str(value)
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value
