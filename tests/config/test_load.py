"""Environment and file together make the settings, or one error that says everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config.load import load, version_of
from app.config.problems import ConfigError
from app.config.settings import Settings

CONTRACT = """
upstreams:
  ollama: {kind: ollama, base_url: "http://127.0.0.1:11434", local: true}
  gpu:
    kind: vllm
    base_url: ["http://gpu-1:8000", "http://gpu-2:8000"]
    max_concurrency: 64
    timeouts: {connect: 5, first_token: 60, cold_start: 300, idle: 60, total: 600}
    breaker: {failures: 5, window: 30, rate: 0.5, open: 10, max_open: 300, successes: 2}
    cost_per_hour: 0
  claude: {kind: anthropic, api_key_env: ANTHROPIC_API_KEY, base_url: "https://api.anthropic.com"}
models:
  ollama/rnj-1: {complexity: [0.0, 0.4], abilities: [tools], num_ctx: 32768}
  claude/claude-sonnet-5-5: {complexity: [0.3, 0.8], fallback: [gpu/qwen3-coder-30b-a3b]}
  claude/claude-opus-5-5: {complexity: [0.6, 1.0], price: {input: 4.00, output: 20.00, cache_read: 0.20, cache_write: 5.00}}
only_listed_models: false
aliases: {"gpt-*": auto, "o[1-9]*": auto, fast: ollama/rnj-1}
routing:
  strategy: cost
  default_model: null
  target_local: null
  cloud: normal
  degrade: false
  max_local_latency: null
  tasks: {docs: {prefer: [ollama/devstral-small-2]}}
  defaults: {docs: {temperature: 0.2, max_tokens: 512, system: "Be brief."}}
  fallback: {on: true, max_attempts: 3}
  rollouts: {newer: {kind: canary, share: "10%", to: {model: ollama/rnj-1}, rollback: true}}
budgets:
  - {scope: global, period: day, limit: 50.00}
  - {scope: agent, match: "qe-*", period: day, limit: 5.00, shared: false}
budget: {estimate: strict, on_crash: full, time_zone: UTC, alert_at: [0.8, 1.0], webhook: null, lower_max_tokens: false}
sessions: {ttl_days: 30, max_bytes: 4194304}
streaming: {send_timeout: 30, buffer_bytes: 262144, commit_after: 15, ping: 15, resumable: opt-in, orphan_seconds: 60, min_tokens_per_second: 0, grace: 300}
limits: {body_bytes: 20971520, messages: 2048, tools: 256, depth: 64, in_flight: 2000}
features: {overrides: {agent: {problem-agent: {multi_model_router: false}}, key: {}, tenant: {}}}
"""  # noqa: E501 - as users copy it


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "tierway.yaml"
    path.write_text(CONTRACT)
    return path


def error_of(environ: dict[str, str], path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(environ, config_path=path)
    return str(caught.value).splitlines()


def test_nothing_at_all_is_a_configuration() -> None:
    """A newcomer types one command."""
    settings = load({})
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8080, 1)
    assert list(settings.upstreams) == ["ollama"]
    assert dict(settings.aliases) == {"gpt-*": "auto", "o[1-9]*": "auto"}
    assert settings.config_path is None
    assert settings.admin_key is None


def test_the_documented_file_loads_whole(written: Path) -> None:
    settings = load({"ANTHROPIC_API_KEY": "sk-1"}, config_path=written)
    assert list(settings.upstreams) == ["ollama", "gpu", "claude"]
    assert settings.upstreams["gpu"].base_urls == ("http://gpu-1:8000", "http://gpu-2:8000")
    assert settings.aliases["fast"] == "ollama/rnj-1"
    assert settings.routing.rollouts["newer"].share == pytest.approx(0.1)
    assert [each.id for each in settings.budgets] == ["global:*:day", "agent:qe-*:day"]
    assert settings.flags.overrides.agent["problem-agent"]["multi_model_router"] == 0.0
    assert settings.config_path == written


def test_defaults_in_the_file_are_the_defaults(written: Path) -> None:
    """The example shows defaults; writing them down must change nothing."""
    settings, bare = load({"ANTHROPIC_API_KEY": "sk-1"}, config_path=written), Settings()
    assert (settings.budget, settings.sessions) == (bare.budget, bare.sessions)
    assert (settings.streaming, settings.limits) == (bare.streaming, bare.limits)


def test_the_environment_names_the_file_and_an_argument_wins(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("routing: {strategy: quality}\n")
    environ = {"TIERWAY_CONFIG": str(written), "ANTHROPIC_API_KEY": "sk-1"}
    assert load(environ).routing.strategy == "cost"
    assert load(environ, config_path=other).routing.strategy == "quality"


def test_with_a_file_there_are_only_its_aliases(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("aliases: {fast: ollama/rnj-1}\n")
    assert dict(load({}, config_path=path).aliases) == {"fast": "ollama/rnj-1"}
    path.write_text("{}")
    assert dict(load({}, config_path=path).aliases) == {}


def test_a_named_file_that_is_empty_is_an_error(tmp_path: Path) -> None:
    """Else a copy that broke off is a gateway without budgets."""
    path = tmp_path / "t.yaml"
    path.write_text("\n")
    assert error_of({"TIERWAY_CONFIG": str(path)}) == [f"{path}: is empty; {{}} says that nothing is to be set"]


def test_upstream_variables_count_only_where_the_file_has_no_upstreams(written: Path, tmp_path: Path) -> None:
    environ = {"VLLM_BASE_URL": "not even a URL", "ANTHROPIC_API_KEY": "sk-1"}
    assert "vllm" not in load(environ, config_path=written).upstreams
    path = tmp_path / "t.yaml"
    path.write_text("upstreams:\nrouting: {strategy: quality}\n")
    assert "vllm" in load({"VLLM_BASE_URL": "http://h"}, config_path=path).upstreams
    path.write_text("upstreams: {}\n")
    assert dict(load({"VLLM_BASE_URL": "http://h"}, config_path=path).upstreams) == {}


def test_models_may_be_noted_on_for_upstreams_that_are_not_here(tmp_path: Path) -> None:
    """One file serves a laptop without a key and a server with one."""
    path = tmp_path / "t.yaml"
    path.write_text("models: {claude/claude-opus-5-5: {complexity: [0.6, 1]}, claud/x: {}}\n")
    (problem,) = error_of({}, path)
    assert problem.endswith("there are: claude, ollama, openai, vllm; did you mean claude/x?")


def test_everything_wrong_anywhere_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "routing: {stratgy: cost}\n"
        "upstreams:\n  gpu: {kind: vlm, base_url: 'http://h'}\n"
        "  x: {kind: openai, base_url: 'http://h', api_key_env: X_KEY}\n"
        "models: {gqu/a: {}, gpu/b: {}}\nrouting: {}\n"
    )
    environ = {"TIERWAY_PROT": "1", "FEATURE_SHADOW": "x", "TIERWAY_PORT": "x", "TIERWAY_LOG_LEVEL": "loud"}
    keys = [each.removeprefix(f"{path}:").split(": ")[1] for each in error_of(environ, path)]
    assert sorted(keys) == sorted(
        [
            *("routing.stratgy", "upstreams.gpu.kind", "upstreams.x.api_key_env", "models.gqu/a", "routing"),
            *("TIERWAY_PROT", "FEATURE_SHADOW", "TIERWAY_PORT", "TIERWAY_LOG_LEVEL"),
        ]
    )


def test_a_key_that_two_upstreams_share_is_complained_of_once(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    shared = "{kind: openai, base_url: 'http://h', api_key_env: X_KEY}"
    path.write_text(f"upstreams: {{a: {shared}, b: {shared}}}\n")
    assert error_of({"X_KEY_FILE": "/nowhere"}, path) == ["environment: X_KEY_FILE: names a file that cannot be read"]


def test_problems_of_the_file_come_in_the_order_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("models: {zzz/a: {}}\nlimits: {depth: x}\naliases: {auto: b}\n")
    assert [each.split(":")[1] for each in error_of({}, path)] == ["1", "2", "3"]


def test_a_missing_file_is_an_error_not_a_default() -> None:
    (problem,) = error_of({"TIERWAY_CONFIG": "/nowhere/t.yaml"})
    assert problem == "/nowhere/t.yaml: cannot be read: No such file or directory"


def test_no_error_repeats_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "api_key: sk-hunter2\n"
        "upstreams:\n"
        "  a: {kind: openai, base_url: 'http://u:sk-hunter2@h', api_key_env: sk-hunter2, token: sk-hunter2}\n"
        "budget: {webhook: sk-hunter2, time_zone: sk-hunter2}\n"
        "routing: {strategy: sk-hunter2, default_model: 'auto:sk-hunter2'}\n"
    )
    environ = {
        "REDIS_URL": "sk-hunter2",
        "TIERWAY_PORT": "sk-hunter2",
        "TIERWAY_X": "sk-hunter2",
        "FEATURE_SHADOW": "sk-hunter2",
    }
    problems = error_of(environ, path)
    assert len(problems) == 12
    assert "hunter2" not in "\n".join(problems)


ADMIN_KEY = "hunter2-of-the-operator"


def test_secrets_stay_out_of_repr_and_come_with_their_source() -> None:
    settings = load({"TIERWAY_ADMIN_KEY": ADMIN_KEY, "REDIS_URL": "redis://:hunter2@h", "ANTHROPIC_API_KEY": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == ADMIN_KEY
    assert dict(settings.sources) == {
        ("admin_key",): "TIERWAY_ADMIN_KEY",
        ("redis_url",): "REDIS_URL",
        ("upstreams", "claude", "api_key"): "ANTHROPIC_API_KEY",
    }


def test_flags_start_as_the_environment_says() -> None:
    flags = load({"FEATURE_STREAMING": "false", "FEATURE_SHADOW": "10%", "FEATURE_LOCK": "true"}).flags
    assert flags.start["STREAMING"] == 0.0
    assert flags.start["SHADOW"] == pytest.approx(0.1)
    assert flags.start["SESSIONS"] == 1.0
    assert flags.named == {"STREAMING", "SHADOW"}
    assert flags.locked


def test_state_is_kept_below_the_home_unless_said() -> None:
    assert load({"HOME": "/home/me"}).data_dir == Path("/home/me/.local/state/tierway")
    assert load({"HOME": "/home/me", "TIERWAY_DATA_DIR": "/data"}).data_dir == Path("/data")


def test_logs_are_json_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert load({}).log_format == "json"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert load({}).log_format == "console"
    assert load({"TIERWAY_LOG_FORMAT": "json"}).log_format == "json"


def test_the_version_names_what_is_done_with_requests() -> None:
    """Replicas that are configured alike have the same version; a change of anything that matters changes it."""
    version = load({}).version
    assert len(version) == 12
    assert load({"TIERWAY_PORT": "1", "TIERWAY_DATA_DIR": "/x", "TIERWAY_LOG_LEVEL": "debug"}).version == version
    assert load({"VLLM_BASE_URL": "http://h"}).version != version
    assert load({"FEATURE_SHADOW": "1%"}).version != version
    assert version_of(load({})) == version


def test_the_version_does_not_depend_on_a_secret_s_value() -> None:
    assert load({"ANTHROPIC_API_KEY": "a"}).version == load({"ANTHROPIC_API_KEY": "b"}).version != load({}).version
