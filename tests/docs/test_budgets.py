"""The guide to budgets: who copies from it must get what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from app.api.app import fastapi_app
from app.api.budgets import budgets_router
from app.cli import main
from app.config.load import load
from app.config.schema import BudgetPolicy, BudgetRule, Scope
from app.config.settings import Settings
from app.core.caller import Caller
from app.core.spending import Counter
from app.gateway.budget_admin import BudgetState
from app.simulator.behaviour import DEFAULTS
from app.spend.alerts import Reading, said_of
from app.spend.budgets import Budgets, exceeded
from app.telemetry.metrics import exposition, new_registry
from app.telemetry.money_metrics import MoneyMetrics
from app.wire.objects import write_error
from tests.api.admins import DOOR
from tests.core.nouns import terms

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "budgets.md").read_text()
NOW = 1_795_186_800_000


def said(about: str) -> dict[str, Any]:
    """The JSON of the guide that holds this."""
    blocks: list[dict[str, Any]] = [json.loads(each) for each in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
    return next(each for each in blocks if about in json.dumps(each))


@pytest.fixture
def example(tmp_path: Path) -> Settings:
    return loaded(0, tmp_path)


def loaded(number: int, folder: Path) -> Settings:
    """From the guide's YAML."""
    path = folder / "guide.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[number])
    return load({"ANTHROPIC_API_KEY": "sk"}, config_path=path)


@pytest.fixture
def agent(example: Settings) -> Counter:
    found = Budgets(example.budgets, example.budget).counters(Caller(), terms(agent="qe-1"), NOW)
    return next(each for each in found if each.scope == "agent")


def test_the_example_limits_whom_it_says(example: Settings) -> None:
    budgets = Budgets(example.budgets, example.budget)
    one = Caller(key_id="key_1", name="ci-a", tenant="acme")
    other = Caller(key_id="key_2", name="ci-b", tenant="acme")
    found = budgets.counters(one, terms(agent="qe-1", session="s"), NOW)
    assert {each.id for each in found if each.limit_nano is not None} == {
        *("global:*:day", "tenant:*:month (acme)", "tenant:acme:day", "key:ci-*:day", "agent:qe-*:day (qe-1)"),
        "session:*:total (s)",
    }
    assert set(budgets.counters(other, terms(agent="qe-1", session="s"), NOW)) == set(found)
    starts = {each.id: each.starts_ms % 86_400_000 / 3_600_000 for each in found}
    assert (starts["global:*:day"], starts["tenant:acme:day"]) == (23, 18.5), "midnight in Berlin and in Kolkata"


def test_the_rehearsal_names_what_the_simulator_has(tmp_path: Path) -> None:
    """Who rehearses with a model or a port that is not there sees another refusal than he came for."""
    settings = loaded(1, tmp_path)
    ports = {kind: int(port) for kind, port in re.findall(r"--kind (\w+)=(\d+)", TEXT)}
    for name, upstream in settings.upstreams.items():
        assert upstream.base_urls == (f"http://127.0.0.1:{ports[upstream.kind]}",)
        known = {f"{name}/{model.name}" for model in DEFAULTS[upstream.kind].models}
        assert known & set(settings.models), name
    assert set(ports) == {upstream.kind for upstream in settings.upstreams.values()}
    large = settings.models["claude/claude-sim-large"].price
    assert large is not None and 200 * large.output == pytest.approx(0.004 * 1_000_000)


def test_the_refusal_is_what_it_shows(agent: Counter) -> None:
    error = exceeded(agent, 4_980_000_000, 10_000_000)
    assert said("budget_exceeded") == json.loads(write_error(error)) and error.status == 429
    assert error.client_may_retry is False


def test_the_alert_is_what_it_shows(agent: Counter) -> None:
    assert said("budget_alert") == said_of(Reading(agent, 4_000_000_000, 50_000_000), 0.8, NOW / 1_000)


def test_scopes_and_keys_are_explained() -> None:
    for word in get_args(Scope):
        assert f"| `{word}` |" in TEXT, word
    written = {*BudgetRule.model_fields, *(f"budget.{name}" for name in BudgetPolicy.model_fields)}
    for word in written:
        assert re.search(rf"[`{{, ]{re.escape(word)}[`:]", TEXT), word
    for word in ("used", "held", "remaining", "share", "starts_at", "ends_at", "forecast", "who"):
        assert f"`{word}`" in TEXT and word in BudgetState.__dataclass_fields__


def test_its_metrics_and_endpoints_exist() -> None:
    registry = new_registry()
    metrics = MoneyMetrics(registry)
    metrics.stand({("global", "day"): (1, 1, 1)})
    metrics.denied("global")
    metrics.alerted("global", "80%")
    exposed = exposition(registry).decode()
    for name in set(re.findall(r"tierway_[a-z_]+", TEXT)):
        assert f"\n{name}" in exposed, name
    paths = set(fastapi_app([budgets_router(DOOR, None)]).openapi()["paths"])  # type: ignore[arg-type]
    assert {"/admin/budgets", "/admin/budgets/{id}", "/admin/reservations"} <= paths


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`tierway (\w+(?: \w+)?)", TEXT))))
def test_its_commands_exist(command: str) -> None:
    names = command.split()
    group = main.get_command(None, names[0])  # type: ignore[arg-type]
    assert group is not None and names[1] in getattr(group, "commands", {})
