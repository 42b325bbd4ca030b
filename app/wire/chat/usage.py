"""OpenAI's usage object <-> core usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.core.events import Usage
from app.core.money import Tokens
from app.wire.fields import token_count


def read_usage(usage: Any) -> Usage | None:
    """None where the totals are missing or nonsense: unknown is not zero, the gateway estimates then."""
    if type(usage) is not dict:
        return None
    prompt, completion = token_count(usage, "prompt_tokens"), token_count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    if _DETAILS.isdisjoint(usage):
        return Usage(Tokens(prompt, completion), details=usage)
    read, write, reasoning = _details(usage)
    read = min(read, prompt)
    tokens = Tokens(prompt, completion, read, min(write, prompt - read), reasoning=min(reasoning, completion))
    return Usage(tokens, details=usage)


_DETAILS: Final = frozenset({"prompt_tokens_details", "completion_tokens_details", "prompt_cache_hit_tokens"})


def _details(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    of_prompt, of_completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    read = token_count(of_prompt, "cached_tokens") or token_count(usage, "prompt_cache_hit_tokens") or 0
    # vLLM's name for cache writes is the second one; it charges nothing for them, but neither does it cost to know.
    write = token_count(of_prompt, "cache_write_tokens") or token_count(of_prompt, "created_cache_tokens") or 0
    return read, write, token_count(of_completion, "reasoning_tokens") or 0


def write_usage(usage: Usage, dialect: str) -> dict[str, Any]:
    """The upstream's own object where it speaks this dialect, else one made from the tokens."""
    if usage.details is not None and dialect == "chat" and not usage.estimated:
        return {**usage.details, "total_tokens": usage.tokens.prompt + usage.tokens.completion}
    tokens = usage.tokens
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }
