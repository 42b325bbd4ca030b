"""What must agree between several places of the file: names of models and upstreams, aliases, budgets.

Before anything is asked, only the name of a model's upstream is looked up (`check`); `unoffered` and `ungranted` are
for when it is known which models there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import get_args

from app.config.file import Document
from app.config.problems import Path, Problem, dotted, nearest
from app.config.schema import FileSettings, Strategy
from app.config.settings import Settings
from app.core.verdict import TASKS

_OURS = ("mode", "tierway")
_AUTO = ("auto", *(f"auto:{strategy}" for strategy in get_args(Strategy)))


def check(settings: FileSettings, document: Document, upstreams: Collection[str]) -> list[Problem]:
    """All that does not agree; `upstreams` are the names that may stand before a slash."""
    problems = [*_aliases(settings, document), *_tasks(settings, document), *_budgets(settings, document)]
    for path, text, full in _references(settings):
        problems.extend(_reference(document, path, text, upstreams, full=full))
    return problems


def unoffered(settings: Settings, offered: Collection[str], away: Collection[str]) -> list[tuple[str, str]]:
    """Where a model is named that nobody offers, and its name. `offered` are full ids and bare names; what the
    upstreams that are `away` have, nobody knows."""
    return [
        (dotted(path), text)
        for path, text, _ in _references(settings)
        if not _leads_somewhere(text, settings, offered, away)
        and ("/" in text or path[:2] != ("routing", "defaults"))  # there it may be a type of task
    ]


def ungranted(
    patterns: Iterable[str], settings: Settings, offered: Collection[str], away: Collection[str]
) -> list[str]:
    """Those of a key's patterns that no model and no alias has."""
    return [text for text in patterns if not _leads_somewhere(text, settings, offered, away)]


def _leads_somewhere(text: str, settings: Settings, offered: Collection[str], away: Collection[str]) -> bool:
    names = (*_AUTO, *settings.aliases, *offered)
    if text in names or any(fnmatchcase(name, text) for name in names):
        return True
    upstream, slash, _ = text.partition("/")
    if away and (not slash or any(fnmatchcase(name, upstream) for name in away)):
        return True
    return any(fnmatchcase(text, alias) for alias in settings.aliases)


def _references(settings: FileSettings | Settings) -> Iterator[tuple[Path, str, bool]]:
    """Every place that names a model: where, the name, and whether it must be a full id."""
    for id, model in settings.models.items():
        yield ("models", id), id, True
        for index, name in enumerate(model.fallback):
            yield ("models", id, "fallback", index), name, True
    routing = settings.routing
    if routing.default_model is not None:
        yield ("routing", "default_model"), routing.default_model, False
    for task, preference in routing.tasks.items():
        for index, name in enumerate(preference.prefer):
            yield ("routing", "tasks", task, "prefer", index), name, False
    for ability, names in routing.fallback.abilities.items():
        for index, name in enumerate(names):
            yield ("routing", "fallback", "abilities", ability.value, index), name, False
    for name in routing.defaults:
        yield ("routing", "defaults", name), name, False
    for name, rollout in routing.rollouts.items():
        if rollout.to.model is not None:
            yield ("routing", "rollouts", name, "to", "model"), rollout.to.model, False
    for alias, target in settings.aliases.items():
        if target not in _AUTO:
            yield ("aliases", alias), target, False


def _reference(
    document: Document, path: Path, text: str, upstreams: Collection[str], *, full: bool
) -> Iterator[Problem]:
    upstream, slash, model = text.partition("/")
    if not slash:
        if full:
            yield document.problem(path, "must be upstream/model, like ollama/rnj-1")
        elif text.startswith("auto:"):
            yield document.problem(path, "is not a strategy of auto", nearest(text, _AUTO))
        elif text == "auto":
            yield document.problem(path, "must be a model, not auto")
    elif not upstream or not model:
        yield document.problem(path, "must be upstream/model, like ollama/rnj-1")
    elif upstream not in upstreams and upstream not in _OURS:
        meant = nearest(upstream, upstreams)
        valid = ", ".join(sorted(upstreams)) or "none"
        yield document.problem(path, f"no upstream of that name; there are: {valid}", meant and f"{meant}/{model}")


def _aliases(settings: FileSettings, document: Document) -> Iterator[Problem]:
    for alias, target in settings.aliases.items():
        if alias in _AUTO:
            yield document.problem(("aliases", alias), "is not an alias: auto always means the router")
        elif target in settings.aliases:
            yield document.problem(("aliases", alias), "must name a model, not another alias")


def _tasks(settings: FileSettings, document: Document) -> Iterator[Problem]:
    for name in settings.routing.tasks:
        if name not in TASKS:
            message = f"is no type of task; there are: {', '.join(TASKS)}"
            yield document.problem(("routing", "tasks", name), message, nearest(name, TASKS))


def _budgets(settings: FileSettings, document: Document) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, rule in enumerate(settings.budgets):
        if rule.id in seen:
            yield document.problem(("budgets", index), f"there is a budget {rule.id} already")
        seen.add(rule.id)
