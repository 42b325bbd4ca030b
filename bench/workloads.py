"""What is measured: the workloads, the models whose pace they ask for, and the figures of the table. Data only.

A workload says by the model's name how fast the upstream answers, and by `sim:tokens=N` in the prompt how much. The
simulator and the mock upstream both understand that, so nothing has to be set on them between two workloads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

QUICK: Final = "bench-quick"
STREAM: Final = "bench-stream"
PACED: Final = "bench-paced"
SLOW: Final = "bench-slow"

PAUSES: Final[Mapping[str, float]] = MappingProxyType({QUICK: 0.0, STREAM: 0.000_001, PACED: 0.02, SLOW: 1.0})
"""Seconds between the chunks of each model. That of `bench-stream` only keeps chunks in writes of their own."""

DIRECTIVE: Final = "sim:tokens="
SENTENCE: Final = "Explain the difference between a process and a thread. "


NUMBER: Final = "00000000"
"""Stands at the beginning of a prompt and becomes the request's own number, so that none asks what another has asked: a
gateway may remember what it has read."""


@dataclass(frozen=True, slots=True)
class Workload:
    """`connections` ask one request after the other for `seconds`, after a warm-up; `ramp` is over how many seconds
    they start, `patience` how many more a slow gateway gets until all have been answered something. `fresh`: it spoils
    a process for the others, so it is run once, in one of its own."""

    name: str
    shows: str
    model: str
    connections: int
    tokens: int
    prompt_bytes: int = 200
    stream: bool = False
    seconds: float = 1.5
    ramp: float = 0.0
    patience: float = 0.0
    fresh: bool = False

    @property
    def prompt(self) -> str:
        ask = f" {DIRECTIVE}{self.tokens}"
        room = self.prompt_bytes - len(NUMBER) - 1 - len(ask)
        return f"{NUMBER} " + (SENTENCE * (room // len(SENTENCE) + 1))[:room] + ask


WORKLOADS: Final = (
    Workload("small", "requests of 200 bytes, 32 connections", QUICK, 32, 100),
    Workload("large", "requests of 50 KB, 8 connections", QUICK, 8, 100, prompt_bytes=50_000),
    Workload("stream", "streams of 100 chunks without delay, 16 connections", STREAM, 16, 100, stream=True),
    Workload("paced", "50 streams, a chunk every 20 ms", PACED, 50, 50, stream=True, seconds=3.0, ramp=1.0),
    Workload(
        "memory", "1,000 open streams", SLOW, 1_000, 60, stream=True, seconds=2.0, ramp=4.0, patience=30.0, fresh=True
    ),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table: `key` in the records of a workload, or of how a target started where there is none.
    `added`: less what direct calls to the upstream take. `alone`: what the same is without the processes of a store.
    `goals`: what Tierway with all features on is to stay below, at first and then."""

    label: str
    workload: str | None
    key: str
    digits: int
    added: bool = False
    alone: str | None = None
    goals: tuple[float, float] | None = None

    @property
    def id(self) -> str:
        """Its name in the history, which outlives a change of the label."""
        return ".".join(part for part in (self.workload, self.key, "added" if self.added else None) if part)


REQUEST, REQUEST_ALONE = "cpu_ms_per_request", "alone_ms_per_request"
EVENT, EVENT_ALONE = "cpu_us_per_event", "alone_us_per_event"

FIGURES: Final = (
    Figure("CPU-ms per small request, 32 connections", "small", REQUEST, 2, alone=REQUEST_ALONE, goals=(0.6, 0.35)),
    Figure("CPU-ms per 50 KB request, 8 connections", "large", REQUEST, 2, alone=REQUEST_ALONE, goals=(0.9, 0.5)),
    Figure("CPU-us per event, 100-chunk streams, no delay", "stream", EVENT, 1, alone=EVENT_ALONE, goals=(14, 10)),
    Figure("CPU-us per event, 50 streams paced at 20 ms", "paced", EVENT, 1, alone=EVENT_ALONE, goals=(75, 45)),
    Figure("added time to first token p50, 50 paced streams, ms", "paced", "first_ms_p50", 1, added=True, goals=(2, 1)),
    Figure(
        "memory growth per 1,000 open streams, MB", "memory", "growth_mb", 0, alone="growth_alone_mb", goals=(45, 25)
    ),
    Figure(
        "resident memory idle, MB (store included)", None, "idle_rss_mb", 0, alone="idle_alone_mb", goals=(130, 100)
    ),
    Figure("proportional memory idle, MB", None, "idle_pss_mb", 0),
    Figure("seconds to the first 200", None, "start_s", 2, goals=(1.5, 1.0)),
)
DETAILS: Final = (
    Figure("small requests a second", "small", "requests_s", 0),
    Figure("small request p50, ms", "small", "whole_ms_p50", 2),
    Figure("small request p99, ms", "small", "whole_ms_p99", 2),
    Figure("50 KB requests a second", "large", "requests_s", 0),
    Figure("50 KB request p50, ms", "large", "whole_ms_p50", 2),
    Figure("50 KB request p99, ms", "large", "whole_ms_p99", 2),
    Figure("events a second, no delay", "stream", "events_s", 0),
    Figure("paced time to first token p99, ms", "paced", "first_ms_p99", 1),
    Figure("share of its core, paced", "paced", "share_of_core", 2),
    Figure("resident memory after all, MB", "paced", "rss_mb", 0),
)
