"""Reads a request before it is planned: the ask without what harnesses add, its sketch, and the classifier's verdict.

An optional stage: whatever fails here is counted, and the request goes on without a verdict. The ask is capped, so that
this takes a fraction of a millisecond and needs no thread of its own. Every turn of a tool loop carries the same ask,
and so do retries: what its words say is remembered for a while, under a digest and without the words.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from app.core.request import Request
from app.core.tasks import ErrorHandler
from app.core.verdict import Verdict
from app.learning.asks import packed
from app.routing.classifier import Understood
from app.routing.features import Facts, Topic, facts_of, gist_of, last_ask, topic_of
from app.routing.lexical import Words, read

KNOWN_MAX: Final = 512
"""Asks whose words are understood already; some two kilobytes each."""


class Judge(Protocol):
    def understand(self, words: Words, vector: Any = None) -> Understood: ...

    def verdict(self, understood: Understood, facts: Facts) -> Verdict: ...


class Read(NamedTuple):
    """`text` is the ask as it was classified, `sketch` its embedding in a few bytes; empty where nothing could be
    read."""

    verdict: Verdict | None = None
    text: str | None = None
    sketch: bytes = b""


UNREAD = Read()
Embed = Callable[[str], "np.ndarray[Any, Any]"]
Known = tuple[Understood, bytes, Topic]


class Reading:
    """`judge` None: there is no classifier. `embed` None: there are no vectors. `observe` hears the seconds it took."""

    def __init__(
        self, judge: Judge | None, embed: Embed | None, observe: Callable[[float], None], on_error: ErrorHandler
    ) -> None:
        self._judge = judge
        self._embed = embed
        self._observe = observe
        self._on_error = on_error
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def __call__(self, request: Request) -> Read:
        if self._judge is None:
            return UNREAD
        started = time.perf_counter()
        try:
            text, chars = last_ask(request.messages)
            understood, sketch, topic = self._understood(text, self._judge)
            return Read(self._judge.verdict(understood, facts_of(request, chars, topic)), text, sketch)
        except Exception as error:  # noqa: BLE001 - an optional stage: the request goes on in the file's order
            self._on_error("classifier", error)
            return UNREAD
        finally:
            self._observe(time.perf_counter() - started)

    def _understood(self, text: str, judge: Judge) -> Known:
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        words = read(text)
        vector = None if self._embed is None else self._embed(gist_of(text))
        known = self._known[key] = judge.understand(words, vector), packed(vector), topic_of(text, words)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return known
