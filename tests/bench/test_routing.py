"""The measurement runs, and measures what its rows say; how quick anything is, no test says."""

from __future__ import annotations

import pytest

from app.core.caller import Caller
from app.routing.policy import plan
from app.routing.rules import Rules
from bench import routing


def test_each_row_has_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """Else a change of the router's interfaces is noticed only when somebody wants to know what it costs."""
    routing.main(["--repeat", "1"])
    head, _, *lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert head == "| | CPU-us |"
    assert [name for name, _ in rows] == [*(f"classification, {each}" for each in routing.SIZES), "plan, 20 models"]
    assert all(int(figure.replace(",", "")) >= 0 for _, figure in rows)


@pytest.mark.parametrize("size", routing.SIZES.values())
def test_a_prompt_has_its_size(size: int) -> None:
    assert len(routing.request_of(size).messages[0].text.encode()) == size


def test_every_model_is_in_the_running() -> None:
    """A plan that leaves most of them out costs less than the row says."""
    made = plan(routing.request_of(200), Caller(), routing.registry_of(routing.MODELS), Rules())
    assert len(made.candidates) == routing.MODELS
