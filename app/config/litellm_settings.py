"""What LiteLLM's proxy says outside its list of models: retries, timeouts, fallbacks, budgets, other names.

`litellm` reads the models, and puts both together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from app.config import litellm_terms as terms
from app.config.file import Document
from app.config.loose import items, mapping, number, texts, whole
from app.config.problems import Path

Note = Callable[[Path, str], None]
Groups = Mapping[str, Sequence[str]]

SECTIONS: Final = ("litellm_settings", "router_settings", "general_settings")
ATTEMPTS_MAX: Final = 10
HOUR, DAY = 3_600, 86_400
_UNITS: Final = {"s": 1, "m": 60, "h": HOUR, "d": DAY, "w": 7 * DAY, "mo": 30 * DAY, "y": 365 * DAY}
_DURATION: Final = re.compile(r"(\d{1,6})(mo|[smhdwy])")
_STRATEGIES: Final[Mapping[str, str]] = {
    "cost-based-routing": "is the default here: routing.strategy cost",
    "lowest-cost": "is the default here: routing.strategy cost",
    "latency-based-routing": "see routing.max_local_latency; servers of one pool are chosen by load",
}
_BY_LOAD: Final = "servers of one pool are chosen by load"


class SettingsReader:
    """Puts what it can into `data`; `note` is told of the rest. `groups` are the models by LiteLLM's names."""

    def __init__(self, document: Document, data: dict[str, Any], groups: Groups, note: Note) -> None:
        self._document = document
        self._data = data
        self._groups = groups
        self._note = note
        self._chain = 0

    def read(self) -> dict[str, str]:
        """Reads everything. The other names of models that it found, each with its model."""
        self._fallbacks()
        self._attempts()
        self._clocks()
        self._breakers()
        self._budget()
        if found := whole(self._take("global_max_parallel_requests")):
            self._data.setdefault("limits", {})["in_flight"] = found
        for path, strategy in self._each("routing_strategy"):
            self._note(path, _STRATEGIES.get(strategy, _BY_LOAD) if isinstance(strategy, str) else _BY_LOAD)
        names = self._names()
        self._rest()
        return names

    def _each(self, name: str) -> Iterator[tuple[Path, Any]]:
        """Wherever it is said: LiteLLM takes most settings in several sections."""
        for section in SECTIONS:
            held = mapping(self._document.data.get(section))
            if held.get(name) is not None:
                yield (section, name), held[name]

    def _take(self, *names: str) -> Any:
        """The first that is said."""
        return next((value for name in names for _, value in self._each(name)), None)

    def _fallbacks(self) -> None:
        for name in ("fallbacks", "context_window_fallbacks"):
            for path, rules in self._each(name):
                if name == "context_window_fallbacks":
                    self._note(path, "joined with fallbacks: a model stands in for every failure that another can mend")
                for place, rule in enumerate(items(rules)):
                    for group, stand_ins in mapping(rule).items():
                        self._stand_in((*path, place), group, texts(stand_ins))
        for path, stand_ins in self._each("default_fallbacks"):
            for group in list(self._groups):
                self._stand_in(path, group, texts(stand_ins))
        models = mapping(self._data.get("models"))
        self._chain = max((len(mapping(model).get("fallback", ())) for model in models.values()), default=0)

    def _stand_in(self, path: Path, group: str, stand_ins: Sequence[str]) -> None:
        if group == "*":
            for each in list(self._groups):
                self._stand_in(path, each, stand_ins)
            return
        if group not in self._groups:
            self._note(path, "stands in for a model that was not carried over")
            return
        head = self._groups[group][0]
        chain = self._data["models"][head].setdefault("fallback", [])
        for name in stand_ins:
            if name not in self._groups:
                self._note(path, "names a model that was not carried over")
            chain.extend(id for id in self._groups.get(name, ()) if id != head and id not in chain)
        if not chain:
            del self._data["models"][head]["fallback"]

    def _attempts(self) -> None:
        retries = whole(self._take("num_retries"), least=0)
        wanted = max((retries or 0) + 1, self._chain + 1)
        if retries is None and wanted <= 3:  # as it is without a word
            return
        self._data.setdefault("routing", {})["fallback"] = {"max_attempts": min(wanted, ATTEMPTS_MAX)}
        for path, _ in self._each("num_retries"):
            self._note(path, "counts all attempts of a request here, those at other models included")

    def _clocks(self) -> None:
        for theirs, ours in (
            (("request_timeout", "timeout"), ("total",)),
            (("stream_timeout",), ("first_token", "idle")),
        ):
            if (seconds := number(self._take(*theirs), DAY)) is not None:
                for upstream in self._data["upstreams"].values():
                    for name in ours:
                        upstream.setdefault("timeouts", {}).setdefault(name, seconds)

    def _breakers(self) -> None:
        fails, cooldown = whole(self._take("allowed_fails"), least=0), number(self._take("cooldown_time"), DAY)
        made: dict[str, Any] = {}
        if fails is not None:
            made["failures"] = fails + 1
        if cooldown is not None:
            made |= {"open": cooldown, "max_open": max(cooldown, 300)}
        if made:
            for upstream in self._data["upstreams"].values():
                upstream["breaker"] = dict(made)
        for path, _ in self._each("allowed_fails"):
            self._note(path, "counts failures in a row here; see breaker.rate for their share")

    def _budget(self) -> None:
        limit = number(self._take("max_budget"), least=0)
        if limit is None:
            return
        said = self._take("budget_duration")
        period, exact = period_of(said)
        self._data["budgets"] = [{"scope": "global", "period": period, "limit": limit}]
        for path, _ in self._each("budget_duration"):
            if not exact:
                self._note(path, f"periods are day, month and total: the limit counts per {period}, which is less")

    def _names(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for path, names in self._each("model_group_alias"):
            for name, target in mapping(names).items():
                group = mapping(target).get("model") if isinstance(target, dict) else target
                if isinstance(group, str) and group in self._groups:
                    found[name] = self._groups[group][0]
                else:
                    self._note((*path, name), "names a model that was not carried over")
        return found

    def _rest(self) -> None:
        """Everything that nobody has read."""
        for section, held in self._document.data.items():
            if section in SECTIONS:
                for name in mapping(held):
                    if name not in READ:
                        words = terms.SETTINGS.get(f"{section}.{name}", "has no counterpart here")
                        self._note((section, name), words)
            elif section != "model_list":
                self._note((section,), terms.SETTINGS.get(section, "has no counterpart here"))


READ: Final = frozenset(
    {
        *("fallbacks", "context_window_fallbacks", "default_fallbacks", "num_retries", "request_timeout", "timeout"),
        *("stream_timeout", "allowed_fails", "cooldown_time", "max_budget", "budget_duration", "routing_strategy"),
        *("global_max_parallel_requests", "model_group_alias"),
    }
)


def period_of(said: Any) -> tuple[str, bool]:
    """The period of ours that lasts at least as long, so that nothing more is spent; and whether it is the same."""
    if said is None:
        return "total", True
    found = _DURATION.fullmatch(said) if isinstance(said, str) else None
    if found is None:
        return "total", False
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds <= DAY:
        return "day", seconds == DAY
    if seconds <= 31 * DAY:
        return "month", seconds >= 30 * DAY
    return "total", False
