"""What must agree between several places of the file: names of models and upstreams, aliases, budgets.

Whether a model exists at its upstream is found out later, by asking; here only its upstream's name is looked up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import get_args

from app.config.file import Document
from app.config.problems import Path, Problem, nearest
from app.config.schema import FileSettings, Strategy

_OURS = ("mode", "tierway")
_AUTO = ("auto", *(f"auto:{strategy}" for strategy in get_args(Strategy)))


def check(settings: FileSettings, document: Document, upstreams: Collection[str]) -> list[Problem]:
    """All that does not agree; `upstreams` are the names that may stand before a slash."""
    problems = [*_aliases(settings, document), *_budgets(settings, document)]
    for path, text, full in _references(settings):
        problems.extend(_reference(document, path, text, upstreams, full=full))
    return problems


def _references(settings: FileSettings) -> Iterator[tuple[Path, str, bool]]:
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


def _budgets(settings: FileSettings, document: Document) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, rule in enumerate(settings.budgets):
        if rule.id in seen:
            yield document.problem(("budgets", index), f"there is a budget {rule.id} already")
        seen.add(rule.id)
