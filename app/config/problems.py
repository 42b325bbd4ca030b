"""What is wrong with a configuration, said so that a person can mend it. Finding it is left to the other modules here.

Values are never part of a problem: any of them may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CLOSE_ENOUGH = 0.5

Path = tuple[str | int, ...]
"""Where a value is in the file: keys and positions from the root."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`where` is `environment` or the file, `line` counts from 1, `nearest` is the name that was probably meant."""

    where: str
    line: int | None
    key: str
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}:{self.line}" if self.line else self.where
        meant = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{place}: {self.key}: {self.message}{meant}" if self.key else f"{place}: {self.message}{meant}"


class ConfigError(Exception):
    """The configuration cannot be used; says everything that is wrong with it, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, in whatever case that was written, if any is like it at all."""
    by_folded = {each.casefold(): each for each in valid}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=CLOSE_ENOUGH)
    return by_folded[close[0]] if close else None


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: `budgets[1].limit`; a key with a dot in it is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (f'"{part}"' if "." in part else part)
    return text
