"""What the simulator remembers of each request: what an upstream was sent, and when its client left.

Filled in by `http` and `server`; nothing here decides anything.
"""

from __future__ import annotations

from functools import cached_property
from itertools import count
from typing import Any

import orjson

from app.core.clock import SystemClock

_CLOCK = SystemClock()
_NUMBERS = count(1)


class Call:
    """One request as it came; `number` is unique in the process. Times are monotonic seconds. `fault` is what was
    scripted for it."""

    def __init__(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, keep_alive: bool = True
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.raw = body
        self.keep_alive = keep_alive
        self.number = f"sim-{next(_NUMBERS)}"
        self.at = _CLOCK.monotonic()
        self.over_at: float | None = None
        self.left_at: float | None = None
        self.fault: str | None = None

    @cached_property
    def body(self) -> Any:
        """The parsed JSON body, or None."""
        try:
            return orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            return None

    @property
    def fields(self) -> dict[str, Any]:
        """The parsed body where it is an object; empty otherwise."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def disconnected(self) -> bool:
        """Whether the client left before its reply was over."""
        return self.left_at is not None

    def over(self) -> None:
        self.over_at = _CLOCK.monotonic()

    def left(self) -> None:
        self.left_at = _CLOCK.monotonic()

    def as_json(self) -> dict[str, Any]:
        """For `GET /_sim/requests`; the words of credentials are left out."""
        hidden = ("authorization", "x-api-key")
        headers = {name: "***" if name in hidden else value for name, value in self.headers.items()}
        times = {"at": self.at, "over_at": self.over_at, "left_at": self.left_at}
        named = {"method": self.method, "path": self.path, "query": self.query, "fault": self.fault}
        return {**named, "headers": headers, "body": self.body, **times}
