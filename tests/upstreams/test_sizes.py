"""A size misread sends hard questions to small models, or easy ones to large models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstreams.sizes import complexity_of, parameters_from_name


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 30),
        ("qwen3-coder-30b-a3b", 30),
        ("Qwen/Qwen3-0.6B", 0.6),
        ("meta-llama/Llama-3.1-8B-Instruct", 8),
        ("phi3:3.8b", 3.8),
        ("gpt-oss:120b", 120),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 56),
        ("deepseek-r1-distill-qwen-32b_q4", 32),
        ("glm-4-9b-chat-1m", 9),
        ("smollm2-135M", 0.135),
        ("gemma3n:e4b", 4),
        ("kimi-k2-1T", 1000),
    ],
)
def test_the_size_in_a_name_is_read(name: str, billions: float) -> None:
    assert parameters_from_name(name) == round(billions * 1_000_000_000)


@pytest.mark.parametrize(
    "name",
    ["", "rnj-1", "gpt-4o", "qwen3-awq-4bit", "some-model-1m", "expert-a3b", "model-8bpw", "v1.5base", "x-8bx", "128k"],
)
def test_a_name_without_a_size_says_nothing(name: str) -> None:
    assert parameters_from_name(name) is None


@given(st.text(max_size=600))
def test_no_name_breaks_the_reading(name: str) -> None:
    size = parameters_from_name(name)
    assert size is None or size > 0


@pytest.mark.parametrize(
    ("parameters", "scores"),
    [
        (None, (0.0, 1.0)),
        (600_000_000, (0.0, 0.4)),
        (9_000_000_000, (0.0, 0.4)),
        (9_000_000_001, (0.2, 0.7)),
        (34_000_000_000, (0.2, 0.7)),
        (70_000_000_000, (0.4, 0.9)),
    ],
)
def test_complexity_follows_the_size_as_documented(parameters: int | None, scores: tuple[float, float]) -> None:
    assert complexity_of(parameters) == scores
