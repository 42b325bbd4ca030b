"""`tierway train router`: progress, an artefact, and a clear no."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from app.cli import main
from app.routing.classifier import Classifier
from tests.lab.world import fill, routing, write


def test_it_trains_and_says_what(tmp_path: Path) -> None:
    """Version and size of what will route, and every step on the way."""
    data = fill(tmp_path)
    out = tmp_path / "w.safetensors"
    found = CliRunner().invoke(
        main, ["train", "router", "--data", str(data), "--out", str(out), "--seed", "7", "--quick"]
    )
    assert found.exit_code == 0, found.output
    assert "trees: level" in found.stderr
    classifier = Classifier.load(out)
    assert found.stdout == f"{out}: version {classifier.version}, {out.stat().st_size:,} bytes\n"
    assert classifier.notes["seed"] == 7


def test_unusable_data_end_with_a_word(tmp_path: Path) -> None:
    """No stack trace for a wrong row."""
    write(tmp_path / "rows.jsonl", [{**routing(1)[0], "weak": "no"}])
    found = CliRunner().invoke(main, ["train", "router", "--data", str(tmp_path), "--out", str(tmp_path / "w")])
    assert found.exit_code == 2
    assert "line 1" in found.stderr
