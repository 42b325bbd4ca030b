"""Words what does not fit a schema: what to write instead, in the words of this program and not of a library.

For whatever people write: the file, the bodies of the admin API, the arguments of commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic_core import ErrorDetails

from app.config.problems import Path

MAPPING, LIST = "must be a mapping of keys to values", "must be a list"
MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "string_type": "must be text; put quotes around it",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "string_pattern_mismatch": "has characters that may not be in it",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": LIST,
    "list_type": LIST,
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "mapping_type": MAPPING,
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:.15g}",
    "less_than": "must be less than {lt:.15g}",
    "less_than_equal": "must be at most {le:.15g}",
    "too_short": "must not be empty",
    "too_long": "has too many items",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "extra_forbidden": "is unknown",
    "tierway": "{said}",
}
NUMBERS: Final = ("must be a number", "must be a whole number")
BARE: Final = ", without quotes or a unit"
"""For `30s`, `80%`, `$5` and `"60"`."""
SHAPES: Final = (LIST, MAPPING)
"""Where an example says more than the words."""
_KEY_MARK: Final = "[key]"


def place_of(error: ErrorDetails) -> Path:
    """Where it is; a name that is wrong itself is where its value would be."""
    return tuple(part for part in error["loc"] if part != _KEY_MARK)


def worded(error: ErrorDetails) -> str:
    """What it must be."""
    words = MESSAGES.get(error["type"], "is not valid").format(**error.get("ctx", {}))
    text = error.get("input")
    return words + BARE if words in NUMBERS and isinstance(text, str) and any(map(str.isdecimal, text)) else words
