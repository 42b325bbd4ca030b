"""An alert that never fires is worse than none, and one that fires in vain is soon ignored."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy import rules as written
from tests.deploy.declared import ROOT, RULES, alerts
from tests.deploy.promtool import program

CASES: Final = ROOT / "deploy" / "prometheus" / "tests"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
HEADINGS: Final = ("What it means", "What to look at", "What to do", "Who is called")


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def cases(name: str) -> list[dict[str, Any]]:
    files = [yaml.safe_load(file.read_text()) for file in sorted(CASES.glob("*.yaml"))]
    every = [case for file in files for test in file["tests"] for case in test["alert_rule_test"]]
    return [case for case in every if case["alertname"] == name]


@pytest.mark.timeout(400)
def test_rules_and_configuration_are_valid() -> None:
    promtool = program("promtool")
    run(promtool, "check", "rules", *sorted(RULES.glob("*.yaml")))
    run(promtool, "check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yml")


@pytest.mark.timeout(400)
def test_every_case_comes_out_as_said() -> None:
    run(program("promtool"), "test", "rules", *sorted(CASES.glob("*.yaml")))


@pytest.mark.timeout(400)
def test_a_wrong_case_is_noticed(tmp_path: Path) -> None:
    """A budget that is never used up, and an alert that is expected all the same."""
    promtool = program("promtool")
    made = yaml.safe_load((CASES / "alerts.yaml").read_text())
    (case,) = [case for case in made["tests"] if case["name"].startswith("a budget")]
    case["input_series"][1]["values"] = "2x40"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        yaml.safe_dump({**made, "rule_files": [str(file) for file in RULES.glob("*.yaml")], "tests": [case]})
    )
    done = subprocess.run([promtool, "test", "rules", str(wrong)], capture_output=True, timeout=300, check=False)
    assert done.returncode != 0 and b"TierwayBudgetNear" in done.stdout + done.stderr


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_a_firing_and_a_quiet_case(name: str) -> None:
    assert any(case["exp_alerts"] for case in cases(name)), "no case in which it fires"
    assert any(not case["exp_alerts"] for case in cases(name)), "no case in which it is quiet"


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_its_runbook(name: str) -> None:
    """Whoever is woken at three needs to know what it means, where to look, what to do, and whom to call."""
    rule = alerts()[name]
    page = RUNBOOKS / f"{name}.md"
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{name}.md" and rule["annotations"]["summary"]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    text = page.read_text()
    assert text.startswith(f"# {name}\n")
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == list(HEADINGS)
    severity = f"**{rule['labels']['severity']}**"
    assert severity in text, f"the page says another severity than {severity}"


def test_no_runbook_is_left_over() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(alerts())
    index = (RUNBOOKS / "README.md").read_text()
    for name in alerts():
        assert f"({name}.md)" in index


def test_the_object_of_kubernetes_holds_the_same_rules() -> None:
    """Whoever changes a rule writes it again: python -m deploy.rules."""
    assert written.OBJECT.read_text() == written.text()
    made = yaml.safe_load(written.text())
    assert made["spec"]["groups"] == written.groups() and len(alerts()) == 20
