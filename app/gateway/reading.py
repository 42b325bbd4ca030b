"""Reads a request before it is planned: the ask without what harnesses add, its vector, and the classifier's verdict.

An optional stage: whatever fails here is counted, and the request goes on without a verdict. The ask is capped, so that
this takes a fraction of a millisecond and needs no thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from app.core.request import Request
from app.core.tasks import ErrorHandler
from app.core.verdict import Verdict
from app.routing.features import Asked, asked


class Judge(Protocol):
    def judge(self, asked: Asked, vector: Any = None) -> Verdict: ...


class Read(NamedTuple):
    """`text` is the ask as it was classified, `vector` its embedding; all None where nothing could be read."""

    verdict: Verdict | None = None
    text: str | None = None
    vector: Any = None


UNREAD = Read()
Embed = Callable[[str], "np.ndarray[Any, Any]"]


class Reading:
    """`judge` None: there is no classifier. `embed` None: there are no vectors. `observe` hears the seconds it took."""

    def __init__(
        self, judge: Judge | None, embed: Embed | None, observe: Callable[[float], None], on_error: ErrorHandler
    ) -> None:
        self._judge = judge
        self._embed = embed
        self._observe = observe
        self._on_error = on_error

    def __call__(self, request: Request) -> Read:
        if self._judge is None:
            return UNREAD
        started = time.perf_counter()
        try:
            ask = asked(request)
            vector = None if self._embed is None else self._embed(ask.gist)
            return Read(self._judge.judge(ask, vector), ask.text, vector)
        except Exception as error:  # noqa: BLE001 - an optional stage: the request goes on in the file's order
            self._on_error("classifier", error)
            return UNREAD
        finally:
            self._observe(time.perf_counter() - started)
