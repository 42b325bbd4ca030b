"""How sums of a day are named: by whom and what they are of (model, key, tenant, agent), by upstream, and by measure.

Pure. Callers choose the name of their agent, and upstreams those of their models, so a day takes only so many different
ones; what comes after them is `other`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SEPARATOR: Final = "\x1f"
OTHER: Final = "other"
NAME_CHARS: Final = 120

TRAFFIC: Final = "t"  # fields of: model, key, tenant, agent
UPSTREAM: Final = "u"  # fields of: upstream, its kind, local or paid
WIDTH: Final = {TRAFFIC: 4, UPSTREAM: 3}

REQUESTS: Final = "requests"
ANSWERS: Final = "answers"
LOCAL: Final = "local"  # of the answers
FALLBACKS: Final = "fallbacks"  # of the answers: by another model than the first of the plan
ESTIMATED: Final = "estimated"  # of the answers: whose tokens are estimated
FAILED: Final = "failed"  # through an upstream or the gateway
LEFT: Final = "left"  # whose client did not wait for the end
CAUSED: Final = "caused"  # by other requests; not counted as any of the above
IN: Final = "in"
OUT: Final = "out"
COST: Final = "cost"
LOST: Final = "lost"  # of the cost: of attempts that came to nothing
FALLBACK_COST: Final = "fallback_cost"  # of the cost: of answers by a stand-in
UNPRICED: Final = "unpriced"  # attempts whose cost is unknown
IMPUTED: Final = "imputed"
COMPARED: Final = "compared"  # of the answers: of which `dearest` is known
DEAREST: Final = "dearest"
SAVED: Final = "saved"
WORK: Final = "work"  # milliseconds of an upstream's time
VALUE: Final = "value"  # sum of evidence of quality, in thousandths of answers
WEIGHT: Final = "weight"
SECONDS: Final = "s"  # and a bucket's number
FIRST: Final = "f"  # the same of the first content of streams

EVER: Final = frozenset({ANSWERS, IN, OUT, COST, UNPRICED})
"""What is also summed up per model for ever."""


class Who(NamedTuple):
    """Whose traffic; "" is nobody or none."""

    model: str
    key: str
    tenant: str
    agent: str


class Prefixes(NamedTuple):
    """What the fields of one cell begin with, in the table of a day and in the one that lasts."""

    day: str
    ever: str


NOBODY: Final = Who(OTHER, OTHER, OTHER, OTHER)
ROOMS: Final = (3_000, 3_600, 4_000)
"""How many cells a process makes in a day: with all names, then without agents, then of models alone."""


class Names:
    """The cells that this process uses in one day. `full`: the day's table takes no more agents."""

    def __init__(self) -> None:
        self._known: dict[Who, Prefixes] = {}
        self.full = False

    def prefixes(self, who: Who) -> Prefixes:
        found = self._known.get(who)
        return self._folded(who) if found is None else found

    def _folded(self, who: Who) -> Prefixes:
        alone = Who(who.model, OTHER, OTHER, OTHER)
        for folded, room in zip((who, who._replace(agent=OTHER), alone), ROOMS, strict=True):
            if (found := self._known.get(folded)) is not None:
                return found
            if len(self._known) < room and not (self.full and folded is who and who.agent):
                return self._made(folded)
        return self._made(NOBODY)

    def _made(self, who: Who) -> Prefixes:
        model = clean(who.model)
        made = self._known[who] = Prefixes(prefix(TRAFFIC, *who), f"{model}{SEPARATOR}")
        return made


def prefix(family: str, *names: str) -> str:
    """What the fields of a cell begin with; a measure follows."""
    return SEPARATOR.join((family, *map(clean, names), ""))


def clean(name: str) -> str:
    """A name as it is kept: short, and nothing in it that a terminal or a table would obey."""
    if len(name) > NAME_CHARS or not name.isprintable():
        name = "".join(each if each.isprintable() else "?" for each in name[:NAME_CHARS])
    return name


class Row(NamedTuple):
    """One sum of a day: of which family, of whom or what, of which measure."""

    family: str
    names: tuple[str, ...]
    measure: str
    amount: int


def row_of(field: bytes, amount: bytes) -> Row | None:
    """A stored sum; None for what cannot be read."""
    family, *names = field.decode("utf-8", "replace").split(SEPARATOR)
    measure = names.pop() if names else ""
    if WIDTH.get(family) != len(names) or (whole := whole_of(amount)) is None:
        return None
    return Row(family, tuple(names), measure, whole)


def whole_of(amount: bytes) -> int | None:
    try:
        return int(amount)
    except ValueError:
        return None
