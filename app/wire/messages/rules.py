"""What each Claude model takes and refuses, as data: a table by model name, corrected by what `/v1/models` says.

The API answers 400 to a parameter that a model does not take, and the line-up differs a lot, so every request is
written by these rules. A name nobody has heard of is taken for a newer model and gets the strictest row of its line.
How a rule changes a request is left to `messages_params`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

OLD_VERSION: Final = "2023-06-01"
NEW_VERSION: Final = "2026-10-21"  # refuses sampling parameters even at their defaults

ANSWER_TOKENS: Final = 8_192
THINKING_TOKENS: Final = 32_000

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
EFFORTS_4_6: Final = ("low", "medium", "high", "max")
EFFORTS_4_5: Final = ("low", "medium", "high")


@dataclass(frozen=True, slots=True)
class Rules:
    """`off` is how thinking is turned off: `omit` (it is off unless asked for), `disabled` or `between_tools` (the
    type to send), `never`. `forced` says whether a tool may be forced: `yes`, `no`, or `unthinking` (only while
    thinking is off). `bound`: thinking blocks hold only behind the prefix they were made with."""

    sampling: bool = False
    adaptive: bool = True
    budgeted: bool = False
    off: str = "never"
    forced: str = "no"
    efforts: tuple[str, ...] = EFFORTS
    max_output: int = 128_000
    prefill: bool = False
    system_turns: bool = False
    schema: bool = True
    bound: bool = True

    @property
    def version(self) -> str:
        """The value of the `anthropic-version` header: the old one alone allows sampling parameters."""
        return OLD_VERSION if self.sampling else NEW_VERSION

    @property
    def thinks(self) -> bool:
        """Whether the model thinks when nothing is said about it."""
        return self.off != "omit"

    def default_max_tokens(self, thinking: bool) -> int:
        """What to ask for when the caller said nothing: room for an answer, and for thinking where there is some."""
        return min(THINKING_TOKENS if thinking else ANSWER_TOKENS, self.max_output)


_FABLE_5_1: Final = Rules(system_turns=True)
_FABLE_5: Final = Rules(forced="yes", system_turns=True, bound=False)
_OPUS_5_5: Final = Rules(system_turns=True)
_OPUS_5: Final = Rules(off="disabled", forced="yes", system_turns=True, bound=False)
_SONNET_5_5: Final = Rules(off="between_tools")
_SONNET_5: Final = Rules(off="disabled", forced="yes", bound=False)
_HAIKU_5_5: Final = Rules(off="disabled", forced="unthinking")
_OPUS_4_7: Final = Rules(off="omit", forced="yes", bound=False)
_OPUS_4_8: Final = replace(_OPUS_4_7, system_turns=True)
_4_6: Final = Rules(sampling=True, budgeted=True, off="omit", forced="yes", efforts=EFFORTS_4_6, bound=False)
_OPUS_4_5: Final = Rules(
    sampling=True,
    adaptive=False,
    budgeted=True,
    off="omit",
    forced="unthinking",
    efforts=EFFORTS_4_5,
    max_output=64_000,
    prefill=True,
    bound=False,
)
_4_5: Final = replace(_OPUS_4_5, efforts=())
_4: Final = replace(_4_5, max_output=32_000, schema=False)
_3: Final = replace(_4, budgeted=False, forced="yes", max_output=4_096)

RULES: Final[Mapping[str, Rules]] = {
    "claude-fable-5-2": _FABLE_5_1,
    "claude-mythos-5-2": _FABLE_5_1,
    "claude-fable-5-1": _FABLE_5_1,
    "claude-mythos-5-1": _FABLE_5_1,
    "claude-opus-5-5": _OPUS_5_5,
    "claude-sonnet-5-5": _SONNET_5_5,
    "claude-haiku-5-5": _HAIKU_5_5,
    "claude-fable-5": _FABLE_5,
    "claude-mythos-5": _FABLE_5,
    "claude-opus-5": _OPUS_5,
    "claude-sonnet-5": _SONNET_5,
    "claude-opus-4-8": _OPUS_4_8,
    "claude-opus-4-7": _OPUS_4_7,
    "claude-opus-4-6": _4_6,
    "claude-sonnet-4-6": _4_6,
    "claude-opus-4-5": _OPUS_4_5,
    "claude-sonnet-4-5": _4_5,
    "claude-haiku-4-5": _4_5,
    "claude-opus-4-1": _4,
    "claude-opus-4": _4,
    "claude-sonnet-4": _4,
}
NEWEST: Final[Mapping[str, Rules]] = {"sonnet": _SONNET_5_5, "haiku": _HAIKU_5_5}
"""The newest row of a line, for names that are not in the table; every other line's is `STRICTEST`."""

STRICTEST: Final = replace(_FABLE_5_1, system_turns=False)
_GENERATION_3: Final = "claude-3"
_DATE: Final = re.compile(r"(?:-latest|[-@]\d{8}|-0)?(?:-v\d+(?::\d+)?)?$")
_LINE: Final = re.compile(r"\b(haiku|sonnet|opus|fable|mythos)\b")


def line_of(name: str) -> str | None:
    """The line of models a name belongs to: haiku, sonnet, opus, fable, mythos."""
    found = _LINE.search(name)
    return found[1] if found else None


def rules_for(name: str) -> Rules:
    """The rules of a model by its name alone, which may carry a date or a host's prefix."""
    start = name.find("claude-")
    stem = _DATE.sub("", name[max(start, 0) :])
    known = RULES.get(stem)
    if known is not None:
        return known
    if stem.startswith(_GENERATION_3):
        return _3
    return NEWEST.get(line_of(stem) or "", STRICTEST)


def rules_from_capabilities(model: Mapping[str, Any]) -> Rules:
    """The rules of a model as `GET /v1/models` describes it; where that is silent, the table speaks."""
    name = model.get("id")
    rules = rules_for(name if isinstance(name, str) else "")
    most = model.get("max_tokens")
    if type(most) is int and most > 0:
        rules = replace(rules, max_output=most)
    schema = supported(model, "structured_outputs")
    if schema is not None:
        rules = replace(rules, schema=schema)
    return _with_thinking(_with_efforts(rules, model), model)


def supported(model: Mapping[str, Any], *path: str) -> bool | None:
    """What `capabilities` says of one capability; None where it says nothing usable."""
    value: Any = model.get("capabilities")
    for name in (*path, "supported"):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, bool) else None


def _with_efforts(rules: Rules, model: Mapping[str, Any]) -> Rules:
    match supported(model, "effort"):
        case False:
            return replace(rules, efforts=())
        case True:
            return replace(rules, efforts=tuple(each for each in EFFORTS if supported(model, "effort", each)))
    return rules


def _with_thinking(rules: Rules, model: Mapping[str, Any]) -> Rules:
    if supported(model, "thinking") is False:
        return replace(rules, adaptive=False, budgeted=False, off="omit")
    said = {kind: supported(model, "thinking", "types", kind) for kind in ("adaptive", "enabled")}
    offs = {kind: supported(model, "thinking", "types", kind) for kind in ("disabled", "between_tools")}
    off = rules.off
    if off != "omit" and None not in offs.values():
        off = next((kind for kind, possible in offs.items() if possible), "never")
    return replace(
        rules,
        adaptive=rules.adaptive if said["adaptive"] is None else said["adaptive"],
        budgeted=rules.budgeted if said["enabled"] is None else said["enabled"],
        off=off,
    )
