"""Random bytes for ids. The system's generator is asked for a block at a time: a call of it costs more than an id."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

BLOCK_BYTES: Final = 4_096


class Entropy:
    """Calling it gives so many bytes, none of them twice. A process that forks off begins with a block of its own."""

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._block = b""
        self._used = 0

    def __call__(self, size: int) -> bytes:
        end = self._used + size
        if end > len(self._block):
            self._block, self._used, end = self._source(max(size, BLOCK_BYTES)), 0, size
        piece, self._used = self._block[self._used : end], end
        return piece

    def forget(self) -> None:
        self._block = b""
        self._used = 0


random_bytes: Final = Entropy()
os.register_at_fork(after_in_child=random_bytes.forget)
