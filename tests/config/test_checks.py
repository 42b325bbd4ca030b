"""Names that must agree are compared, and the nearest one is offered."""

from __future__ import annotations

import pytest

from app.config.checks import check, ungranted, unoffered
from app.config.file import parse
from app.config.settings import Settings
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
            "routing: {tasks: {code_reveiw: {prefer: [gpu/y]}}}",
            "routing.tasks.code_reveiw: is no type of task; there are: code, debug, docs, architecture,"
            " test_generation, coverage_analysis, flaky_detection, code_review, general; did you mean code_review?",
        ),
        (
            "routing: {tasks: {docs: {prefer: [gqu/y]}}}",
            "routing.tasks.docs.prefer[0]: no upstream of that name; there are: gpu, ollama; did you mean gpu/y?",
        ),
        (
            "routing: {fallback: {abilities: {n: [gpu/x, gqu/y]}}}",
            "routing.fallback.abilities.n[1]: no upstream of that name; there are: gpu, ollama; did you mean gpu/y?",
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


# --- once it is known which models there are ------------------------------------------------------------------------

OFFERED = ("ollama/rnj-1", "rnj-1", "gpu/big", "big")


def settings(text: str) -> Settings:
    file, problems = validate(parse(text.encode(), "t.yaml"))
    assert problems == []
    return Settings(models=file.models, aliases=file.aliases, routing=file.routing)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("models: {ollama/rnj-2: {}}", "models.ollama/rnj-2"),
        ("models: {gpu/big: {fallback: [ollama/rnj-1, ollama/rnj-2]}}", "models.gpu/big.fallback[1]"),
        ("aliases: {fast: ollama/rnj-2, slow: gpu/big}", "aliases.fast"),
        ("aliases: {fast: rnj-2}", "aliases.fast"),
        ("routing: {default_model: rnj-2}", "routing.default_model"),
        ("routing: {tasks: {docs: {prefer: [rnj-1, gpu/x]}}}", "routing.tasks.docs.prefer[1]"),
        ("routing: {fallback: {abilities: {tools: [rnj-1, gpu/x]}}}", "routing.fallback.abilities.tools[1]"),
    ],
)
def test_a_model_that_nobody_offers_is_named(text: str, where: str) -> None:
    """Else the alias is a 404 to the first caller, and the note on a misspelt model silently nothing."""
    ((said, model),) = unoffered(settings(text), OFFERED, ())
    assert said == where and model in text


@pytest.mark.parametrize(
    "text",
    [
        "models: {ollama/rnj-1: {fallback: [gpu/big]}}",
        'aliases: {"gpt-*": auto, fast: "auto:cost", small: rnj-1}',
        'aliases: {"x-*": big}\nrouting: {default_model: x-1}',
        "routing: {defaults: {docs: {}, gpu/big: {}}}",
    ],
)
def test_what_is_offered_is_not_complained_of(text: str) -> None:
    assert unoffered(settings(text), OFFERED, ()) == []


def test_what_an_absent_upstream_has_is_not_known() -> None:
    """A warning about each of its models would bury that it is away."""
    named = settings("models: {gpu/x: {}, ollama/x: {}}\naliases: {a: x}")
    assert unoffered(named, OFFERED, ("gpu",)) == [("models.ollama/x", "ollama/x")]
    assert ungranted(("gpu/*", "g*/x", "ollama/x", "x"), named, OFFERED, ("gpu",)) == ["ollama/x"]


def test_a_key_for_nothing_is_named() -> None:
    named = settings('aliases: {"gpt-*": auto, fast: gpu/big}')
    good = ("*", "auto", "auto:*", "ollama/*", "big", "gpt-4o", "gpt-*", "fa*", "[go]*/big")
    assert ungranted((*good, "olama/*", "rnj-2", "claude-*"), named, OFFERED, ()) == ["olama/*", "rnj-2", "claude-*"]
