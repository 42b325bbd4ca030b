"""The headers by which a reply says who answered, why, and for how much. What is not known yet is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from app.access.limits import header_rows
from app.api.inbound import Headers, Inbound
from app.core.events import Usage
from app.core.money import usd
from app.core.record import Served

VALUE_MAX: Final = 512
IGNORED_MAX: Final = 1_000


def whole_headers(
    body: bytes, inbound: Inbound, served: Served | None, ignored: Sequence[str], usage: Usage | None
) -> Headers:
    """The headers of an answer in JSON."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *reply_headers(inbound, served, ignored),
    ]
    if usage is not None and usage.cost_nano is not None:
        headers.append((b"x-tierway-cost-usd", f"{usd(usage.cost_nano):.9f}".encode()))
    return headers


def reply_headers(inbound: Inbound, served: Served | None, ignored: Sequence[str]) -> Headers:
    """What is known when the answer begins."""
    elapsed_ms = (asyncio.get_running_loop().time() - inbound.started) * 1000
    headers = [
        (b"x-request-id", inbound.request_id.encode()),
        (b"openai-processing-ms", str(round(elapsed_ms)).encode()),
    ]
    if served is not None:
        known = {
            b"x-tierway-model": served.model,
            b"x-tierway-upstream": served.upstream,
            b"x-tierway-tier": served.tier,
            b"x-tierway-score": None if served.score is None else round(served.score, 4),
            b"x-tierway-reason": served.reason,
            b"x-tierway-fallback": served.fallback,
            b"x-tierway-attempts": served.attempts,
            b"x-tierway-context": served.context,
        }
        headers += [(name, header_value(value)) for name, value in known.items() if value is not None]
        headers += header_rows(served.rates)
        if served.defaults:
            headers.append((b"x-tierway-defaults", header_value(", ".join(served.defaults))))
    if ignored:
        headers.append((b"x-tierway-ignored", ignored_value(ignored)))
    return headers


def header_value(value: object) -> bytes:
    """Any value as the bytes of a header: names come from upstreams, and must not break the reply, or swell it."""
    text = str(value)
    if len(text) > VALUE_MAX:
        text = text[: VALUE_MAX - 3] + "..."
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(c if " " <= c <= "~" else "?" for c in text).encode()


def ignored_value(names: Sequence[str]) -> bytes:
    """The names that fit, and how many more there are: clients refuse replies whose headers are too large."""
    shown: list[bytes] = []
    size = 0
    for name in map(header_value, names):
        size += len(name) + 2
        if size > IGNORED_MAX:
            break
        shown.append(name)
    if left := len(names) - len(shown):
        shown.append(b"and %d more" % left)
    return b", ".join(shown)
