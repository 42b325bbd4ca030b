"""Everything that is wrong is said at once, each with its line and the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from app.config.file import Document, parse
from app.config.schema import FileSettings, Routing, Upstream
from app.config.validate import keys, model_at, validate


def said(text: str) -> list[str]:
    return [str(each) for each in validate(parse(text.encode(), "t.yaml"))[1]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("routng: {}", "t.yaml:1: routng: unknown key; did you mean routing?"),
        ("routing:\n  stratgy: cost", "t.yaml:2: routing.stratgy: unknown key; did you mean routing.strategy?"),
        (
            "upstreams:\n  kind:\n    kind: ollama\n    timeouts:\n      conect: 3",
            "t.yaml:5: upstreams.kind.timeouts.conect: unknown key; did you mean upstreams.kind.timeouts.connect?",
        ),
        (
            "budgets:\n  - {scope: global, period: day, limit: 1, limt: 2}",
            "t.yaml:2: budgets[0].limt: unknown key; did you mean budgets[0].limit?",
        ),
        (
            "routing: {strategy: cots}",
            "t.yaml:1: routing.strategy: must be one of 'cost', 'quality', 'privacy' or 'adaptive'; did you mean cost?",
        ),
        (
            "routing: {strategy: 5}",
            "t.yaml:1: routing.strategy: must be one of 'cost', 'quality', 'privacy' or 'adaptive'",
        ),
        ("upstreams: {a: {base_url: 'http://h'}}", "t.yaml:1: upstreams.a.kind: is required"),
        ("limits: {messages: many}", "t.yaml:1: limits.messages: must be a whole number"),
        ("limits: {messages: 1.5}", "t.yaml:1: limits.messages: must be a whole number"),
        ("limits: {messages: 0}", "t.yaml:1: limits.messages: must be at least 1"),
        ("limits: {depth: 1000}", "t.yaml:1: limits.depth: must be at most 200"),
        ("streaming: {ping: .inf}", "t.yaml:1: streaming.ping: must be a finite number"),
        ("streaming: {ping: 0}", "t.yaml:1: streaming.ping: must be more than 0"),
        ("streaming: {ping: soon}", "t.yaml:1: streaming.ping: must be a number"),
        ("streaming: {ping: 30s}", "t.yaml:1: streaming.ping: must be a number, without quotes or a unit"),
        ("limits: {body_bytes: 20MB}", "t.yaml:1: limits.body_bytes: must be a whole number, without quotes or a unit"),
        (
            "budgets: [{scope: global, period: day, limit: $5}]",
            "t.yaml:1: budgets[0].limit: must be a number, without quotes or a unit",
        ),
        (
            "routing:\n  strategy:cost",
            "t.yaml:1: routing: must be a mapping of keys to values; is there a space after the colon?",
        ),
        (
            "model_list: []",
            "t.yaml:1: model_list: is LiteLLM's; make a file of ours out of its own with: tierway import litellm",
        ),
        ("only_listed_models: yes", "t.yaml:1: only_listed_models: must be true or false"),
        ("routing: {default_model: 5}", "t.yaml:1: routing.default_model: must be text; put quotes around it"),
        ("routing: {default_model: ''}", "t.yaml:1: routing.default_model: must not be empty"),
        ("routing: []", "t.yaml:1: routing: must be a mapping of keys to values"),
        ("models: []", "t.yaml:1: models: must be a mapping of keys to values"),
        ("budgets: {}", "t.yaml:1: budgets: must be a list"),
        ("models: {a/b: {complexity: [1]}}", "t.yaml:1: models.a/b.complexity[1]: is required"),
        ("models: {a/b: {complexity: [0, 1, 1]}}", "t.yaml:1: models.a/b.complexity: has too many items"),
        ("upstreams: {a: {kind: vllm, base_url: []}}", "t.yaml:1: upstreams.a.base_url: must not be empty"),
        (
            "upstreams: {a: {kind: vllm, base_url: x}}",
            "t.yaml:1: upstreams.a.base_url[0]: must be a URL like http://host:port",
        ),
        (
            "features: {overrides: {agent: {a: {\n streming: true}}}}",
            "t.yaml:2: features.overrides.agent.a.streming: is not a feature flag; did you mean streaming?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(text: str, problem: str) -> None:
    assert said(text) == [problem]


def test_a_key_that_belongs_elsewhere_is_shown_the_way() -> None:
    (problem,) = said("routing: {max_attempts: 3}")
    assert problem.endswith("; did you mean routing.fallback.max_attempts?")
    assert said("zzzzzz: 1")[0].startswith("t.yaml:1: zzzzzz: unknown key; valid here: upstreams, models,")


@pytest.mark.parametrize("name", ["api_key", "apikey", "password", "ANTHROPIC_API_KEY", "auth_token", "client_secret"])
def test_a_secret_in_the_file_is_refused_with_the_right_way_and_not_repeated(name: str) -> None:
    (problem,) = said(f"upstreams: {{a: {{kind: ollama, {name}: sk-hunter2}}}}")
    assert "api_key_env" in problem
    assert "hunter2" not in problem


def test_max_tokens_is_not_taken_for_a_secret() -> None:
    assert said("routing: {defaults: {docs: {max_token: 5}}}")[0].endswith(
        "did you mean routing.defaults.docs.max_tokens?"
    )


def test_all_problems_are_said_in_one_run() -> None:
    """Nobody likes to mend one line, start again, and learn of the next."""
    text = (
        "routing: {stratgy: 1}\nlimits: {depth: x}\nbudgets:\n  - {scope: global}\nupstreams: {a: {kind: x, local: 5}}"
    )
    assert [each.partition(": ")[2].partition(":")[0] for each in said(text)] == [
        *("upstreams.a.kind", "upstreams.a.local", "routing.stratgy"),
        *("budgets[0].period", "budgets[0].limit", "limits.depth"),
    ]


def test_what_is_right_is_kept_so_that_it_can_be_checked_further() -> None:
    document = parse(b"models: {a/b: {num_ctx: x, fallback: [c/d]}}\nrouting: {strategy: quality}\n", "t.yaml")
    settings, problems = validate(document)
    assert len(problems) == 1
    assert settings.models["a/b"].fallback == ("c/d",)
    assert settings.routing.strategy == "quality"


def test_a_wrong_value_is_not_reported_as_missing_too() -> None:
    assert len(said("upstreams: {a: {kind: vllm, base_url: x}}")) == 1
    assert len(said("upstreams: {a: {kind: nonsense}}")) == 1


def test_a_section_whose_keys_are_commented_out_is_no_mistake() -> None:
    assert said("routing:\n#  strategy: cost\nmodels:\n") == []
    assert said("routng:\n") == ["t.yaml:1: routng: unknown key; did you mean routing?"]


def test_a_file_that_could_not_be_read_is_one_problem() -> None:
    assert len(said("a: [")) == 1


def test_schema_parts_are_found_by_their_path() -> None:
    assert model_at(FileSettings, ()) is FileSettings
    assert model_at(FileSettings, ("upstreams", "kind")) is Upstream
    assert model_at(FileSettings, ("routing",)) is Routing
    assert model_at(FileSettings, ("nothing", "at", "all")) is None
    assert model_at(FileSettings, ("only_listed_models", "x")) is None
    assert "routing.rollouts.NAME.to.model" in keys()
    assert "budgets[].limit" in keys()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted({k.rpartition(".")[2] for k in keys()})), inner, max_size=4)
    ),
    max_leaves=12,
)


@hypothesis(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FileSettings.model_fields)), _JSON, max_size=4))
def test_no_shape_of_data_breaks_the_check(data: Mapping[str, Any]) -> None:
    """Whatever is in the file ends in settings or in problems."""
    settings, problems = validate(Document("t.yaml", dict(data)))
    assert isinstance(settings, FileSettings)
    assert all(each.message for each in problems)
