"""What `tierway check` prints: everything in force, no secret."""

from __future__ import annotations

from pathlib import Path

import orjson
import yaml

from app.config.explain import as_json, as_yaml, explain, plain
from app.config.load import load
from app.config.settings import Settings

ENVIRON = {"TIERWAY_ADMIN_KEY": "hunter2-of-the-operator", "ANTHROPIC_API_KEY": "hunter2", "HOME": "/h"}


def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "t.yaml"
    path.write_text(
        "models: {ollama/a: {abilities: [tools], price: {input: 1, output: 2}}}\n"
        "budget: {webhook: 'https://hooks/hunter2'}\n"
        "upstreams:\n  c.eu: {kind: anthropic, api_key_env: ANTHROPIC_API_KEY}\n  ollama: {kind: ollama}\n"
    )
    return load(ENVIRON, config_path=path)


def test_secrets_are_only_said_to_be_set(tmp_path: Path) -> None:
    resolved = settings(tmp_path)
    data = explain(resolved)
    assert data["admin_key"] == "set (from TIERWAY_ADMIN_KEY)"
    assert data["upstreams"]["c.eu"]["api_key"] == "set (from ANTHROPIC_API_KEY)"
    assert data["upstreams"]["ollama"]["api_key"] is None
    assert data["budget"]["webhook"] == "set"
    assert "hunter2" not in as_json(resolved) + as_yaml(resolved)


def test_defaults_and_what_is_unknown_are_shown(tmp_path: Path) -> None:
    data = explain(settings(tmp_path))
    assert data["upstreams"]["ollama"]["base_urls"] == ["http://127.0.0.1:11434"]
    assert data["streaming"]["ping"] == 15.0
    assert data["routing"]["default_model"] is None
    assert data["models"]["ollama/a"]["abilities"] == ["tools"]
    assert data["models"]["ollama/a"]["price"] == {"input": 1.0, "output": 2.0, "cache_read": None, "cache_write": None}
    assert data["flags"]["start"]["SHADOW"] == 0.0
    assert "sources" not in data
    assert data["config_version"] == settings(tmp_path).version, "the name that log lines have it by"


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    resolved = settings(tmp_path)
    assert orjson.loads(as_json(resolved)) == yaml.safe_load(as_yaml(resolved)) == explain(resolved)


def test_sets_come_in_order() -> None:
    assert plain(frozenset({"b", "a"})) == ["a", "b"]
