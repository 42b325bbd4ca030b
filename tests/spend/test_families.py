"""Bounds by family: a name that is taken for another's is held, and refused, by the wrong numbers."""

from __future__ import annotations

import pytest

from app.spend.families import family_of, thinking_of
from app.wire.messages.rules import RULES
from tests.spend.bounds_cases import card


@pytest.mark.parametrize(
    ("name", "image", "window"),
    [
        ("claude-3-5-haiku-20241022", 1_620, 200_000),
        ("claude-opus-4-20250514", 1_620, 200_000),
        ("claude-opus-4-1", 1_620, 200_000),
        ("claude-haiku-4-5@20251001", 1_620, 200_000),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", 1_620, 200_000),
        ("claude-sonnet-4-6", 1_620, 1_000_000),
        ("claude-opus-4-7", 4_840, 1_000_000),
        ("claude-opus-5-5", 4_840, 1_000_000),
        ("claude-next", 4_840, 1_000_000),
    ],
)
def test_claude_s_images_and_windows(name: str, image: int, window: int) -> None:
    family = family_of(card(name))
    assert (family.image, family.window) == (image, window)


def test_a_window_that_a_person_set_lower_is_no_bound() -> None:
    """The server does not know of it, and bills what it takes."""
    assert family_of(card("claude-haiku-4-5", context_window=10_000)).window == 200_000
    assert family_of(card("claude-haiku-4-5", context_window=500_000)).window == 500_000


@pytest.mark.parametrize("name", RULES)
def test_every_claude_has_all_bounds(name: str) -> None:
    family = family_of(card(name))
    assert family.image and family.window and thinking_of(card(name)) == "hidden"


@pytest.mark.parametrize(
    ("name", "image", "output"),
    [
        ("gpt-4o-mini", 48_169, 16_384),
        ("gpt-4o-2024-05-13", 1_445, 4_096),
        ("openai/gpt-4o-2024-11-20", 1_445, 16_384),
        ("ft:gpt-4.1-nano:me", 3_779, 32_768),
        ("o4-mini", 2_642, 100_000),
        ("gpt-5.4-mini", 24_600, 128_000),
        ("gpt-6-luna", 24_600, 128_000),
        ("gpt-3.5-turbo", None, 4_096),
        ("gpt-oss-120b", None, None),
        ("qwen-vl-max", None, None),
    ],
)
def test_openai_s_images_and_answers(name: str, image: int | None, output: int | None) -> None:
    family = family_of(card(name, "openai"))
    assert (family.image, family.output) == (image, output)


def test_a_server_of_one_s_own_is_nobody_s_family() -> None:
    assert family_of(card("gpt-4o", "vllm")).image is None


@pytest.mark.parametrize(
    ("name", "kind", "thinking"),
    [
        ("gpt-4o", "openai", "shown"),
        ("o3", "openai", "silent"),
        ("deepseek-chat", "openai", "silent"),
        ("q", "vllm", "shown"),
    ],
)
def test_who_thinks_in_hiding(name: str, kind: str, thinking: str) -> None:
    """Tokens that nobody sees are billed, also where an answer is cut."""
    assert thinking_of(card(name, kind)) == thinking
