"""`tierway eval router`: figures, the card, the picture, and exit code 1 where there is nothing to be proud of."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from app.cli import main
from app.lab.train import train_router
from app.routing.weights import Weights, read_weights, write_weights
from tests.lab.world import RECIPE, fill, prompts, task, write

HELD_OUT = [
    {
        "id": f"h{number}",
        "suite": "mmlu",
        "prompt": text + " Today?",
        "weak": int(not hard),
        "strong": 1,
    }
    for number, (text, hard) in enumerate(prompts(80, 11))
]
TIERS = [
    {"id": f"t{number}", "source": "s", "prompt": text + " Now?", "tier": "complex" if hard else "simple"}
    for number, (text, hard) in enumerate(prompts(80, 12))
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", "router", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights") / "router.safetensors"
    train_router(data, out, RECIPE, lambda _: None)
    return out


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    return write(tmp_path / "held.jsonl", [*HELD_OUT, *TIERS])


def test_figures_are_printed_and_drawn(trained: Path, held_out: Path, tmp_path: Path) -> None:
    found = run("--data", held_out, "--weights", trained, "--png", tmp_path / "plot.png")
    assert found.exit_code == 0, found.output
    assert "mmlu" in found.stdout and "two-way" in found.stdout and "better" in found.stdout
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_only_what_there_are_rows_for_is_printed(trained: Path, tmp_path: Path) -> None:
    """Somebody who labels tasks alone sees task types, and no empty tables."""
    rows = [{**row, "prompt": f"{row['prompt']} today"} for row in task()]
    found = run("--data", write(tmp_path / "tasks.jsonl", rows), "--weights", trained)
    assert found.exit_code == 0
    assert "code_review" in found.stdout
    assert "CPT50" not in found.stdout and "two-way" not in found.stdout


def test_json_is_json(trained: Path, held_out: Path) -> None:
    found = run("--data", held_out, "--weights", trained, "--json")
    assert orjson.loads(found.stdout)["better"] is True


def test_the_card_is_markdown(trained: Path, held_out: Path) -> None:
    found = run("--data", held_out, "--weights", trained, "--model-card")
    assert found.stdout.startswith("# Model card")
    assert "not used to fit them" in found.stdout


def test_training_rows_are_not_measured_on(trained: Path, data: Path) -> None:
    """Figures on rows it has seen would be a lie; those noted at training are shown instead."""
    found = run("--data", data, "--weights", trained, "--model-card")
    assert "528 rows, 488 of them used in training" in found.stderr
    assert "five fits" in found.stdout
    assert "## What kind of work" in found.stdout


def test_a_router_no_better_than_chance_fails(trained: Path, tmp_path: Path) -> None:
    """Exit code 1 keeps a worthless router out of a release."""
    wrong = [{**row, "weak": number % 2} for number, row in enumerate(HELD_OUT)]
    found = run("--data", write(tmp_path / "held.jsonl", wrong), "--weights", trained)
    assert found.exit_code == 1
    assert "does not beat" in found.stderr


def test_what_cannot_be_read_ends_with_a_word(trained: Path, held_out: Path, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"no weights")
    assert run("--data", held_out, "--weights", tmp_path / "w").exit_code == 2
    assert run("--data", write(tmp_path / "empty.jsonl", []), "--weights", trained).exit_code == 2


def test_weights_without_figures_say_so(trained: Path, data: Path, tmp_path: Path) -> None:
    """Somebody else's weights may know nothing of their own making."""
    weights = read_weights(trained)
    notes = {key: value for key, value in weights.notes.items() if key != "figures"}
    write_weights(tmp_path / "w", Weights(weights.arrays, notes))
    found = run("--data", data, "--weights", tmp_path / "w")
    assert found.exit_code == 2
    assert "figures" in found.stderr
