"""The guide says what the code does: every key, every variable, every default, and its examples load."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from app.config.environment import VARIABLES
from app.config.explain import plain
from app.config.file import parse
from app.config.later import said_of, without_effect
from app.config.load import load
from app.config.resolve import KINDS
from app.config.schema import FileSettings, Part
from app.config.validate import keys, model_at, validate

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def shown(value: Any) -> str:
    match plain(value):
        case None:
            return "-"
        case bool() as truth:
            return f"`{str(truth).lower()}`"
        case [] | {}:
            return "none"
        case list() as items:
            return ", ".join(shown(each) for each in items)
        case float() as number if number.is_integer():
            return f"`{int(number)}`"
        case other:
            return f"`{other}`"


def not_yet(key: str) -> str:
    return " *No effect yet.*" if said_of(key) else ""


def choices(annotation: Any) -> list[Any]:
    """The values of an enumeration, wherever in the type it stands."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return list(annotation)
    return [each for argument in get_args(annotation) for each in choices(argument)]


def values_of(field: FieldInfo) -> str:
    """Said where the description does not name them already."""
    valid = [f"`{plain(each)}`" for each in choices(field.annotation)]
    missing = any(each not in (field.description or "") for each in valid)
    return f" Values: {', '.join(valid)}." if missing else ""


def row_of_key(key: str) -> str:
    holder, _, name = key.rpartition(".")
    path = tuple(0 if part == "[]" else part for part in holder.replace("[]", ".[]").split(".") if part)
    model = model_at(FileSettings, path)
    assert model is not None
    field = model.model_fields[name]
    default = field.get_default(call_default_factory=True)
    written = "required" if field.is_required() else "below" if isinstance(default, Part) else shown(default)
    return f"| `{key}` | {written} | {field.description}{values_of(field)}{not_yet(key)} |"


def row_of_variable(name: str) -> str:
    variable = VARIABLES[name]
    default = variable.default
    if name.startswith("FEATURE_"):
        default = bool(default)
    about = f"{variable.about} Also `{name}_FILE`." if variable.secret else variable.about
    return f"| `{name}` | {shown(default)} | {about}{not_yet(name)} |"


def row_of_kind(kind: Any) -> str:
    own = KINDS[kind]
    cells = (own.base_url, own.local, own.max_concurrency, own.timeouts.cold_start)
    return f"| `{kind}` | {' | '.join(map(shown, cells))} |"


def rows() -> list[str]:
    return [*map(row_of_key, keys()), *map(row_of_variable, VARIABLES), *map(row_of_kind, KINDS)]


def test_the_guide_has_a_row_for_each_key_variable_and_kind_and_no_other() -> None:
    """Whoever adds a setting copies its row from this test's output into the guide; likewise who makes one work."""
    written = [line for line in GUIDE.read_text().splitlines() if line.startswith("| `")]
    assert set(written) == set(rows())
    assert len(written) == len(rows())


@pytest.mark.parametrize(
    "block", re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL) if GUIDE.exists() else []
)
def test_each_example_in_the_guide_loads(block: str, tmp_path: Path) -> None:
    document = parse(block.encode(), "guide")
    assert validate(document)[1] == []
    path = tmp_path / "guide.yaml"
    path.write_text(block)
    settings = load({"ANTHROPIC_API_KEY": "sk", "GROQ_API_KEY": "sk"}, config_path=path)
    assert without_effect(settings) == [], "what is copied must do what it says"
