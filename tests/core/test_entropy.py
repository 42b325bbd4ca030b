"""Two requests with one id would share a decision, an idempotent answer, a trace."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from app.core.entropy import BLOCK_BYTES, Entropy, random_bytes


@given(st.lists(st.integers(1, 5_000), max_size=30))
def test_no_byte_is_given_twice(sizes: list[int]) -> None:
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return bytes([len(asked) % 256]) * size

    entropy = Entropy(source)
    given_ = [entropy(size) for size in sizes]
    assert [len(piece) for piece in given_] == sizes
    for block in range(1, len(asked) + 1):
        assert sum(piece.count(block % 256) for piece in given_) <= asked[block - 1]


def test_the_system_is_asked_once_for_many_ids() -> None:
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return os.urandom(size)

    entropy = Entropy(source)
    assert len({entropy(16) for _ in range(BLOCK_BYTES // 16)}) == BLOCK_BYTES // 16
    assert asked == [BLOCK_BYTES]


def test_a_forked_process_makes_ids_of_its_own() -> None:
    random_bytes(16)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, random_bytes(16))
        os._exit(0)
    ours, theirs = random_bytes(16), os.read(read, 16)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert ours != theirs
