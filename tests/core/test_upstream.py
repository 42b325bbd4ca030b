"""The contract of everything that answers, held over everything that does."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from app.core.upstream import Upstream
from app.recall.embedder import BuiltinUpstream
from app.upstreams.claude import ClaudeUpstream
from app.upstreams.ollama import OllamaUpstream
from app.upstreams.openai import OpenAIUpstream
from app.upstreams.vllm import VllmUpstream
from tests.gateway.fakes import FakeUpstream

KINDS = [BuiltinUpstream, ClaudeUpstream, OllamaUpstream, OpenAIUpstream, VllmUpstream, FakeUpstream]
METHODS = ["stream", "embed", "cards", "close"]

if TYPE_CHECKING:

    def satisfied(
        builtin: BuiltinUpstream,
        claude: ClaudeUpstream,
        ollama: OllamaUpstream,
        openai: OpenAIUpstream,
        vllm: VllmUpstream,
        fake: FakeUpstream,
    ) -> list[Upstream]:
        """The type checker holds every adapter, and the fake that tests use, to the protocol."""
        return [builtin, claude, ollama, openai, vllm, fake]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_upstream_is_called_the_same_way(kind: type, method: str) -> None:
    """The gateway knows one contract; an adapter with another signature fails on its first request."""
    expected = list(inspect.signature(getattr(Upstream, method)).parameters)
    own = getattr(kind, method)
    assert list(inspect.signature(own).parameters) == expected
    assert inspect.iscoroutinefunction(own) is (method != "stream")
