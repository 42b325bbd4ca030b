"""The routing guide shows where everyday prompts go: it must be true, and it must make sense."""

from __future__ import annotations

from typing import Any

import pytest

from app.routing.classifier import SHIPPED
from tests.docs.everyday import (
    BEGIN,
    END,
    GUIDE,
    LOCAL,
    OPUS,
    PROMPTS,
    SMALL,
    Everyday,
    answers,
    replaced,
    section,
    within,
)

trained = pytest.mark.skipif(not SHIPPED.exists(), reason="no classifier was trained yet")
SAID: dict[str, Any] = {
    "tier": "very_complex",
    "task_type": "code_review",
    "model": OPUS,
    "candidates": [{"cost_usd": 0.0081, "reason": "cheapest that can do it"}],
}


def test_a_row_says_where_a_prompt_goes_for_how_much_and_why() -> None:
    made = section([Everyday("Do it.", frozenset())], [SAID])
    assert made.splitlines()[2] == (
        f"| Do it. | very complex, code review | `{OPUS}` | 0.0081 | cheapest that can do it |"
    )
    free: dict[str, Any] = {"tier": None, "task_type": None, "model": SMALL}
    for cost, shown in ((0, "| 0 |"), (None, "| unknown |")):
        said = {**free, "candidates": [{"cost_usd": cost, "reason": "x"}]}
        assert shown in section([Everyday("?", frozenset())], [said])


def test_only_the_section_is_written_anew() -> None:
    guide = f"before\n{BEGIN}old\n{END}\nafter\n"
    assert replaced(guide, "new\n") == f"before\n{BEGIN}new\n{END}\nafter\n"
    assert within(guide) == "old\n"
    with pytest.raises(AssertionError):
        replaced("no marks", "new")


def test_the_prompts_are_twenty_and_fit_into_a_table() -> None:
    assert len({each.prompt for each in PROMPTS}) == 20
    assert not any("|" in each.prompt or "\n" in each.prompt for each in PROMPTS)
    assert BEGIN in GUIDE.read_text() and END in GUIDE.read_text()


async def test_a_gateway_answers_them_all() -> None:
    """Also where there is no classifier: then the order of the file counts, and nothing is known of the prompts."""
    (said,) = await answers(PROMPTS[:1])
    assert said["model"] in LOCAL and len(said["candidates"]) == 4
    assert (said["tier"] is not None) == SHIPPED.exists()


@trained
async def test_the_guide_says_what_the_gateway_does() -> None:
    """Whoever changes what decides writes the section again: python -m tests.docs.everyday."""
    assert within(GUIDE.read_text()) == section(PROMPTS, await answers())


@trained
async def test_the_answers_stand_up_to_common_sense() -> None:
    said = await answers()
    odd = [
        f"{each.prompt[:60]}: {answer['model']} (score {answer['score']:.2f})"
        for each, answer in zip(PROMPTS, said, strict=True)
        if answer["model"] not in each.fits
    ]
    assert not odd, "\n".join(odd)
