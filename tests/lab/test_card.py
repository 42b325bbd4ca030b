"""The card says what was measured and nothing else."""

from __future__ import annotations

from app.lab.card import figure, model_card, shown
from app.routing.weights import Weights


def test_the_card_holds_data_figures_and_limits(weights: Weights) -> None:
    notes = dict(weights.notes)
    card = model_card(notes["figures"], notes)
    mmlu = notes["figures"]["routing"]["suites"]["mmlu"]["apgr"]
    assert f"{mmlu['value']:.3f} [{mmlu['low']:.3f}, {mmlu['high']:.3f}]" in card
    assert f"{notes['left_out']['mmlu']['gain']:.3f}" in card
    assert "| arc_challenge | none | CC BY-SA 4.0 |" in card
    assert "| mmlu | 160 |" in card
    assert "five fits" in card
    assert "better than the control" in card
    assert "## Limits" in card


def test_figures_of_other_rows_are_called_that(weights: Weights) -> None:
    """Held-out figures of the shipped weights and figures of the first fit are different claims."""
    figures = weights.notes["figures"]
    control = {**figures["task"]["control"], "better": False}
    card = model_card({"version": "1", "task": {**figures["task"], "control": control}}, {"version": "1"})
    assert "not used to fit them" in card
    assert "NOT better than the control" in card
    assert "## How hard" not in card


def test_a_suite_that_is_never_trained_on_is_called_that(weights: Weights) -> None:
    row = next(line for line in model_card(weights.notes["figures"], weights.notes).splitlines() if "| arc_" in line)
    assert "none" in row
    assert "| never in |" in model_card(weights.notes["figures"], weights.notes)


def test_what_could_not_be_measured_is_a_dash() -> None:
    """A suite without a gap has no APGR, and 0 would be a claim."""
    assert shown(None) == shown(float("nan")) == "-"
    assert figure({"value": 0.5, "low": None, "high": 0.75}) == "0.500 [-, 0.750]"
