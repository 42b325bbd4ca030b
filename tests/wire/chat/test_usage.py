from __future__ import annotations

from typing import Any

import pytest

from app.core.events import Usage
from app.core.money import Tokens
from app.wire.chat.usage import read_usage, write_usage


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, Tokens(3, 2)),
        (
            {
                "prompt_tokens": 30,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            Tokens(30, 20, 10, 5, reasoning=7),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": {"created_cache_tokens": 4}},
            Tokens(9, 0, cache_write=4),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}, Tokens(9, 1, 8)),
        # More cached than sent cannot be: it would make the rest cost less than nothing.
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 99, "cache_write_tokens": 9},
            },
            Tokens(9, 1, 9),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "prompt_tokens_details": "x",
                "completion_tokens_details": [1],
            },
            Tokens(9, 1),
        ),
    ],
)
def test_usage_is_read_as_openai_counts(usage: dict[str, Any], tokens: Tokens) -> None:
    assert read_usage(usage) == Usage(tokens, details=usage)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        "x",
        [],
        {"prompt_tokens": 3},
        {"completion_tokens": 3},
        {"prompt_tokens": "3", "completion_tokens": 2},
        {"prompt_tokens": 2**64 - 1, "completion_tokens": 2**64 - 1},
        {"prompt_tokens": 3, "completion_tokens": 10**12 + 1},
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": 2},
        {"prompt_tokens": 3.5, "completion_tokens": 2},
    ],
)
def test_what_is_not_known_is_not_zero(usage: Any) -> None:
    assert read_usage(usage) is None


def test_the_upstreams_own_object_goes_on_where_it_speaks_this_dialect() -> None:
    details = {"prompt_tokens": 3, "completion_tokens": 2, "queue_time": 0.1}
    usage = Usage(Tokens(3, 2), details=details)
    assert write_usage(usage, "chat") == {**details, "total_tokens": 5}
    assert "queue_time" not in write_usage(usage, "messages")
    assert "queue_time" not in write_usage(Usage(Tokens(3, 2), estimated=True, details=details), "chat")


def test_a_built_usage_reads_back() -> None:
    tokens = Tokens(30, 20, 10, 5, reasoning=7)
    written = write_usage(Usage(tokens), "ollama")
    assert written["total_tokens"] == 50
    again = read_usage(written)
    assert again is not None and again.tokens == tokens
