"""Without these a wrong configuration is found by the users of the gateway."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.simulator.server import simulate
from tests.cli.conftest import NOWHERE, Run


@pytest.fixture
def ollama() -> Iterator[str]:
    """A simulated Ollama on a loop of its own, for commands have one themselves."""
    where: list[str] = []
    started, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with simulate("ollama") as sim:
            where.append(sim.base_url)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield where[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_what_is_in_force_is_printed(run: Run, ollama: str) -> None:
    result = run("check", OLLAMA_BASE_URL=ollama, TIERWAY_PORT="9999")
    assert result.exit_code == 0
    told = yaml.safe_load(result.stdout)
    assert told["port"] == 9999 and told["upstreams"]["ollama"]["base_urls"] == [ollama]
    lines = result.stderr.splitlines()
    assert "ollama (ollama): 2 models" in lines and "  ollama/sim-small" in lines and "warning" not in result.stderr


def test_as_json(run: Run, ollama: str) -> None:
    """Standard output is JSON and nothing else, for scripts."""
    result = run("check", "--json", OLLAMA_BASE_URL=ollama)
    assert result.exit_code == 0 and json.loads(result.stdout)["host"] == "127.0.0.1"


def test_a_named_upstream_that_does_not_answer_is_a_failure(run: Run) -> None:
    result = run("check", OLLAMA_BASE_URL=NOWHERE)
    assert result.exit_code == 1 and f"ollama (ollama): away at {NOWHERE}: " in result.stderr
    assert "onnect call failed" in result.stderr, "the cause in the system's own words"


def test_names_that_lead_nowhere_are_warnings(run: Run, ollama: str, tmp_path: Path) -> None:
    """A typo in a model's name is otherwise a 404 to somebody else, days later."""
    file = tmp_path / "tierway.yaml"
    file.write_text(
        "models: {ollama/sim-smal: {}, ollama/sim-small: {fallback: [ollama/gone]}}\n"
        "aliases: {fast: ollama/sim-small, vectors: tierway/static, slow: nothing}\n"
        "routing: {default_model: sim-medum}\n"
    )
    run("keys", "create", "--name", "ci", "--model", "olama/*", "--model", "ollama/*")
    ended = run("keys", "create", "--name", "old", "--model", "gone").stdout.split()[1]
    run("keys", "revoke", ended)
    result = run("check", "--config", str(file), OLLAMA_BASE_URL=ollama)
    assert result.exit_code == 0
    warnings = [line.removeprefix("warning: ") for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings[:-1] == [
        "models.ollama/sim-smal: nobody offers ollama/sim-smal",
        "models.ollama/sim-small.fallback[0]: nobody offers ollama/gone",
        "routing.default_model: nobody offers sim-medum",
        "aliases.slow: nobody offers nothing",
    ]
    assert warnings[-1].startswith("key ci (key_") and warnings[-1].endswith("): nobody offers olama/*")


def test_an_upstream_that_nobody_named_may_be_away(run: Run, tmp_path: Path) -> None:
    """Whatever answers on this machine's port of Ollama, or nothing at all."""
    assert run("check", OLLAMA_BASE_URL="").exit_code == 0


def test_offline_nobody_is_asked(run: Run, tmp_path: Path) -> None:
    result = run("check", "--offline")
    assert result.exit_code == 0 and result.stderr == "" and not (tmp_path / "data").exists()


def test_a_store_that_is_unusable_is_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    result = run("check")
    assert result.exit_code == 1 and "TIERWAY_DATA_DIR" in result.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_secrets_are_never_printed(run: Run, tmp_path: Path, form: list[str]) -> None:
    """People paste what this prints into issues."""
    kept = tmp_path / "admin"
    kept.write_text("hunter4-of-the-operator")
    result = run(
        "check",
        "--offline",
        *form,
        ANTHROPIC_API_KEY="hunter1",
        OPENAI_COMPATIBLE_BASE_URL=NOWHERE,
        OPENAI_COMPATIBLE_API_KEY="hunter2",
        REDIS_URL="redis://:hunter3@127.0.0.1:1/0",
        TIERWAY_ADMIN_KEY_FILE=str(kept),
    )
    assert result.exit_code == 0 and "hunter" not in result.output
    for variable in ("ANTHROPIC_API_KEY", "OPENAI_COMPATIBLE_API_KEY", "REDIS_URL", "TIERWAY_ADMIN_KEY_FILE"):
        assert f"set (from {variable})" in result.stdout


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("TIERWAY_WORKER", "TIERWAY_WORKERS"),
        ("FEATURE_STREEMING", "FEATURE_STREAMING"),
        ("TIERWAY_HOTS", "TIERWAY_HOST"),
    ],
)
def test_a_misspelt_variable_is_an_error_that_names_the_right_one(run: Run, variable: str, meant: str) -> None:
    result = run("check", "--offline", **{variable: "1"})
    assert result.exit_code == 2 and f"did you mean {meant}?" in result.stderr


def test_what_has_no_effect_is_a_warning(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"budget.lower_max_tokens": "it is for later", "FEATURE_SESSIONS": "they are for later"}
    monkeypatch.setattr("app.config.later.LATER", rows)
    file = tmp_path / "tierway.yaml"
    file.write_text("budget: {lower_max_tokens: true}")
    result = run("check", "--offline", "--config", str(file), FEATURE_SESSIONS="false")
    assert result.exit_code == 0 and yaml.safe_load(result.stdout)["budget"]["lower_max_tokens"] is True
    assert "warning: budget.lower_max_tokens has no effect: it is for later" in result.stderr
    assert "warning: FEATURE_SESSIONS has no effect: they are for later" in result.stderr


def test_budgets_are_shown_as_they_are_kept(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tierway.yaml"
    file.write_text("budgets: [{scope: global, period: day, limit: 1.5}]")
    result = run("check", "--offline", "--config", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    (rule,) = yaml.safe_load(result.stdout)["budgets"]
    assert (rule["scope"], rule["match"], rule["period"], float(rule["limit"])) == ("global", "*", "day", 1.5)


def test_one_limit_written_twice_is_an_error(run: Run, tmp_path: Path) -> None:
    """Whoever raises the one wonders why the other still binds."""
    file = tmp_path / "tierway.yaml"
    file.write_text("budgets: [{scope: global, period: day, limit: 1}, {scope: global, period: day, limit: 2}]")
    result = run("check", "--offline", "--config", str(file))
    assert result.exit_code == 2 and result.stdout == ""
    assert "there is a budget global:*:day already" in result.stderr
