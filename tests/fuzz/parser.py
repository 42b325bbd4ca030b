"""What a parser is to the fuzzer: real inputs, how they are changed, what is done with each, which errors may come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from app.core.errors import GatewayError
from tests.fuzz.mutating import Mutate

Attempt = Callable[[bytes, Random], Awaitable[None] | None]


@dataclass(frozen=True)
class Parser:
    name: str
    corpus: Sequence[bytes]
    mutate: Mutate
    attempt: Attempt
    allowed: tuple[type[Exception], ...] = (GatewayError,)

    def __str__(self) -> str:
        return self.name
