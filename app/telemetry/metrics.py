"""Every metric, declared once, on a registry that is handed in.

`Metrics.observe` turns one finished request into all its series; the few gauges that live between requests are set by
those who know. No label ever holds a key, a tenant, or text a caller chose freely: names come from cards and routes,
and each label takes only so many different ones, after which the rest is `other`.

Several workers share their numbers through files: the composition root sets `PROMETHEUS_MULTIPROC_DIR` before this
module is imported, and calls `forget_worker` when one ends.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from typing import Final, Generic, Literal, TypeVar

from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app import __version__
from app.core.errors import Blame, Truncated
from app.core.money import Tokens, usd
from app.core.plan import Plan
from app.core.record import Record
from app.telemetry.instruments import Counter, Gauge, Histogram

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
NONE: Final = "none"
OTHER: Final = "other"
BREAKER_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}

_REQUEST: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_PER_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)
_SHARES: Final = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1)
_SHORT: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

Mode = Literal["livesum", "livemax", "livemostrecent"]  # how the workers' values of a gauge make one
M = TypeVar("M", bound=MetricWrapperBase)


class Children(dict[tuple[str, ...], M], Generic[M]):
    """A metric's children by their label values; made when first asked for, then one look-up."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> M:
        child = self[labels] = self._metric.labels(*labels)
        return child


class Names(dict[str | None, str]):
    """The values one label may have: the first `limit` different names, then `other`; `none` for no name."""

    def __init__(self, limit: int) -> None:
        super().__init__({None: NONE, NONE: NONE, OTHER: OTHER})
        self._room = limit

    def __missing__(self, name: str | None) -> str:
        if not self._room or name is None:
            return OTHER
        self._room -= 1
        self[name] = name
        return name


def new_registry() -> CollectorRegistry:
    """A registry with the process's own memory, CPU and open files."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library says no types here
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics as Prometheus text: of all workers where they share a folder. Made for a thread: it reads files."""
    if SHARED_FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library says no types here
    return generate_latest(registry)


def forget_worker(pid: int) -> None:
    """The gauges of a worker that ended no longer count; its counters stay."""
    if SHARED_FOLDER in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library says no types here


class Metrics:
    """What the first path knows. One with labels is looked up by all their values: `tokens[model, upstream, kind]`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"tierway_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, *labels: str, mode: Mode) -> Gauge:
            return Gauge(f"tierway_{name}", about, labels, registry=registry, multiprocess_mode=mode)

        def histogram(name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"tierway_{name}", about, labels, registry=registry, buckets=buckets)

        self._declare_requests(counter, histogram)
        self._declare_attempts(counter, histogram)
        self._declare_learning(counter, gauge)
        self._declare_process(counter, gauge, histogram)
        self._endpoint, self._model, self._upstream = Names(50), Names(200), Names(50)
        self._reason, self._word = Names(50), Names(200)

    def _declare_requests(self, counter: Callable[..., Counter], histogram: Callable[..., Histogram]) -> None:
        self.requests = Children(
            counter("requests_total", "Finished requests.", "endpoint", "model", "upstream", "tier", "status")
        )
        self.request_seconds = Children(
            histogram("request_seconds", "From a request's first byte to its end.", _REQUEST, "tier")
        )
        self.first_token = Children(
            histogram(
                "time_to_first_token_seconds",
                "From a streamed request's first byte to its first content.",
                _REQUEST,
                "model",
                "upstream",
            )
        )
        self.per_token = histogram(
            "time_per_output_token_seconds", "Between the tokens of a stream, after the first.", _PER_TOKEN
        )
        self.classifier_seconds = histogram("classifier_seconds", "Reading and classifying a request.", _SHORT)
        self.plan_seconds = histogram("plan_seconds", "Planning a request, its classification included.", _SHORT)
        self.score = histogram("routing_score", "Complexity scores of requests.", _SHARES)
        self.confidence = histogram("routing_confidence", "How sure the classifier was.", _SHARES)
        self.overhead = histogram("overhead_seconds", "What the gateway itself added to a request.", _SHORT)
        self.tokens = Children(
            counter("tokens_total", "Tokens; the kinds do not overlap.", "model", "upstream", "kind")
        )
        self.cost = Children(counter("cost_usd_total", "What upstreams bill, in USD.", "model", "upstream"))
        self.decisions = Children(
            counter("routing_decisions_total", "Who answered, and why.", "tier", "model", "strategy", "reason")
        )
        self.streams = Children(counter("streams_total", "Streams that began: ok, failed or left.", "outcome"))
        self.clients_gone = counter("clients_gone_total", "Requests whose client left before the end.")
        self.local_requests = counter("local_requests_total", "Requests that a local model answered.")

    def _declare_attempts(self, counter: Callable[..., Counter], histogram: Callable[..., Histogram]) -> None:
        self.attempt_seconds = Children(
            histogram(
                "attempt_seconds",
                "How long a model took for an answer, streamed or not, or until it failed.",
                _REQUEST,
                "model",
                "upstream",
            )
        )
        self.fallbacks = Children(
            counter("fallbacks_total", "Requests that went on to another model.", "from", "to", "cause")
        )
        self.upstream_errors = Children(
            counter("upstream_errors_total", "Attempts that failed through the upstream.", "upstream", "kind")
        )
        self.truncations = Children(
            counter("truncations_total", "Answers made from less than what was sent.", "upstream")
        )
        self.refusals = Children(
            counter("refusals_total", "Answers in which a model declined to do what was asked.", "model", "upstream")
        )

    def _declare_learning(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self._emergencies = Children(
            counter("emergency_cloud_total", "Paid answers that only an emergency allowed.", "trigger")
        )
        self.emergency_share = gauge(
            "emergency_cloud_share", "Share of the last hour's requests that were such answers.", mode="livemax"
        )
        self._quality = Children(
            gauge(
                "quality",
                "Mean quality of answers, 0 to 1, as learnt by all gateways.",
                *("model", "upstream", "task"),
                mode="livemostrecent",
            )
        )
        self._feedback = Children(counter("feedback_total", "Ratings by callers: good, neutral or bad.", "rating"))
        self._decisions_lost = counter("decisions_lost_total", "Decisions that could not be remembered.")

    def _declare_process(
        self, counter: Callable[..., Counter], gauge: Callable[..., Gauge], histogram: Callable[..., Histogram]
    ) -> None:
        self.streams_active = gauge("streams_active", "Streams that are open now.", mode="livesum")
        self.in_flight = gauge("in_flight_requests", "Requests that are being worked on now.", mode="livesum")
        self.event_loop_lag = histogram(
            "event_loop_lag_seconds", "How much later than asked the event loop woke up.", _SHORT
        )
        self.store_seconds = Children(histogram("store_seconds", "Calls of the store.", _SHORT, "script"))
        self._breaker_state = Children(
            gauge("breaker_state", "0 closed, 1 half open, 2 open.", "upstream", "model", mode="livemax")
        )
        self._flag = Children(gauge("flag", "1 on, 0 off, between: a share.", "name", mode="livemostrecent"))
        self._rollout_share = Children(
            gauge("rollout_share", "Share of requests in an arm of a rollout.", "name", "arm", mode="livemostrecent")
        )
        self._config_reloads = Children(
            counter("config_reloads_total", "Readings of the configuration: ok, unchanged or failed.", "outcome")
        )
        for outcome in ("ok", "unchanged", "failed"):
            self._config_reloads[outcome,]  # there at 0, so that the first one is seen as an increase
        self._flag_service = Children(
            counter("flag_service_polls_total", "Rounds of asking the flag service: ok or failed.", "outcome")
        )
        build = gauge("build_info", "What runs here.", "version", "python", mode="livemax")
        build.labels(__version__, platform.python_version()).set(1)

    # --- between requests -------------------------------------------------------------------------------------------

    def store_call(self, script: str, seconds: float) -> None:
        self.store_seconds[self._word[script],].observe(seconds)

    def breaker(self, upstream: str, model: str, state: str) -> None:
        """`model` is its name at the upstream; `state` is `closed`, `half_open` or `open`."""
        self._breaker_state[self._upstream[upstream], self._model[f"{upstream}/{model}"]].set(BREAKER_STATES[state])

    def flag(self, name: str, share: float) -> None:
        self._flag[self._word[name],].set(share)

    def flag_service(self, outcome: str) -> None:
        self._flag_service[outcome,].inc()

    def config_reload(self, outcome: str) -> None:
        self._config_reloads[outcome,].inc()

    def quality(self, model: str, task: str, mean: float) -> None:
        """`model` is its full id."""
        self._quality[self._model[model], self._upstream[model.partition("/")[0]], self._word[task]].set(mean)

    def feedback(self, rating: str) -> None:
        self._feedback[self._word[rating],].inc()

    def decisions_lost(self, count: int) -> None:
        self._decisions_lost.inc(count)

    def rollout_share(self, name: str, arm: str, share: float) -> None:
        self._rollout_share[self._word[name], self._word[arm]].set(share)

    # --- one finished request ---------------------------------------------------------------------------------------

    def observe(self, record: Record) -> None:
        model, upstream = self._model[record.model], self._upstream[record.upstream]
        tier = self._word[record.tier]
        self.requests[self._endpoint[record.endpoint], model, upstream, tier, str(record.status)].inc()
        self.request_seconds[tier,].observe(record.seconds)
        self.overhead.observe(record.overhead_seconds)
        if record.model is not None:
            # What a reason says after its first clause is of the moment: seconds, states.
            reason = self._reason[record.reason and record.reason.partition(";")[0]]
            self.decisions[tier, model, self._word[record.strategy], reason].inc()
        if record.plan is not None:
            self._observe_plan(record.plan, record)
        if record.client_gone:
            self.clients_gone.inc()
        elif record.local and record.error_code is None:
            self.local_requests.inc()
        if record.tokens is not None:
            self._count_tokens(record.tokens, model, upstream)
        if record.cost_nano:
            self.cost[model, upstream].inc(usd(record.cost_nano))
        if record.stream:
            self._observe_stream(record, model, upstream)
        self._observe_attempts(record)

    def _observe_plan(self, plan: Plan, record: Record) -> None:
        if plan.verdict is not None:
            self.score.observe(plan.verdict.score)
            self.confidence.observe(plan.verdict.confidence)
        if plan.trigger is not None and record.local is False:
            self._emergencies[self._word[plan.trigger],].inc()

    def _count_tokens(self, tokens: Tokens, model: str, upstream: str) -> None:
        for kind, count in (
            ("input", tokens.prompt - tokens.cache_read - tokens.cache_write),
            ("cache_read", tokens.cache_read),
            ("cache_write", tokens.cache_write),
            ("output", tokens.completion - tokens.reasoning),
            ("reasoning", tokens.reasoning),
        ):
            if count > 0:
                self.tokens[model, upstream, kind].inc(count)

    def _observe_stream(self, record: Record, model: str, upstream: str) -> None:
        if record.client_gone:
            self.streams["left",].inc()
        elif record.status == 200:  # anything else was refused before its stream began
            self.streams["ok" if record.error_code is None else "failed",].inc()
        first = record.first_token_seconds
        if first is None:
            return
        self.first_token[model, upstream].observe(first)
        if record.tokens is not None and record.tokens.completion > 1 and record.seconds >= first:
            self.per_token.observe((record.seconds - first) / (record.tokens.completion - 1))

    def _observe_attempts(self, record: Record) -> None:
        attempts = record.attempts
        if record.truncated and record.upstream is not None:
            self.truncations[self._upstream[record.upstream],].inc()
        if record.noticed is not None and record.noticed.refused:
            self.refusals[self._model[record.model], self._upstream[record.upstream]].inc()
        if record.fallback_from is not None and all(a.model != record.fallback_from for a in attempts):
            self._fell_back(record.fallback_from, record.model, record.passed_over or "unhealthy")
        for index, attempt in enumerate(attempts):
            self.attempt_seconds[self._model[attempt.model], self._upstream[attempt.upstream]].observe(attempt.seconds)
            if attempt.blame == Blame.UPSTREAM:
                upstream = self._upstream[attempt.upstream]
                self.upstream_errors[upstream, self._word[attempt.outcome]].inc()
                if attempt.outcome == Truncated.kind:
                    self.truncations[upstream,].inc()
            if index and attempts[index - 1].model != attempt.model:
                self._fell_back(attempts[index - 1].model, attempt.model, attempts[index - 1].outcome)

    def _fell_back(self, before: str, after: str | None, cause: str) -> None:
        self.fallbacks[self._model[before], self._model[after], self._word[cause]].inc()
