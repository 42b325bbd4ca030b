"""Metrics as Prometheus reads them: names and labels people build dashboards on, and numbers they are billed by."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from app import __version__
from app.core.money import Tokens
from app.core.outcome import Noticed
from app.core.plan import Plan
from app.core.record import Attempt, Record
from app.core.verdict import Verdict
from app.routing.emergency import GONE
from app.telemetry.metrics import Metrics, Names, exposition, forget_worker, new_registry

NAMES = {
    "tierway_requests_total": {"endpoint", "model", "upstream", "tier", "status"},
    "tierway_request_seconds": {"tier"},
    "tierway_time_to_first_token_seconds": {"model", "upstream"},
    "tierway_time_per_output_token_seconds": set(),
    "tierway_overhead_seconds": set(),
    "tierway_tokens_total": {"model", "upstream", "kind"},
    "tierway_cost_usd_total": {"model", "upstream"},
    "tierway_routing_decisions_total": {"tier", "model", "strategy", "reason"},
    "tierway_fallbacks_total": {"from", "to", "cause"},
    "tierway_upstream_errors_total": {"upstream", "kind"},
    "tierway_attempt_seconds": {"model", "upstream"},
    "tierway_refusals_total": {"model", "upstream"},
    "tierway_breaker_state": {"upstream", "model"},
    "tierway_streams_active": set(),
    "tierway_streams_total": {"outcome"},
    "tierway_clients_gone_total": set(),
    "tierway_store_seconds": {"script"},
    "tierway_flag": {"name"},
    "tierway_flag_service_polls_total": {"outcome"},
    "tierway_config_reloads_total": {"outcome"},
    "tierway_rollout_share": {"name", "arm"},
    "tierway_truncations_total": {"upstream"},
    "tierway_local_requests_total": set(),
    "tierway_quality": {"model", "upstream", "task"},
    "tierway_emergency_cloud_total": {"trigger"},
    "tierway_emergency_cloud_share": set(),
    "tierway_classifier_seconds": set(),
    "tierway_plan_seconds": set(),
    "tierway_routing_score": set(),
    "tierway_routing_confidence": set(),
    "tierway_feedback_total": {"rating"},
    "tierway_decisions_lost_total": set(),
    "tierway_in_flight_requests": set(),
    "tierway_event_loop_lag_seconds": set(),
    "tierway_build_info": {"version", "python"},
}
"""The names and labels of the contract that are known so far, and a few more."""

RECORD = Record(
    request_id="req-1",
    parent_id=None,
    root_id="req-1",
    depth=0,
    endpoint="chat.completions",
    model_requested="auto",
    stream=True,
    status=200,
    started_at=1_700_000_000.0,
    seconds=2.2,
    overhead_seconds=0.0004,
    key_id="key-secret",
    tenant="tenant-secret",
    model="ollama/rnj-1",
    upstream="ollama",
    local=True,
    tier="simple",
    strategy="cost",
    reason="cheapest; throttled for another 3 s",
    attempts=(
        Attempt("gpu/qwen", "gpu", "busy", "upstream", 0.1),
        Attempt("gpu/qwen", "gpu", "truncated", "upstream", 0.1),
        Attempt("ollama/rnj-1", "ollama", "ok", None, 2.0),
    ),
    tokens=Tokens(prompt=100, completion=21, cache_read=30, cache_write=20, reasoning=5),
    cost_nano=1_500_000_000,
    first_token_seconds=0.2,
)


class Seen:
    """Metrics beside what Prometheus would read of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def observe(self, record: Record = RECORD) -> Seen:
        self.metrics.observe(record)
        return self

    def value(self, name: str, /, **labels: str) -> float:
        return self.registry.get_sample_value(f"tierway_{name}", labels) or 0.0

    def series(self, name: str) -> list[dict[str, str]]:
        families = text_string_to_metric_families(exposition(self.registry).decode())
        return [sample.labels for family in families for sample in family.samples if sample.name == f"tierway_{name}"]


def test_every_name_and_label_is_the_contracts() -> None:
    """A dashboard or an alert on a name that changed shows nothing and says nothing."""
    seen = Seen().observe(replace(RECORD, client_gone=True)).observe()
    seen.observe(replace(RECORD, local=False, plan=Plan((), "cost", trigger=GONE)))
    seen.observe(replace(RECORD, noticed=Noticed(refused=True)))
    seen.metrics.store_call("reserve", 0.001)
    seen.metrics.breaker("gpu", "qwen", "open")
    seen.metrics.flag("STREAMING", 1)
    seen.metrics.quality("gpu/qwen", "code", 0.8)
    seen.metrics.feedback("good")
    seen.metrics.decisions_lost(1)
    seen.metrics.flag_service("ok")
    seen.metrics.rollout_share("new", "treatment", 0.1)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition(seen.registry).decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                name = sample.name if family.type in ("counter", "gauge") else family.name
                found.setdefault(name, set()).update(sample.labels.keys() - {"le"})
    assert found == NAMES


def test_a_request_is_counted_by_what_it_was() -> None:
    seen = Seen().observe()
    labels = {"endpoint": "chat.completions", "model": "ollama/rnj-1", "upstream": "ollama"}
    assert seen.value("requests_total", **labels, tier="simple", status="200") == 1
    assert seen.value("request_seconds_sum", tier="simple") == 2.2
    assert seen.value("overhead_seconds_sum") == 0.0004
    decided = {"tier": "simple", "model": "ollama/rnj-1", "strategy": "cost", "reason": "cheapest"}
    assert seen.value("routing_decisions_total", **decided) == 1
    assert seen.value("local_requests_total") == 1


def test_tokens_of_all_kinds_add_up_to_the_bill() -> None:
    """Kinds that overlap would make the sum over kinds larger than what was used."""
    seen = Seen().observe()
    counts = {
        kind: seen.value("tokens_total", model="ollama/rnj-1", upstream="ollama", kind=kind)
        for kind in ("input", "cache_read", "cache_write", "output", "reasoning")
    }
    assert counts == {"input": 50, "cache_read": 30, "cache_write": 20, "output": 16, "reasoning": 5}
    assert seen.value("cost_usd_total", model="ollama/rnj-1", upstream="ollama") == 1.5


def test_token_counts_that_contradict_each_other_do_not_break_the_counting() -> None:
    """A counter cannot fall; an upstream that claims more cached tokens than it was sent must not raise here."""
    seen = Seen().observe(replace(RECORD, tokens=Tokens(prompt=1, completion=1, cache_read=5, reasoning=9)))
    assert seen.value("tokens_total", model="ollama/rnj-1", upstream="ollama", kind="input") == 0
    assert seen.value("tokens_total", model="ollama/rnj-1", upstream="ollama", kind="cache_read") == 5


def test_a_streams_pace_is_measured_after_its_first_token() -> None:
    seen = Seen().observe()
    assert seen.value("time_to_first_token_seconds_sum", model="ollama/rnj-1", upstream="ollama") == 0.2
    assert seen.value("time_per_output_token_seconds_sum") == pytest.approx(0.1)


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECORD, first_token_seconds=None),
        replace(RECORD, tokens=None),
        replace(RECORD, tokens=Tokens(3, 1)),
        replace(RECORD, stream=False),
        replace(RECORD, seconds=0.1),
    ],
)
def test_no_pace_is_made_up(changed: Record) -> None:
    assert Seen().observe(changed).value("time_per_output_token_seconds_count") == 0


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        (RECORD, "ok"),
        (replace(RECORD, error_code="upstream_failed"), "failed"),
        (replace(RECORD, client_gone=True, error_code="client_gone"), "left"),
        (replace(RECORD, client_gone=True, status=499), "left"),
        (replace(RECORD, status=429, error_code="rate_limit_exceeded"), None),
        (replace(RECORD, stream=False), None),
    ],
)
def test_a_stream_ends_in_one_way(changed: Record, outcome: str | None) -> None:
    seen = Seen().observe(changed)
    counts = {name: seen.value("streams_total", outcome=name) for name in ("ok", "failed", "left")}
    assert counts == {"ok": 0, "failed": 0, "left": 0} | ({outcome: 1} if outcome else {})


def test_a_client_that_left_is_counted_and_not_served_locally() -> None:
    seen = Seen().observe(replace(RECORD, client_gone=True))
    assert (seen.value("clients_gone_total"), seen.value("local_requests_total")) == (1, 0)


@pytest.mark.parametrize("changed", [replace(RECORD, local=False), replace(RECORD, error_code="upstream_failed")])
def test_only_what_a_local_model_answered_is_local(changed: Record) -> None:
    """This number is the claim of what local models saved."""
    assert Seen().observe(changed).value("local_requests_total") == 0


def test_failed_attempts_are_counted_against_their_upstream() -> None:
    seen = Seen().observe()
    assert seen.value("upstream_errors_total", upstream="gpu", kind="busy") == 1
    assert seen.value("upstream_errors_total", upstream="gpu", kind="truncated") == 1
    assert len(seen.series("upstream_errors_total")) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_how_long_each_model_takes_is_seen_of_every_answer(stream: bool) -> None:
    """Which model is slow: also where nobody asks for streams."""
    seen = Seen().observe(replace(RECORD, stream=stream))
    assert seen.value("attempt_seconds_sum", model="ollama/rnj-1", upstream="ollama") == 2.0
    assert seen.value("attempt_seconds_count", model="gpu/qwen", upstream="gpu") == 2


def test_answers_in_which_a_model_declined_are_counted() -> None:
    seen = Seen().observe().observe(replace(RECORD, noticed=Noticed()))
    assert seen.value("refusals_total", model="ollama/rnj-1", upstream="ollama") == 0
    seen.observe(replace(RECORD, noticed=Noticed(refused=True)))
    assert seen.value("refusals_total", model="ollama/rnj-1", upstream="ollama") == 1


def test_an_attempt_the_client_left_is_nobodys_error() -> None:
    left = Attempt("ollama/rnj-1", "ollama", "left", "caller", 1.0)
    assert Seen().observe(replace(RECORD, attempts=(left,))).series("upstream_errors_total") == []


def test_going_on_to_another_model_is_a_fallback_and_trying_again_is_not() -> None:
    seen = Seen().observe()
    assert seen.series("fallbacks_total") == [{"from": "gpu/qwen", "to": "ollama/rnj-1", "cause": "truncated"}]


def test_standing_in_for_a_model_that_was_not_even_tried_is_a_fallback() -> None:
    """A model behind an open breaker is passed over without an attempt; that must show."""
    answered = Attempt("ollama/rnj-1", "ollama", "ok", None, 1.0)
    seen = Seen().observe(replace(RECORD, fallback_from="claude/opus", attempts=(answered,)))
    assert seen.series("fallbacks_total") == [{"from": "claude/opus", "to": "ollama/rnj-1", "cause": "unhealthy"}]
    poor = replace(RECORD, fallback_from="claude/opus", passed_over="budget_exceeded", attempts=(answered,))
    (found,) = Seen().observe(poor).series("fallbacks_total")
    assert found["cause"] == "budget_exceeded", "nobody looks for a fault where there is none"
    again = Seen().observe(replace(RECORD, fallback_from="gpu/qwen"))
    assert len(again.series("fallbacks_total")) == 1


def test_truncated_answers_are_counted_whether_refused_or_streamed() -> None:
    seen = Seen().observe(replace(RECORD, truncated=True))
    assert (seen.value("truncations_total", upstream="gpu"), seen.value("truncations_total", upstream="ollama")) == (
        1,
        1,
    )


def test_a_request_that_found_no_model_is_counted_without_one() -> None:
    """Refused requests must show too, and an unknown model's name must not become a label."""
    refused = Record("r", None, "r", 0, "chat.completions", "evil\n" * 9, False, 404, 0.0, 0.1, 0.1, "model_not_found")
    seen = Seen().observe(replace(refused, truncated=True))
    labels = {"endpoint": "chat.completions", "model": "none", "upstream": "none", "tier": "none"}
    assert seen.value("requests_total", **labels, status="404") == 1
    assert seen.series("routing_decisions_total") == []
    assert b"evil" not in exposition(seen.registry)


def test_who_asked_is_in_no_label() -> None:
    assert b"secret" not in exposition(Seen().observe().registry)


def test_a_label_takes_only_so_many_names() -> None:
    """An upstream that lists ten thousand models must not fill Prometheus."""
    names = Names(2)
    assert [names[name] for name in ("a", "b", "c", "a", "c", None, "none", "other")] == [
        *("a", "b", "other", "a", "other", "none", "none", "other")
    ]
    seen = Seen()
    for number in range(300):
        seen.observe(replace(RECORD, model=f"gpu/{number}", attempts=()))
    assert len(seen.series("cost_usd_total")) == 201
    assert seen.value("cost_usd_total", model="other", upstream="ollama") == 150


def test_states_between_requests() -> None:
    seen = Seen()
    for state, number in (("open", 2), ("half_open", 1), ("closed", 0)):
        seen.metrics.breaker("gpu", "qwen", state)
        assert seen.value("breaker_state", upstream="gpu", model="gpu/qwen") == number
    seen.metrics.flag("SHADOW", 0.1)
    seen.metrics.rollout_share("new", "control", 0.9)
    assert seen.value("rollout_share", name="new", arm="control") == 0.9
    seen.metrics.store_call("reserve", 0.002)
    seen.metrics.in_flight.inc()
    seen.metrics.event_loop_lag.observe(0.3)
    assert seen.value("flag", name="SHADOW") == 0.1
    assert seen.value("store_seconds_sum", script="reserve") == 0.002
    assert seen.value("in_flight_requests") == 1
    assert seen.value("event_loop_lag_seconds_sum") == 0.3
    assert seen.series("build_info")[0]["version"] == __version__


def test_what_was_learnt_shows() -> None:
    """The alert on falling quality reads this; ratings are counted by a word, losses by their number."""
    seen = Seen()
    for mean in (0.4, 0.8):
        seen.metrics.quality("gpu/qwen", "code", mean)
    for rating in ("good", "bad", "good"):
        seen.metrics.feedback(rating)
    seen.metrics.decisions_lost(3)
    assert seen.value("quality", model="gpu/qwen", upstream="gpu", task="code") == 0.8
    assert (seen.value("feedback_total", rating="good"), seen.value("feedback_total", rating="bad")) == (2, 1)
    assert seen.value("decisions_lost_total") == 3


def test_a_new_registry_knows_the_process() -> None:
    text = exposition(new_registry())
    assert b"process_resident_memory_bytes" in text
    assert b"_created" not in text


def test_forgetting_a_worker_without_shared_files_does_nothing() -> None:
    forget_worker(1)


WORKER = """
import os, sys
from app.telemetry.metrics import Metrics, exposition, forget_worker, new_registry
from tests.telemetry.test_metrics import RECORD
registry = new_registry()
if sys.argv[1] == "serve":
    metrics = Metrics(registry)
    metrics.observe(RECORD)
    metrics.in_flight.inc(3)
    metrics.breaker("gpu", "qwen", sys.argv[2])
    print(os.getpid())
else:
    forget_worker(int(sys.argv[2]))
    sys.stdout.buffer.write(exposition(registry))
"""


def test_what_the_classifier_thought_of_traffic_is_seen() -> None:
    """Scores that drift say that the traffic has changed, or that the classifier was made for another."""
    verdict = Verdict(0.7, 0.9, "code", "v1")
    seen = Seen().observe(replace(RECORD, plan=Plan((), "cost", verdict=verdict))).observe()
    for name, value in (("routing_score", 0.7), ("routing_confidence", 0.9)):
        assert (seen.value(f"{name}_sum"), seen.value(f"{name}_count")) == (value, 1)


def test_paid_answers_of_an_emergency_are_counted_by_what_allowed_them() -> None:
    """The alerts at 1 % and 5 % are made of it; a plan that allowed one and used none is none."""
    allowed = Plan((), "cost", trigger=GONE)
    seen = Seen().observe(replace(RECORD, local=False, plan=allowed)).observe(replace(RECORD, local=True, plan=allowed))
    seen.observe(replace(RECORD, local=False, plan=Plan((), "cost")))
    assert seen.value("emergency_cloud_total", trigger=GONE) == 1


def test_the_numbers_of_several_workers_are_one(tmp_path: Path) -> None:
    """With two workers a scrape reaches only one of them; it must still tell of both, and not of dead ones' gauges."""
    root = Path(__file__).parents[2]

    def run(*arguments: str) -> str:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", WORKER, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    first = run("serve", "open").strip()
    run("serve", "closed")

    def scraped(dead: str) -> dict[str, float]:
        families = text_string_to_metric_families(run("scrape", dead))
        return {sample.name: sample.value for family in families for sample in family.samples}

    both = scraped("0")
    assert (both["tierway_requests_total"], both["tierway_request_seconds_count"]) == (2, 2)
    assert (both["tierway_in_flight_requests"], both["tierway_breaker_state"], both["tierway_build_info"]) == (6, 2, 1)
    after = scraped(first)
    assert (after["tierway_requests_total"], after["tierway_in_flight_requests"]) == (2, 3)
    assert after["tierway_breaker_state"] == 0
