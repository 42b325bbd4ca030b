from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from app.wire import chat, messages, ollama
from app.wire.codec import ClientCodec, UpstreamCodec

UPSTREAM: list[UpstreamCodec] = [chat, messages, ollama]
CLIENT: list[ClientCodec] = [chat, messages, ollama]


def names(function: object) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [chat, messages, ollama], ids=lambda module: module.__name__)
@pytest.mark.parametrize("protocol", [UpstreamCodec, ClientCodec])
def test_every_dialect_is_a_whole_codec(module: ModuleType, protocol: type) -> None:
    """A dialect that lacks a half, or names an argument otherwise, fails only when the first request takes it."""
    wanted = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}
    assert len(wanted) == 4
    for name, member in wanted.items():
        assert names(getattr(module, name)) == names(member), name
