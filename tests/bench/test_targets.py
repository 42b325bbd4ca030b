"""Targets are complete, and what the command line says about others is checked before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from app.access.keys import KeySpec
from app.config.features import FEATURES
from app.config.load import load
from bench.targets import STANDARD_NAMES, Target, chosen, filled, named, nginx, others, standard, tierway
from bench.workloads import PAUSES

VALUES = {"upstream": "http://127.0.0.1:1", "upstream_host": "127.0.0.1:1", "port": "2", "run": "/run"}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", ["openai", "ollama", "anthropic", "vllm"])
def test_the_configuration_of_tierway_is_valid(kind: str, plain: bool, tmp_path: Path) -> None:
    target = tierway("it", kind, plain=plain)
    path = tmp_path / "tierway.yaml"
    path.write_text(filled(target.files["tierway.yaml"], VALUES))
    environment = {name: filled(value, VALUES) for name, value in target.environment.items()}
    settings = load(environment, config_path=path)
    assert settings.port == 2
    assert settings.upstreams["bench"].kind == kind
    assert set(settings.models) == (set() if plain else {f"bench/{name}" for name in PAUSES})
    assert [rule.scope for rule in settings.budgets] == ([] if plain else ["global"])
    assert settings.upstreams["bench"].local or not plain, "a plain model costs nothing"


def test_with_every_flag_off_it_is_the_plain_one_but_for_them() -> None:
    """Else "no more CPU than the pass-through" compares two things at once."""
    off, plain = (next(each for each in standard() if each.name == name) for name in ("tierway-off", "tierway-plain"))
    settings = load({name: filled(value, VALUES) for name, value in off.environment.items()})
    assert {name for name, share in settings.flags.start.items() if share} == {"STREAMING"}
    assert replace(off, name=plain.name, environment=plain.environment) == plain
    assert {name for name, _ in off.environment.items() ^ plain.environment.items()} == {
        f"FEATURE_{name}" for name in FEATURES.keys() - {"STREAMING"}
    }


def test_a_key_of_the_benchmark_is_one_that_can_be_made() -> None:
    """With a rate that nothing here reaches, and for one model, so that `auto` is as fast as the workload wants."""
    key = tierway("it").key
    assert key is not None
    spec = KeySpec.model_validate_json(filled(orjson.dumps(dict(key)).decode(), {"model": "bench-slow"}))
    assert spec.models == ("bench/bench-slow",) and spec.requests_per_minute


def test_other_braces_stay_as_they_are() -> None:
    """nginx's blocks and TOML's tables are full of them."""
    text = filled(nginx().files["nginx.conf"], VALUES)
    assert "listen 127.0.0.1:2 " in text and "server 127.0.0.1:1;" in text
    assert text.count("{") == text.count("}") and "{port}" not in text


@pytest.mark.parametrize("wrong", ["name", "=value", "name=", ""])
def test_what_is_no_pair_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        named(wrong)


def test_another_gateway_is_a_command() -> None:
    [target] = others(
        ["lite=run 'two words' --port {port}"],
        ["lite=Authorization: Bearer x", "lite=x-more: 1"],
        ["lite=prefix/{model}"],
        ["lite=/openai/"],
    )
    assert target.command == ("run", "two words", "--port", "{port}")
    assert target.headers == ("Authorization: Bearer x", "x-more: 1")
    assert (target.model, target.path, target.writes_url) == ("prefix/{model}", "/openai", False)
    [other] = others(["tz=run {url_file}"], [], [], ["tz=/"])
    assert other.writes_url and other.path == ""


@pytest.mark.parametrize(
    ("commands", "headers", "says"),
    [
        (["lite=run"], [], "neither {port} nor {url_file}"),
        (["lite=run {port}"], ["other=X: 1"], "other is no --target"),
    ],
)
def test_what_cannot_work_is_said_at_once(commands: list[str], headers: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        others(commands, headers, [], [])


def test_standard_targets_run_when_none_are_named() -> None:
    names = [target.name for target in chosen(standard(), None, [Target("mine", ("x",))])]
    assert names[0] == "direct" and names[-1] == "mine"
    assert set(names) <= {*STANDARD_NAMES, "mine"} and "tierway" in names


def test_named_targets_run_alone_and_wrong_names_are_told() -> None:
    assert [target.name for target in chosen(standard(), "tierway-claude,direct", [])] == ["direct", "tierway-claude"]
    with pytest.raises(ValueError, match="no target tirway; there are direct"):
        chosen(standard(), "tirway", [])
