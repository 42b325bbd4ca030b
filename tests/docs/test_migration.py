"""The guide for those who move over: its example is what the command says, and it loads."""

from __future__ import annotations

import re
from pathlib import Path

from app.config.litellm_terms import FOREIGN
from app.config.load import load
from tests.cli.conftest import Run, run

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "migration-litellm.md"
__all__ = ["run"]


def test_the_example_is_what_the_command_makes(run: Run, tmp_path: Path) -> None:
    theirs, ours = re.findall(r"```yaml(?: litellm)?\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "config.yaml").write_text(theirs)
    result = run("import", "litellm", str(tmp_path / "config.yaml"), "-o", str(tmp_path / "tierway.yaml"))
    assert result.exit_code == 0
    assert (tmp_path / "tierway.yaml").read_text().replace(f"{tmp_path}/", "") == ours
    settings = load({"OPENAI_API_KEY": "k"}, config_path=tmp_path / "tierway.yaml")
    assert set(settings.aliases) == {"gpt-4o", "coder"} and len(settings.upstreams["vllm"].base_urls) == 2


def test_what_it_says_is_not_spoken_is_not() -> None:
    assert {"bedrock", "vertex_ai", "gemini"} <= FOREIGN
