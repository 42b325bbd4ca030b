"""Who moves over must find their models where they were, and no key in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from app.config.imported import as_file
from app.config.litellm_terms import FOREIGN, PROVIDERS
from tests.config.foreign import deployment, imported, loaded, notes

CANARY = "sk-canary-0123456789"
GPU = "http://gpu-1:8000/v1"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_that_is_spoken_here_is_carried_over(tmp_path: Path, provider: str) -> None:
    found = imported({"model_list": [deployment("fast", f"{provider}/some-model", api_base="http://10.0.0.1:9/v1")]})
    settings = loaded(found, tmp_path)
    (upstream,) = settings.upstreams.values()
    assert upstream.kind == PROVIDERS[provider].kind
    assert upstream.base_urls == ("http://10.0.0.1:9/openai" if provider == "azure" else "http://10.0.0.1:9",)
    assert dict(settings.aliases) == {"fast": f"{upstream.name}/some-model"} and settings.only_listed_models


@pytest.mark.parametrize("provider", sorted(FOREIGN))
def test_a_provider_that_is_not_spoken_here_is_named(tmp_path: Path, provider: str) -> None:
    found = imported({"model_list": [deployment("x", f"{provider}/m"), deployment("y", "openai/m")]})
    assert "not spoken here" in notes(found)["model_list[0].litellm_params.model"]
    assert list(loaded(found, tmp_path).aliases) == ["y"]


def test_a_key_goes_only_where_it_belongs(tmp_path: Path) -> None:
    """LiteLLM sends OpenAI's key to any server called openai/; here it is OpenAI's."""
    rows = [deployment("a", "openai/m"), deployment("b", "openai/m", api_base="http://other:1")]
    settings = loaded(imported({"model_list": rows}), tmp_path)
    assert settings.upstreams["openai"].api_key is not None and settings.upstreams["openai-2"].api_key is None


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("os.environ/MY_KEY", "MY_KEY"),
        ("os.environ/my_key", "MY_KEY"),
        (CANARY, "OPENAI_0_API_KEY"),
        (f"os.environ/{CANARY}", "OPENAI_0_API_KEY"),
        ("none", None),
        (None, None),
    ],
)
def test_keys_become_variables(tmp_path: Path, key: str | None, variable: str | None) -> None:
    found = imported({"model_list": [deployment("a", "openai/m", api_base="http://other:1", api_key=key)]})
    assert found.variables == ([variable] if variable else [])
    assert CANARY not in as_file(found) and CANARY.upper().replace("-", "_") not in as_file(found)
    assert loaded(found, tmp_path).upstreams


def test_no_secret_is_written_wherever_it_stood() -> None:
    found = imported(
        {
            "model_list": [
                deployment("a", "anthropic/claude-x", api_key=CANARY),
                deployment("b", "openai/m", api_base=f"https://user:{CANARY}@host"),
                deployment("c", "openai/m", api_base=f"https://host/v1?key={CANARY}"),
                deployment("d", "bedrock/m", aws_secret_access_key=CANARY),
                deployment("e", "openai/m", extra_headers={"x-key": CANARY}),
            ],
            "general_settings": {"master_key": CANARY, "database_url": f"postgres://u:{CANARY}@h/d"},
            "litellm_settings": {"cache_params": {"password": CANARY}, "langfuse_secret": CANARY},
            "router_settings": {
                "redis_password": CANARY,
                "routing_strategy": CANARY,
                "fallbacks": [{CANARY: [CANARY]}],
            },
            "environment_variables": {"OPENAI_API_KEY": CANARY},
        }
    )
    assert CANARY not in as_file(found)
    assert "TIERWAY_ADMIN_KEY" in notes(found)["general_settings.master_key"]


def test_equal_servers_are_one_pool_and_different_ones_stand_in(tmp_path: Path) -> None:
    rows = [
        deployment("coder", "hosted_vllm/qwen", api_base=GPU),
        deployment("coder", "hosted_vllm/qwen", api_base="http://gpu-2:8000"),
        deployment("coder", "openai/gpt-x"),
    ]
    settings = loaded(imported({"model_list": rows}), tmp_path)
    assert settings.upstreams["vllm"].base_urls == ("http://gpu-1:8000", "http://gpu-2:8000")
    assert settings.models["vllm/qwen"].fallback == ("openai/gpt-x",)


def test_servers_with_different_models_are_different_upstreams(tmp_path: Path) -> None:
    """A pool of unequal servers would ask one for what only the other has."""
    rows = [
        deployment("a", "hosted_vllm/a", api_base=GPU),
        deployment("b", "hosted_vllm/b", api_base="http://gpu-2:8000"),
    ]
    settings = loaded(imported({"model_list": rows}), tmp_path)
    assert {name: len(each.base_urls) for name, each in settings.upstreams.items()} == {"vllm": 1, "vllm-2": 1}


def test_what_is_said_of_a_model_is_kept(tmp_path: Path) -> None:
    info = {"max_input_tokens": 128_000, "max_output_tokens": 4_096, "input_cost_per_token": 2.5e-06}
    row = deployment(
        "local",
        "ollama_chat/qwen3:8b",
        {**info, "supports_vision": True, "mode": "chat", "odd": 1},
        output_cost_per_token=1e-05,
        num_ctx=16_384,
        temperature=0,
        max_tokens=500,
        timeout=30,
        stream_timeout=5.5,
        max_parallel_requests=3,
        rpm=60,
    )
    found = imported({"model_list": [row]})
    settings = loaded(found, tmp_path)
    (model,) = settings.models.values()
    assert (model.context_window, model.max_output, model.num_ctx) == (128_000, 4_096, 16_384)
    assert model.price is not None and (float(model.price.input), float(model.price.output)) == (2.5, 10)
    defaults = settings.routing.defaults["ollama/qwen3:8b"]
    assert (defaults.temperature, defaults.max_tokens) == (0, 500)
    upstream = settings.upstreams["ollama"]
    assert (upstream.timeouts.total, upstream.timeouts.first_token, upstream.timeouts.idle) == (30, 5.5, 5.5)
    assert upstream.max_concurrency == 3
    assert {key.rpartition(".")[2] for key in notes(found)} == {"supports_vision", "odd", "rpm"}


def test_patterns_open_the_whole_upstream(tmp_path: Path) -> None:
    found = imported({"model_list": [deployment("*", "openai/*"), deployment("fast", "openai/m")]})
    settings = loaded(found, tmp_path)
    assert not settings.only_listed_models and list(settings.models) == ["openai/m"]
    assert "openai offers" in notes(found)["model_list[0].model_name"]


def test_names_that_mean_something_else_here_are_said(tmp_path: Path) -> None:
    rows = [
        deployment("auto", "openai/a"),
        deployment("openai/b", "openai/b"),
        deployment("openai/a", "openai/c"),
        deployment("fine", "openai/c"),
    ]
    found = imported({"model_list": rows})
    assert dict(loaded(found, tmp_path).aliases) == {"fine": "openai/c"}
    assert "ask for openai/" in notes(found)["model_list"]


def test_an_address_in_a_variable_is_taken_from_it(tmp_path: Path) -> None:
    data = {"model_list": [deployment("a", "hosted_vllm/m", api_base="os.environ/GPU_URL")]}
    assert loaded(imported(data, {"GPU_URL": GPU}), tmp_path).upstreams["vllm"].base_urls == ("http://gpu-1:8000",)
    assert "upstreams" not in imported(data).data
    assert "import again" in next(iter(notes(imported(data)).values()))


@pytest.mark.parametrize(
    ("model", "provider", "id"),
    [
        ("claude-sonnet-5-5", None, "claude/claude-sonnet-5-5"),
        ("gpt-5", None, "openai/gpt-5"),
        ("some-model", "groq", "groq/some-model"),
        ("openrouter/anthropic/claude-x", None, "openrouter/anthropic/claude-x"),
    ],
)
def test_models_without_a_prefix_are_known_by_name(tmp_path: Path, model: str, provider: str | None, id: str) -> None:
    said: dict[str, Any] = {"custom_llm_provider": provider} if provider else {}
    assert list(loaded(imported({"model_list": [deployment("x", model, **said)]}), tmp_path).models) == [id]


@pytest.mark.parametrize(
    "row",
    [None, 3, {}, {"model_name": "a"}, deployment("", "openai/m"), deployment("a", "unknown/m"), deployment("a", "m")],
)
def test_rows_that_cannot_be_read_are_noted(row: Any) -> None:
    found = imported({"model_list": [row]})
    assert "upstreams" not in found.data and len(found.notes) == 1


WORDS = st.sampled_from(
    [
        *(
            "a",
            "auto",
            "gpt-*",
            "openai/m",
            "ollama/m",
            "anthropic/m",
            "azure/m",
            "hosted_vllm/m",
            "bedrock/m",
            "m",
            "",
        ),
        *(
            "http://h:1",
            "https://h/v1",
            "os.environ/K",
            "os.environ/k-1",
            "30d",
            "7d",
            "*",
            "a[b",
            "x\ny",
            "é/ü",
            "openai/",
        ),
    ]
)
VALUES = st.recursive(
    st.one_of(WORDS, st.none(), st.booleans(), st.integers(-2, 10**12), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)


def some(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), VALUES, max_size=5)


PARAMS = some(
    *("api_base", "api_key", "timeout", "stream_timeout", "num_ctx", "temperature", "max_tokens", "rpm", "odd"),
    *("input_cost_per_token", "output_cost_per_token", "max_parallel_requests", "custom_llm_provider"),
)
ROWS = st.builds(
    lambda name, model, params, info: {
        "model_name": name,
        "litellm_params": {**params, "model": model},
        "model_info": info,
    },
    *(WORDS, WORDS, PARAMS, some("max_input_tokens", "max_output_tokens", "mode", "id")),
)
SETTINGS = some(
    *("num_retries", "fallbacks", "context_window_fallbacks", "default_fallbacks", "request_timeout", "max_budget"),
    *(
        "budget_duration",
        "allowed_fails",
        "cooldown_time",
        "model_group_alias",
        "routing_strategy",
        "odd",
        "master_key",
    ),
    *("global_max_parallel_requests", "stream_timeout", "timeout"),
)
FILES = st.fixed_dictionaries(
    {"model_list": st.one_of(st.lists(st.one_of(ROWS, ROWS, ROWS, VALUES), max_size=6), VALUES)},
    optional={"litellm_settings": SETTINGS, "router_settings": SETTINGS, "general_settings": SETTINGS, "odd": VALUES},
)


@hypothesis(max_examples=300, deadline=None)
@given(FILES)
def test_whatever_was_in_the_file_the_result_loads(data: dict[str, Any]) -> None:
    """An import that ends in a file the gateway does not take is none."""
    with tempfile.TemporaryDirectory() as folder:
        loaded(imported(data), Path(folder))
