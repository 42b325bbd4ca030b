"""A small world that is trained on once for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.lab.train import built_in_embedder, train_router
from app.recall.embedder import StaticEmbedder
from app.routing.weights import Weights, read_weights
from tests.lab.world import RECIPE, fill


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def embedder() -> StaticEmbedder:
    return built_in_embedder()


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A trained file, and what was said while training."""
    out = tmp_path_factory.mktemp("weights") / "router.safetensors"
    said: list[str] = []
    train_router(data, out, RECIPE, said.append)
    return out, said


@pytest.fixture(scope="session")
def weights(trained: tuple[Path, list[str]]) -> Weights:
    return read_weights(trained[0])
