"""Which upstreams there are, from the environment alone and from the file."""

from __future__ import annotations

from typing import Any

import pytest

from app.config.environment import Environment
from app.config.file import Document
from app.config.resolve import KINDS, Found, from_environment, from_file
from app.config.schema import FileSettings


def environment_upstreams(**environ: str) -> Found:
    return from_environment(Environment(environ))


def file_upstreams(upstreams: dict[str, Any], **environ: str) -> Found:
    entries = FileSettings.model_validate({"upstreams": upstreams}).upstreams
    assert entries is not None
    return from_file(entries, Environment(environ), Document("t.yaml"))


def test_without_anything_ollama_is_tried() -> None:
    found = environment_upstreams()
    (ollama,) = found.upstreams.values()
    assert (ollama.name, ollama.kind, ollama.base_urls) == ("ollama", "ollama", ("http://127.0.0.1:11434",))
    assert ollama.probed
    assert ollama.local
    assert ollama.max_concurrency == 8


def test_an_ollama_that_was_named_must_be_there() -> None:
    assert not environment_upstreams(OLLAMA_BASE_URL="http://127.0.0.1:11434").upstreams["ollama"].probed


def test_each_variable_makes_its_upstream() -> None:
    found = environment_upstreams(
        VLLM_BASE_URL="http://a:8000,http://b:8000",
        ANTHROPIC_API_KEY="sk-1",
        OPENAI_COMPATIBLE_BASE_URL="https://api.example.com/v1",
        OPENAI_COMPATIBLE_API_KEY="sk-2",
    )
    assert list(found.upstreams) == ["ollama", "vllm", "claude", "openai"]
    assert found.upstreams["vllm"].base_urls == ("http://a:8000", "http://b:8000")
    assert found.upstreams["vllm"].local
    claude = found.upstreams["claude"]
    assert (claude.kind, claude.base_urls, claude.local) == ("anthropic", ("https://api.anthropic.com",), False)
    assert claude.api_key is not None
    assert claude.api_key.get_secret_value() == "sk-1"
    assert not claude.probed
    assert found.upstreams["openai"].base_urls == ("https://api.example.com",)
    assert found.sources == {
        ("upstreams", "claude", "api_key"): "ANTHROPIC_API_KEY",
        ("upstreams", "openai", "api_key"): "OPENAI_COMPATIBLE_API_KEY",
    }


def test_claude_may_be_elsewhere_and_its_key_in_a_file(tmp_path: Any) -> None:
    (tmp_path / "key").write_text("sk-1")
    found = environment_upstreams(ANTHROPIC_API_KEY_FILE=str(tmp_path / "key"), ANTHROPIC_BASE_URL="http://proxy/")
    assert found.upstreams["claude"].base_urls == ("http://proxy",)
    assert "claude" not in environment_upstreams(ANTHROPIC_BASE_URL="http://proxy/").upstreams


def test_a_key_without_its_server_is_a_problem() -> None:
    found = environment_upstreams(OPENAI_COMPATIBLE_API_KEY="sk-2")
    assert [str(each) for each in found.problems] == [
        "environment: OPENAI_COMPATIBLE_API_KEY: has no effect without OPENAI_COMPATIBLE_BASE_URL"
    ]


def test_a_wrong_address_makes_no_upstream() -> None:
    environment = Environment({"VLLM_BASE_URL": "gpu-1:8000"})
    assert "vllm" not in from_environment(environment).upstreams
    assert [each.key for each in environment.problems] == ["VLLM_BASE_URL"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_file_does_not_say_is_the_kind_s_own(kind: Any) -> None:
    found = file_upstreams({"x": {"kind": kind, "base_url": "http://h"}})
    upstream, defaults = found.upstreams["x"], KINDS[kind]
    assert (upstream.local, upstream.max_concurrency) == (defaults.local, defaults.max_concurrency)
    assert upstream.timeouts == defaults.timeouts
    assert found.problems == []


def test_what_the_file_says_counts() -> None:
    entry = {
        **{"kind": "anthropic", "base_url": "http://h", "local": True, "max_concurrency": 3, "cost_per_hour": 1.5},
        **{"timeouts": {"total": 5}, "breaker": {"failures": 1}},
    }
    upstream = file_upstreams({"x": entry}).upstreams["x"]
    assert (upstream.local, upstream.max_concurrency, float(upstream.cost_per_hour)) == (True, 3, 1.5)
    assert (upstream.timeouts.total, upstream.timeouts.cold_start) == (5.0, 60.0)
    assert upstream.breaker.failures == 1


def test_a_key_that_the_file_names_is_read(tmp_path: Any) -> None:
    entry = {"kind": "openai", "base_url": "http://h", "api_key_env": "GROQ_KEY"}
    upstream = file_upstreams({"x": entry}, GROQ_KEY="sk-1").upstreams["x"]
    assert upstream.api_key is not None
    assert upstream.api_key.get_secret_value() == "sk-1"
    (tmp_path / "key").write_text("sk-2")
    found = file_upstreams({"x": entry}, GROQ_KEY_FILE=str(tmp_path / "key"))
    assert found.sources == {("upstreams", "x", "api_key"): "GROQ_KEY_FILE"}


def test_a_key_that_is_not_there_is_a_problem_at_start_not_at_the_first_request() -> None:
    entry = {"kind": "openai", "base_url": "http://h", "api_key_env": "GROQ_KEY"}
    (problem,) = file_upstreams({"x": entry}).problems
    assert str(problem) == "t.yaml: upstreams.x.api_key_env: neither GROQ_KEY nor GROQ_KEY_FILE is set"
    assert file_upstreams({"x": entry}, GROQ_KEY_FILE="/nowhere").problems == []  # said of the variable instead


def test_claude_itself_needs_a_key_and_a_proxy_of_it_may_not() -> None:
    (problem,) = file_upstreams({"c": {"kind": "anthropic"}}).problems
    assert "ANTHROPIC_API_KEY" in problem.message
    assert file_upstreams({"c": {"kind": "anthropic", "base_url": "http://proxy"}}).problems == []
