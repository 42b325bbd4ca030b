"""Names that must agree are compared, and the nearest one is offered."""

from __future__ import annotations

import pytest

from app.config.checks import check
from app.config.file import parse
from app.config.validate import validate


def said(text: str, *upstreams: str) -> list[str]:
    document = parse(text.encode(), "t.yaml")
    settings, problems = validate(document)
    assert problems == []
    return [str(each) for each in check(settings, document, upstreams or ("ollama", "gpu"))]


@pytest.mark.parametrize(
    "text",
    [
        "models: {ollama/rnj-1: {fallback: [gpu/Qwen/Qwen3-8B, mode/refine]}}",
        'aliases: {"gpt-*": auto, fast: "auto:cost", small: rnj-1, "*": ollama/rnj-1}',
        "routing: {default_model: rnj-1, tasks: {docs: {prefer: [mode/panel, ollama/x]}}}",
        "routing: {defaults: {docs: {}, gpu/y: {}}}",
        "routing: {rollouts: {new: {kind: canary, share: 5%, to: {model: gpu/y}}}}",
        "routing: {rollouts: {bold: {kind: ab, share: 5%, to: {strategy: quality}}}}",
        "budgets: [{scope: global, period: day, limit: 1}, {scope: global, period: month, limit: 5}]",
    ],
)
def test_what_agrees_is_accepted(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "models: {olama/rnj-1: {}}",
            "models.olama/rnj-1: no upstream of that name; there are: gpu, ollama; did you mean ollama/rnj-1?",
        ),
        ("models: {rnj-1: {}}", "models.rnj-1: must be upstream/model, like ollama/rnj-1"),
        ("models: {ollama/: {}}", "models.ollama/: must be upstream/model, like ollama/rnj-1"),
        ("models: {gpu/a: {fallback: [b]}}", "models.gpu/a.fallback[0]: must be upstream/model, like ollama/rnj-1"),
        ("routing: {default_model: auto}", "routing.default_model: must be a model, not auto"),
        ("routing: {default_model: zzz/y}", "routing.default_model: no upstream of that name; there are: gpu, ollama"),
        (
            "routing: {tasks: {d: {prefer: [gqu/y]}}}",
            "routing.tasks.d.prefer[0]: no upstream of that name; there are: gpu, ollama; did you mean gpu/y?",
        ),
        (
            "routing: {defaults: {gqu/y: {}}}",
            "routing.defaults.gqu/y: no upstream of that name; there are: gpu, ollama; did you mean gpu/y?",
        ),
        (
            "routing: {rollouts: {n: {kind: ab, share: 5%, to: {model: gqu/y}}}}",
            "routing.rollouts.n.to.model: no upstream of that name; there are: gpu, ollama; did you mean gpu/y?",
        ),
        ("aliases: {x: 'auto:cots'}", "aliases.x: is not a strategy of auto; did you mean auto:cost?"),
        ("aliases: {auto: gpu/y}", "aliases.auto: is not an alias: auto always means the router"),
        ("aliases: {y: gpu/y, x: y}", "aliases.x: must name a model, not another alias"),
        (
            "budgets:\n - {scope: global, period: day, limit: 1}\n - {scope: global, period: day, limit: 2}",
            "budgets[1]: there is a budget global:*:day already",
        ),
    ],
)
def test_what_does_not_agree_is_named(text: str, problem: str) -> None:
    """A misspelt name here would otherwise show as a 404 to the first caller."""
    assert [each.partition(": ")[2] for each in said(text)] == [problem]


def test_a_file_without_upstreams_says_so() -> None:
    document = parse(b"models: {a/b: {}}", "t.yaml")
    (problem,) = check(validate(document)[0], document, ())
    assert problem.message == "no upstream of that name; there are: none"
