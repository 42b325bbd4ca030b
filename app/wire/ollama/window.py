"""What Ollama's token counts say about the window: whether part of a prompt was dropped, and whether the answer ran
into the window's end. Arithmetic alone; what follows from it is the reader's business.

We tell Ollama the window on every call and forbid it to cut (`truncate`, `shift`). Servers that are too old to know
those fields, or that ignore them, answer all the same with HTTP 200; only the counts give them away.
"""

from __future__ import annotations

from typing import Final

from app.core.card import Card
from app.core.tokens import at_least, estimate

NUM_KEEP: Final = 4  # tokens at the front that a cut spares, unless the Modelfile says otherwise
_SLACK: Final = 8  # tokens by which runners count the end of the window differently


def window(card: Card) -> int | None:
    """The window a model is told on every call. Constant per model: another one would reload it."""
    told = card.quirks.get("num_ctx", card.context_window)
    return told if isinstance(told, int) else None


def was_cut(card: Card, text_bytes: int, prompt: int | None, completion: int) -> bool:
    """Whether the counts contradict what was sent: `text_bytes` bytes of messages, `prompt` tokens evaluated.

    An absent count says nothing: it is left out when it is zero, and some releases leave out what was cached. Those
    that count only the uncached part have the quirk `whole_counts` set to False; runners that read on beyond the
    window (and so drop nothing) have `window_enforced` set to False.
    """
    if not prompt:
        return False
    if card.quirks.get("whole_counts", True) and prompt < at_least(text_bytes):
        return True
    told = window(card)
    if told is None or not card.quirks.get("window_enforced", True):
        return False
    if prompt >= told or prompt + completion > told + _SLACK:
        return True
    # A prompt that does not fit is cut to the same length, about half the window, however long it was. A prompt that
    # really has that length is told apart by its bytes.
    return estimate(text_bytes) > prompt and prompt in _lengths_after_cut(told, card.quirks.get("num_keep", NUM_KEEP))


def ran_out(card: Card, prompt: int | None, completion: int, max_tokens: int | None) -> bool:
    """Whether an answer that ended for its length did so at the window's end, not at the length asked for."""
    told = window(card)
    if told is None or not prompt or (max_tokens is not None and completion >= max_tokens):
        return False
    return prompt + completion >= told - 1


def _lengths_after_cut(told: int, num_keep: int) -> set[int]:
    """With what is spared at the front as set, or nothing, and each without and with the BOS token."""
    return {told - max((told - kept) // 2, 1) for kept in (0, 1, num_keep, num_keep + 1)}
