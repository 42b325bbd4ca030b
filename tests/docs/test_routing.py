"""The routing guide names what there is: who reads a reason in a header finds it here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.api.documented import ROUTED
from app.cli import main
from app.config.load import load
from app.core.verdict import TASKS, TIERS
from app.routing.strategies import WORDS
from tests.docs.everyday import GUIDE, NOTES

TEXT = GUIDE.read_text()


def test_every_word_that_a_client_can_meet_is_explained() -> None:
    reasons = {words for each in WORDS.values() for words in (each.first, each.strongest)}
    for word in (*TASKS, *(name for name, _ in TIERS), *WORDS, *reasons, *ROUTED["properties"]):
        assert f"`{word}`" in TEXT, word


def test_the_example_loads_and_is_what_the_prompts_were_asked_of(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "guide.yaml"
    path.write_text(block)
    settings = load({"ANTHROPIC_API_KEY": "sk"}, config_path=path)
    assert {name: list(model.complexity or ()) for name, model in settings.models.items()} == {
        name: note["complexity"] for name, note in NOTES.items()
    }
    prices = {name: model.price for name, model in settings.models.items() if model.price is not None}
    said = {name: note["price"] for name, note in NOTES.items() if "price" in note}
    assert {name: {"input": each.input, "output": each.output} for name, each in prices.items()} == said


@pytest.mark.parametrize("command", re.findall(r"^tierway (\w+)", TEXT, re.MULTILINE))
def test_its_commands_exist(command: str) -> None:
    assert command in main.commands
