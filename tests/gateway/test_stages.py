"""A gateway to which nobody added anything sends requests as they came, and repeats none."""

from __future__ import annotations

from app.core.caller import ANONYMOUS
from app.gateway.stages import Planner, as_it_came, never_again
from tests.core.nouns import card, chat
from tests.gateway.fakes import PlainPlanner, planned

QWEN = card("gpu/qwen")


def test_a_request_is_not_touched() -> None:
    request = chat()
    assert as_it_came(request, QWEN, "docs") == (request, ())
    assert as_it_came(request, QWEN, None)[0] is request


def test_nothing_is_repeated() -> None:
    assert never_again(ANONYMOUS, chat(), planned(QWEN)) is None


def test_a_planner_is_whatever_plans_and_remembers() -> None:
    """The gateway's own tests plan without a classifier, a store or a clock."""
    planner: Planner = PlainPlanner(lambda each: None)
    assert callable(planner)
