"""Without these a goal that was missed is called met, or what nobody knows is."""

from __future__ import annotations

import pytest

from app.core.errors import Unprocessable
from app.spend.figures import figures
from app.spend.goals import RULES, Goal, Measured, goals_of, judged, overall
from app.spend.histogram import bucket
from app.spend.sums import Sums

LOCAL = Sums({f"s{bucket(1.0)}": 95, f"f{bucket(0.2)}": 10, "value": 800, "weight": 1_000})
PAID = Sums({f"s{bucket(8.0)}": 5})
KINDS = {("local", None): LOCAL, ("local", "vllm"): LOCAL, ("paid", None): PAID, ("paid", "anthropic"): PAID}


def measured(per_request: float | None = 0.01, **sums: int) -> Measured:
    usual = {"requests": 110, "answers": 100, "local": 80, "failed": 1, "cost": 10**9, "compared": 50, "saved": 10**9}
    return Measured(figures(Sums({**usual, **sums})), per_request, KINDS)


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        ("local_share=0.8", "met"),
        ("local_share=0.81", "missed"),
        ("availability=0.99", "met"),
        ("availability=0.999", "missed"),
        ("quality=0.8", "met"),
        ("quality=0.9", "missed"),
        ("coverage=0.5", "met"),
        ("savings=1.5", "missed"),
        ("cost=1", "met"),
        ("cost=0.9", "missed"),
        ("cost_per_request=0.01", "met"),
        ("cost_per_request=0.009", "missed"),
        ("fallback_share=0", "met"),
        ("latency_p50=1.2", "met"),
        ("latency_p95=1.3", "met"),
        ("latency_p99=2", "missed"),
        ("first_token_p50=0.3", "met"),
        ("first_token_p95=0.3", "met"),
        ("first_token_p99=0.1", "missed"),
    ],
)
def test_a_goal_is_met_or_missed(goal: str, verdict: str) -> None:
    (one,) = goals_of([goal])
    assert judged(one, measured()).verdict == verdict


@pytest.mark.parametrize("name", [name for name in RULES if name != "cost"])
def test_without_traffic_every_goal_is_unknown(name: str) -> None:
    nothing = Measured(figures(Sums()), None, {})
    assert judged(Goal(name, 1.0), nothing).verdict == "unknown"


@pytest.mark.parametrize("name", ["cost", "cost_per_request"])
def test_a_cost_with_holes_is_missed_at_once_but_never_met(name: str) -> None:
    """What has no price can only make it larger."""
    holes = measured(per_request=0.01, unpriced=3)
    assert judged(Goal(name, 100.0), holes).verdict == "unknown"
    assert judged(Goal(name, 0.001), holes).verdict == "missed"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["local-share=0.8"], "did you mean local_share?"),
        (["zzzzzz=1"], "there are: local_share"),
        (["local_share"], "needs a number"),
        (["local_share=nan"], "needs a number"),
        (["local_share=-1"], "needs a number"),
        (["local_share=1e999"], "needs a number"),
        (["local_share=0.8", "local_share=0.9"], "stated twice"),
    ],
)
def test_what_is_no_goal_is_said_in_words(texts: list[str], words: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        goals_of(texts)
    assert caught.value.param == "goal" and words in caught.value.message


def test_the_whole_is_as_good_as_its_worst() -> None:
    met, missed, unknown = (
        judged(goal, measured(unpriced=1)) for goal in goals_of(["local_share=0.8", "latency_p99=2", "cost=5"])
    )
    assert [overall(each) for each in ([], [met], [met, unknown], [unknown, missed, met])] == [
        "none",
        "met",
        "unknown",
        "missed",
    ]
