"""Claude, or any server that speaks Anthropic's Messages API: where to send, with which key, and what models it has.

The wire is `app.wire.messages`; which parameters a model takes travels on its card as `quirks["rules"]`. Prices are
added by discovery.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from app.core.card import Ability, Card
from app.core.clock import Clock
from app.core.errors import BadReply, UnsupportedParameter, UpstreamFault
from app.core.events import Event, Start
from app.core.request import EmbeddingRequest, Embeddings, Request
from app.upstreams.converse import BASE_HEADERS, converse, fetch
from app.upstreams.http import Call, Clocks, Transport
from app.wire import messages
from app.wire.fields import usable_name
from app.wire.messages.errors import parse
from app.wire.messages.rules import NEW_VERSION, Rules, line_of, rules_from_capabilities, supported

BASE_URL: Final = "https://api.anthropic.com"
PAGE: Final = 1_000
MAX_PAGES: Final = 20
LIST_SECONDS: Final = 15.0

UNKNOWN: Final = (0.0, 1.0)
TOP: Final = (0.6, 1.0)
COMPLEXITY: Final[Mapping[str, tuple[float, float]]] = {
    "haiku": (0.0, 0.4),
    "sonnet": (0.3, 0.8),
    "opus": TOP,
    "fable": TOP,
    "mythos": TOP,
}
_ALWAYS: Final = frozenset({Ability.CHAT, Ability.TOOLS, Ability.STOP, Ability.JSON_OBJECT})


class ClaudeUpstream:
    """Satisfies `Upstream`. `base_url` may end in `/v1`, as people write it for OpenAI's clients."""

    kind = "anthropic"

    def __init__(
        self,
        name: str,
        transport: Transport,
        clock: Clock,
        *,
        api_key: str | None,
        base_url: str = BASE_URL,
        clocks: Clocks | None = None,
        local: bool = False,
    ) -> None:
        self.name = name
        self.local = local
        self._transport = transport
        self._clock = clock
        self._clocks = clocks or Clocks()
        self._root = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
        self._headers = {} if api_key is None else {"x-api-key": api_key}

    async def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        headers = {**self._headers, "x-request-id": request.id, **request.terms.trace_headers}
        url = f"{self._root}/v1/messages"
        events = converse(self._transport, messages, request, card, url=url, headers=headers, clocks=self._clocks)
        async with contextlib.aclosing(events):
            async for event in events:
                if type(event) is Start:
                    event.created = int(self._clock.now())  # the API does not say when
                yield event

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        raise UnsupportedParameter("this model makes no embeddings", param="model")

    async def cards(self) -> Sequence[Card]:
        found: dict[str, Card] = {}
        after: str | None = None
        for _ in range(MAX_PAGES):
            page = await self._page(after)
            found.update((card.name, card) for card in self._read(page))
            last = page.get("last_id")
            if page.get("has_more") is not True or not isinstance(last, str) or last == after:
                break
            after = last
        return tuple(found.values())

    async def close(self) -> None:
        await self._transport.close()

    async def _page(self, after: str | None) -> dict[str, Any]:
        url = f"{self._root}/v1/models?limit={PAGE}" + (f"&after_id={quote(after, safe='')}" if after else "")
        headers = {**BASE_HEADERS, **self._headers, "anthropic-version": NEW_VERSION}
        clocks = self._clocks._replace(total=LIST_SECONDS)
        status, reply_headers, body = await fetch(self._transport, Call("GET", url, headers), clocks)
        if status == 200:
            return parse(body)
        error = messages.read_error(status, reply_headers, body)
        if isinstance(error, UpstreamFault):
            raise error
        raise BadReply("the upstream refused to list its models") from error

    def _read(self, page: Mapping[str, Any]) -> list[Card]:
        entries = page.get("data")
        if not isinstance(entries, list):
            raise BadReply("the upstream's list of models has no models in it")
        usable = (entry for entry in entries if isinstance(entry, dict) and usable_name(entry.get("id")))
        return [self._card(entry) for entry in usable if not self._retired(entry)]

    def _retired(self, model: Mapping[str, Any]) -> bool:
        until = _time(model.get("retires_at"))
        return model.get("lifecycle") == "retired" or (until is not None and until <= self._clock.now())

    def _card(self, model: Mapping[str, Any]) -> Card:
        name, rules = model["id"], rules_from_capabilities(model)
        window = model.get("max_input_tokens")
        return Card(
            id=f"{self.name}/{name}",
            name=name,
            upstream=self.name,
            kind=self.kind,
            local=self.local,
            abilities=abilities_of(model, rules),
            context_window=window if type(window) is int and window > 0 else None,
            max_output=rules.max_output,
            complexity=COMPLEXITY.get(_line(model) or "", UNKNOWN),
            created=int(_time(model.get("created_at")) or 0),
            owned_by="anthropic",
            quirks={"rules": rules},
        )


def abilities_of(model: Mapping[str, Any], rules: Rules) -> frozenset[Ability]:
    """What a model of `GET /v1/models` can do, by its capabilities and its rules."""
    forceable = rules.forced == "yes" or (rules.forced == "unthinking" and rules.off != "never")
    sighted = supported(model, "image_input") is not False
    possible = {
        Ability.FORCED_TOOLS: forceable,
        Ability.IMAGES: sighted,
        Ability.IMAGE_URLS: sighted,
        Ability.FILES: supported(model, "pdf_input") is not False,
        Ability.JSON_SCHEMA: rules.schema,
        Ability.PREFILL: rules.prefill,
        Ability.REASONING: rules.adaptive or rules.budgeted or bool(rules.efforts),
    }
    return _ALWAYS | {ability for ability, can in possible.items() if can}


def _line(model: Mapping[str, Any]) -> str | None:
    line = model.get("line")
    return line if isinstance(line, str) else line_of(model["id"])


def _time(value: Any) -> float | None:
    """Seconds since 1970 of an RFC 3339 time."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
