"""Without these a simulated server would not know its own models."""

from __future__ import annotations

import pytest

from app.simulator.behaviour import DEFAULTS, Behaviour, SimModel
from tests.simulator.asking import KINDS


def test_models_are_found_by_name() -> None:
    behaviour = Behaviour((SimModel("a"), SimModel("b", dimensions=8)))
    assert behaviour.model("b") is behaviour.models[1]
    assert behaviour.model("c") is None


def test_only_models_with_dimensions_embed() -> None:
    assert SimModel("b", dimensions=8).embeds and not SimModel("a").embeds


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_model_that_says_it_is_simulated(kind: str) -> None:
    assert all("sim" in model.name for model in DEFAULTS[kind].models)
