"""Without a budget every client's retries join those of the gateway, and an upstream in trouble gets all of them."""

from __future__ import annotations

from app.gateway.retries import RetryBudget


def test_the_budget_grows_with_requests_and_is_bounded() -> None:
    """A quiet night must not save up for a storm of retries in the morning."""
    budget = RetryBudget(share=0.5, reserve=2.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.request()
    assert not budget.take()
    budget.request()
    assert budget.take()
    for _ in range(100):
        budget.request()
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_a_fifth_of_all_requests_may_be_retried() -> None:
    """As the guide says; and ten at once after a quiet time."""
    budget, taken = RetryBudget(), 0
    for _ in range(10):
        assert budget.take()
    for _ in range(1_001):
        budget.request()
        taken += budget.take()
    assert taken == 200
