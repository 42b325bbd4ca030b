"""TypeScript without its types, as far as the pages use them, so that any JavaScript can parse and run it. What is not
understood stays, and is then a syntax error."""

from __future__ import annotations

import re
from typing import Final

TYPE: Final = r"(?:[A-Z]\w*(?:<[^=()]*?>)?|string|number|boolean|object|null)(?: \| (?:string|number|null))*"
RULES: Final = (
    (r"^type \w+ = .*;$", ""),
    (rf"\): {TYPE} \{{$", ") {"),  # what a function returns
    (rf"((?:const|let) \w+): {TYPE} =", r"\1 ="),
    (rf"^( +\w+): {TYPE};$", r"\1;"),  # fields
    (rf"([(,] ?\w+): {TYPE}(?=[,)])", r"\1"),  # parameters
    (r"(\w|\))!(?=[.;)])", r"\1"),  # surely not null
)


def erased(text: str) -> str:
    for pattern, instead in RULES:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text
