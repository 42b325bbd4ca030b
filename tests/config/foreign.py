"""Foreign configurations, read as `tierway import` does, and loaded as the gateway would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from app.config.file import parse
from app.config.imported import Imported, as_file
from app.config.litellm import read
from app.config.load import load
from app.config.settings import Settings


def imported(data: Any, environ: Mapping[str, str] | None = None) -> Imported:
    return read(parse(yaml.safe_dump(data, allow_unicode=True).encode(), "config.yaml"), environ or {})


def loaded(found: Imported, folder: Any) -> Settings:
    """The settings that the written file makes, once every variable is set that it names."""
    path = folder / "tierway.yaml"
    path.write_text(as_file(found), encoding="utf-8")
    return load(dict.fromkeys(found.variables, "set"), config_path=path)


def deployment(name: str, model: str, info: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}, "model_info": info or {}}


def notes(found: Imported) -> dict[str, str]:
    return {note.key: note.message for note in found.notes}
