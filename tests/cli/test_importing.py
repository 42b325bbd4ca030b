"""Who moves over types one command; it must neither lose a file nor leave a word unsaid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.config.load import load
from tests.cli.conftest import Run

CONFIG = """\
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: sk-hunter2, rpm: 10}
general_settings: {master_key: sk-hunter2}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_the_file_loads_and_the_rest_is_said(run: Run, config: Path, tmp_path: Path) -> None:
    made = tmp_path / "tierway.yaml"
    result = run("import", "litellm", str(config), "-o", str(made))
    assert result.exit_code == 0 and result.stdout == ""
    assert "model_list[0].litellm_params.rpm" in result.stderr and "master_key" in result.stderr
    assert all(line in made.read_text() for line in result.stderr.splitlines())
    assert dict(load({"OPENAI_API_KEY": "k"}, config_path=made).aliases) == {"gpt-4o": "openai/gpt-4o"}
    assert "hunter2" not in result.output + made.read_text()
    again = run("check", "--offline", "--config", str(made), OPENAI_API_KEY="k")
    assert again.exit_code == 0


def test_without_a_file_it_is_printed(run: Run, config: Path, tmp_path: Path) -> None:
    made = tmp_path / "tierway.yaml"
    made.write_text(run("import", "litellm", str(config)).stdout)
    assert load({"OPENAI_API_KEY": "k"}, config_path=made).only_listed_models


def test_as_json(run: Run, config: Path) -> None:
    said = json.loads(run("import", "litellm", str(config), "--json").stdout)
    assert said["variables"] == ["OPENAI_API_KEY"] and said["config"]["aliases"] == {"gpt-4o": "openai/gpt-4o"}
    assert (3, "model_list[0].litellm_params.rpm") in [(note["line"], note["key"]) for note in said["notes"]]


def test_a_file_that_exists_is_not_written_over(run: Run, config: Path, tmp_path: Path) -> None:
    made = tmp_path / "tierway.yaml"
    made.write_text("precious")
    result = run("import", "litellm", str(config), "-o", str(made))
    assert result.exit_code == 2 and "it is there already" in result.stderr and made.read_text() == "precious"


@pytest.mark.parametrize(("text", "status"), [("a: [", 2), (None, 2), ("model_list: []", 1), ("", 2)])
def test_what_cannot_be_carried_over_is_an_error(run: Run, tmp_path: Path, text: str | None, status: int) -> None:
    path = tmp_path / "wrong.yaml"
    if text is not None:
        path.write_text(text)
    result = run("import", "litellm", str(path))
    assert result.exit_code == status and "wrong.yaml" in result.stderr
