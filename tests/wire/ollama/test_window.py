from __future__ import annotations

import dataclasses

import pytest

from app.wire.ollama.window import ran_out, was_cut, window
from tests.wire.ollama_cases import card


def test_the_window_is_the_one_told_else_the_cards_own() -> None:
    """Without it a model would be reloaded, or run in Ollama's small default window."""
    assert window(card(8192)) == 8192
    assert window(dataclasses.replace(card(None), context_window=2048)) == 2048
    assert window(card(None)) is None
    assert window(dataclasses.replace(card(None), quirks={"num_ctx": "8192"})) is None


@pytest.mark.parametrize(
    ("text_bytes", "prompt", "completion"),
    [
        (60_000, 1_500, 10),  # the oldest messages were dropped
        (16_000, 4_096, 0),  # old runners fill the window to the brim
        (16_000, 5_000, 0),
        (20_000, 2_050, 10),  # the shift: half the window and four tokens
        (20_000, 2_051, 10),  # and one for the BOS
        (20_000, 2_048, 10),  # nothing spared
        (12_000, 3_000, 1_200),  # the window was shifted while the answer was made
    ],
)
def test_a_silent_cut_is_noticed(text_bytes: int, prompt: int, completion: int) -> None:
    """Otherwise a confident answer from half of what was sent would pass for a good one."""
    assert was_cut(card(4096), text_bytes, prompt, completion)


@pytest.mark.parametrize(
    ("text_bytes", "prompt", "completion"),
    [
        (2, 11, 5),  # a short prompt with its template
        (60, 12, 5),
        (11_900, 1_000, 5),  # very long words
        (8_000, 2_050, 5),  # really that long
        (14_000, 3_500, 596),  # filled exactly: nothing was dropped
        (14_000, 3_500, 597),  # or nearly so, as some runners count
        (0, 900, 5),  # images alone
        (60_000, None, 5),  # not counted
        (60_000, 0, 5),
    ],
)
def test_an_honest_count_is_believed(text_bytes: int, prompt: int | None, completion: int) -> None:
    """A false alarm throws a good answer away and may pay for another."""
    assert not was_cut(card(4096), text_bytes, prompt, completion)


def test_a_modelfile_may_spare_more_of_the_front() -> None:
    """As those of the llama3 family do."""
    assert was_cut(card(4096, num_keep=24), 20_000, 2_060, 10)
    assert not was_cut(card(4096), 20_000, 2_060, 10)


def test_without_a_known_window_only_the_bytes_speak() -> None:
    assert was_cut(card(None), 60_000, 100, 0)
    assert not was_cut(card(None), 60_000, 15_000, 0)


def test_what_a_release_counts_is_known() -> None:
    """Releases that leave out the cached part, and runners without an enforced window, drop nothing."""
    assert not was_cut(card(4096, whole_counts=False), 60_000, 12, 0)
    assert was_cut(card(4096, whole_counts=False), 60_000, 4_096, 0)
    assert not was_cut(card(4096, window_enforced=False), 60_000, 15_000, 10)
    assert was_cut(card(4096, window_enforced=False), 60_000, 12, 0)


@pytest.mark.parametrize(
    ("prompt", "completion", "max_tokens", "expected"),
    [
        (3_000, 1_096, None, True),
        (3_000, 1_095, 2_000, True),
        (3_000, 1_096, 1_096, False),
        (3_000, 500, None, False),
        (None, 4_096, None, False),
    ],
)
def test_an_answer_that_ran_out_of_window_is_told_from_one_as_long_as_asked(
    prompt: int | None, completion: int, max_tokens: int | None, expected: bool
) -> None:
    assert ran_out(card(4096), prompt, completion, max_tokens) is expected
    assert not ran_out(card(None), prompt, completion, max_tokens)
