"""Ollama: where to send, how long a model may take that must be loaded first, and what models there are.

The wire is `app.wire.ollama`. Each card carries as quirks the window its model is told on every call (`num_ctx`) and
what is particular about this server's counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

from app.core.card import Ability, Card
from app.core.errors import AccountFault, BadReply, GatewayError, UpstreamFault
from app.core.events import Event, is_content
from app.core.money import FREE
from app.core.request import EmbeddingRequest, Embeddings, Request, Terms
from app.upstreams.converse import BASE_HEADERS, converse, fetch
from app.upstreams.http import Call, Clocks, Transport
from app.upstreams.sizes import complexity_of, parameters_from_name
from app.wire import ollama
from app.wire.ollama.models import Listed, Shown, read_running, read_show, read_tags, read_version, write_show

COLD_START: Final = 300.0
LARGEST_WINDOW: Final = 32_768  # unless configured: a window costs memory whether it is used or not
UNKNOWN_WINDOW: Final = 4_096  # Ollama's own smallest default
LIST_SECONDS: Final = 15.0
LISTED_AT_ONCE: Final = 4
RUNNING_SECONDS: Final = 2.0  # for which an answer about loaded models is believed
ASKING_SECONDS: Final = 1.0  # that such an answer may take
NO_WINDOWS: Final[Mapping[str, int]] = MappingProxyType({})

ABILITIES_OF: Final[Mapping[str, frozenset[Ability]]] = {
    "completion": frozenset({Ability.CHAT, Ability.STOP, Ability.JSON_OBJECT, Ability.JSON_SCHEMA, Ability.LOGPROBS}),
    "tools": frozenset({Ability.TOOLS}),
    "vision": frozenset({Ability.IMAGES}),
    "thinking": frozenset({Ability.REASONING}),
    "embedding": frozenset({Ability.EMBEDDINGS}),
}
"""What a capability that Ollama names is good for, as far as its wire has words for it."""
_LOGPROBS_SINCE: Final = (0, 12, 11)
_WHOLE_COUNTS_SINCE: Final = (0, 4)
_UNCACHED_COUNTS: Final = (0, 30)  # its first releases counted only what was not cached
_READS_ON: Final = frozenset({"safetensors", "mlx"})  # formats whose runner does not keep to the window
_LEVELLED: Final = frozenset({"gptoss", "gpt-oss"})
_LEVELS: Final = ("low", "medium", "high")

T = TypeVar("T")
Version = tuple[int, ...]


class OllamaUpstream:
    """Satisfies `Upstream`. `num_ctx` holds the windows configured for models, by their names here."""

    kind = "ollama"

    def __init__(
        self,
        name: str,
        transport: Transport,
        *,
        base_url: str,
        api_key: str | None = None,
        clocks: Clocks | None = None,
        cold_start: float = COLD_START,
        num_ctx: Mapping[str, int] = NO_WINDOWS,
        local: bool = True,
    ) -> None:
        self.name = name
        self.local = local
        self._transport = transport
        self._root = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._clocks = clocks or Clocks()
        self._cold_start = max(cold_start, self._clocks.first_token)
        self._num_ctx = num_ctx
        self._running: Mapping[str, int | None] | None = None
        self._asked_at = float("-inf")
        self._warming: set[str] = set()

    async def stream(self, request: Request, card: Card) -> AsyncGenerator[Event, None]:
        # A reply that comes whole has no first token of its own, so there is nothing to tell apart.
        warming = request.stream and await self._is_cold(card)
        clocks = self._clocks._replace(first_token=self._cold_start) if warming else self._clocks
        if warming:
            self._warming.add(card.name)
        url = f"{self._root}/api/chat"
        headers = self._headers_for(request.terms)
        events = converse(self._transport, ollama, request, card, url=url, headers=headers, clocks=clocks)
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    if warming and is_content(event):
                        warming = False
                        self._warmed(card)
                    yield event
        finally:
            if warming:
                self._warmed(card)

    async def embed(self, request: EmbeddingRequest, card: Card) -> Embeddings:
        outgoing = ollama.write_embed(request, card)
        headers = {**BASE_HEADERS, **self._headers_for(request.terms)}
        call = Call("POST", f"{self._root}/api/embed", headers, outgoing.body)
        status, reply_headers, body = await fetch(self._transport, call, self._clocks, request.terms)
        if status != 200:
            raise ollama.read_error(status, reply_headers, body)
        return ollama.read_embed(body, request, card, outgoing)

    async def cards(self) -> Sequence[Card]:
        """A model that cannot be shown is left out; if that is all of them, it is a fault."""
        listed = await self._ask("GET", "/api/tags", read_tags)
        if not listed:
            return ()
        version = await self._version()
        gate = asyncio.Semaphore(LISTED_AT_ONCE)
        found = await asyncio.gather(*(self._card(model, version, gate) for model in listed))
        cards = {card.name: card for card in found if isinstance(card, Card)}
        faults = [fault for fault in found if isinstance(fault, UpstreamFault)]
        if faults and not cards:
            raise faults[0]
        return tuple(cards.values())

    async def close(self) -> None:
        await self._transport.close()

    async def _card(self, listed: Listed, version: Version | None, gate: asyncio.Semaphore) -> Card | UpstreamFault:
        async with gate:
            try:
                shown = await self._ask("POST", "/api/show", read_show, write_show(listed.name))
            except UpstreamFault as fault:
                return fault
        return card_of(self, listed, shown, version, self._num_ctx)

    async def _version(self) -> Version | None:
        try:
            return await self._ask("GET", "/api/version", read_version)
        except UpstreamFault:
            return None

    async def _ask(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        body: bytes | None = None,
        within: float = LIST_SECONDS,
    ) -> T:
        """What the server says about itself. Raises an `UpstreamFault` whatever goes wrong."""
        call = Call(method, self._root + path, {**BASE_HEADERS, **self._headers}, body)
        status, headers, reply = await fetch(self._transport, call, self._clocks._replace(total=within))
        if status == 200:
            return read(reply)
        error: GatewayError = ollama.read_error(status, headers, reply)
        if isinstance(error, UpstreamFault):
            raise error
        raise BadReply("the upstream refused to tell about its models") from error

    async def _is_cold(self, card: Card) -> bool:
        """Whether the model must be loaded for this call, or is being loaded for another."""
        if card.name in self._warming:
            return True
        now = asyncio.get_running_loop().time()
        if self._running is None or now - self._asked_at > RUNNING_SECONDS:
            self._asked_at = now  # before the answer, so that a burst of calls asks once
            try:
                self._running = await self._ask("GET", "/api/ps", read_running, within=ASKING_SECONDS)
            except (BadReply, AccountFault):
                return True  # it cannot tell: be patient
            except UpstreamFault:
                return False  # it is not well, and patience would not help
        loaded = {plain(name): window for name, window in self._running.items()}
        if card.name not in loaded:
            return True
        told = card.quirks.get("num_ctx")
        return loaded[card.name] not in (None, told)  # another window makes it load anew

    def _warmed(self, card: Card) -> None:
        self._warming.discard(card.name)
        self._asked_at = float("-inf")

    def _headers_for(self, terms: Terms) -> dict[str, str]:
        return {**self._headers, "x-request-id": terms.request_id, **terms.trace_headers}


def card_of(
    upstream: OllamaUpstream, listed: Listed, shown: Shown, version: Version | None, configured: Mapping[str, int]
) -> Card:
    """The card of a model, from what the server says and what is configured."""
    name = plain(listed.name)
    told = window_of(shown, configured.get(name, configured.get(listed.name)))
    local = upstream.local and not (listed.remote or shown.remote)
    parameters = shown.parameters or parameters_from_name(shown.parameter_size or "") or parameters_from_name(name)
    return Card(
        id=f"{upstream.name}/{name}",
        name=name,
        upstream=upstream.name,
        kind=upstream.kind,
        local=local,
        abilities=abilities_of(shown, version),
        context_window=told,
        price=FREE if local else None,
        complexity=complexity_of(parameters),
        parameters=parameters,
        licence=shown.licence,
        created=listed.modified,
        quirks=MappingProxyType({"num_ctx": told, **_quirks(shown, version)}),
    )


def window_of(shown: Shown, configured: int | None) -> int:
    """The window to tell: as configured, else what the model and its Modelfile allow up to the default; never more
    than the model was made for."""
    if configured is not None:
        return min(configured, shown.context_length or configured)
    known = [size for size in (shown.context_length, shown.num_ctx) if size is not None]
    return min(*known, LARGEST_WINDOW) if known else UNKNOWN_WINDOW


def abilities_of(shown: Shown, version: Version | None) -> frozenset[Ability]:
    """What a model can do over this wire. Releases that name no capabilities are believed to hold chat models, save
    those that pool."""
    named = shown.capabilities
    if named is None:
        named = frozenset({"embedding" if shown.pools else "completion"})
    can = frozenset[Ability]().union(*(ABILITIES_OF.get(word, ()) for word in named))
    if version is not None and version < _LOGPROBS_SINCE:
        can -= {Ability.LOGPROBS}
    return can


def plain(name: str) -> str:
    """A model's name without the tag that Ollama assumes anyway."""
    return name.removesuffix(":latest")


def _quirks(shown: Shown, version: Version | None) -> dict[str, Any]:
    quirks: dict[str, Any] = {}
    if version is not None and (version < _WHOLE_COUNTS_SINCE or version[:2] == _UNCACHED_COUNTS):
        quirks["whole_counts"] = False
    if shown.format in _READS_ON:
        quirks["window_enforced"] = False
    if shown.num_keep is not None:
        quirks["num_keep"] = shown.num_keep
    if shown.family in _LEVELLED:
        quirks["think_levels"] = _LEVELS
    return quirks
