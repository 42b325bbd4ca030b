"""What a vLLM server says about its own state: how much waits there, and whether its engine sleeps.

Reads the bytes of /metrics (Prometheus' text format) and /is_sleeping; asking for them is left to the adapter.
"""

from __future__ import annotations

import math
from typing import Final

import orjson

WAITING: Final = b"vllm:num_requests_waiting"
SLEEP_STATE: Final = b"vllm:engine_sleep_state"
AWAKE_LABEL: Final = b'sleep_state="awake"'


def read_metrics(text: bytes) -> tuple[int | None, bool | None]:
    """How many requests wait there (over all engines), and whether an engine sleeps; None for what is not said."""
    waiting: list[float] = []
    awake: list[float] = []
    for line in text.split(b"\n"):
        if line.startswith(WAITING):
            waiting.extend(_sample(line, WAITING))
        elif line.startswith(SLEEP_STATE) and AWAKE_LABEL in line:
            awake.extend(_sample(line, SLEEP_STATE))
    return int(sum(waiting)) if waiting else None, not all(awake) if awake else None


def _sample(line: bytes, name: bytes) -> list[float]:
    """The value of a line of Prometheus' text format, if it is one of this very metric and a count."""
    labels, _, rest = line[len(name) :].rpartition(b"}")
    if labels[:1] not in (b"{", b"") or (not labels and rest[:1] not in (b" ", b"\t")):
        return []
    try:
        value = float(rest.split()[0])
    except (ValueError, IndexError):
        return []
    return [value] if math.isfinite(value) and value >= 0 else []


def says_sleeping(status: int, body: bytes) -> bool:
    """Whether /is_sleeping says so; outside of vLLM's development mode it does not exist."""
    if status != 200:
        return False
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(reply, dict) and reply.get("is_sleeping") is True
