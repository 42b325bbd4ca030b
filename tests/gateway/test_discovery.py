"""Which models there are, and that it stays right while upstreams come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from app.config.schema import Model
from app.core.card import Card
from app.core.errors import Refused
from app.core.money import FREE
from app.gateway.discovery import EVERY_SECONDS, EVERY_SECONDS_WHILE_AWAY, LIST_SECONDS, Discovery, Found, Notes
from app.routing.registry import Registry
from tests.core.nouns import card, paid
from tests.gateway.fakes import FakeUpstream

QWEN, LARGE, OPUS = card("gpu/qwen"), card("gpu/large"), paid("claude/opus")


class Hangs(FakeUpstream):
    async def cards(self) -> Sequence[Card]:
        await asyncio.Event().wait()
        return ()


class Watch:
    """A discovery, over two upstreams unless others are given, and everything it says."""

    def __init__(
        self,
        notes: Notes | None = None,
        upstreams: Sequence[FakeUpstream] | None = None,
        patience: float = LIST_SECONDS,
    ) -> None:
        self.gpu = FakeUpstream("gpu", listed=lambda: [QWEN])
        self.claude = FakeUpstream("claude", "anthropic", local=False, listed=lambda: [OPUS])
        self.published: list[Registry] = []
        self.observed: list[Found] = []
        self.slept: list[float] = []
        self.discovery = Discovery(
            upstreams or [self.gpu, self.claude],
            notes or Notes({}, False, {}),
            lambda each, note: FREE if each.local else None,
            self.published.append,
            self.observed.append,
            self.sleep,
            patience,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.published[-1].cards]


def fails(error: Exception) -> Callable[[], Sequence[Card]]:
    def listed() -> Sequence[Card]:
        raise error

    return listed


async def test_all_upstreams_make_one_registry_in_their_order() -> None:
    watch = Watch()
    await watch.discovery.refresh()
    assert watch.ids == ["gpu/qwen", "claude/opus"]
    assert [each.price for each in watch.published[0].cards] == [FREE, None]
    assert watch.discovery.found == tuple(watch.observed)
    assert watch.observed == [Found("gpu", "openai", True, 1, None), Found("claude", "anthropic", False, 1, None)]


async def test_upstreams_are_asked_at_once() -> None:
    """One that is slow to list must not delay the start by the sum of all."""
    both = asyncio.Barrier(2)

    class Slow(FakeUpstream):
        async def cards(self) -> Sequence[Card]:
            await both.wait()
            return [QWEN]

    watch = Watch(upstreams=[Slow("a"), Slow("b")])
    async with asyncio.timeout(1):
        await watch.discovery.refresh()
    assert len(watch.discovery.found) == 2


async def test_only_a_change_is_published() -> None:
    """Every new registry makes others forget what they worked out from the old one."""
    watch = Watch()
    for _ in range(3):
        await watch.discovery.refresh()
    assert len(watch.published) == 1
    watch.gpu.listed = lambda: [QWEN, LARGE]
    await watch.discovery.refresh()
    assert (len(watch.published), watch.ids) == (2, ["gpu/qwen", "gpu/large", "claude/opus"])
    watch.gpu.listed = lambda: []
    await watch.discovery.refresh()
    assert (len(watch.published), watch.ids) == (3, ["claude/opus"])


async def test_an_empty_world_is_published_once() -> None:
    watch = Watch()
    watch.gpu.listed = watch.claude.listed = fails(Refused("no"))
    for _ in range(3):
        await watch.discovery.refresh()
    assert [registry.cards for registry in watch.published] == [()]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refused("The upstream accepts no connection."), "The upstream accepts no connection."),
        (KeyError("secret"), "The gateway failed on its list of models: KeyError."),
        (TimeoutError(), "It did not list its models within 5 s."),
    ],
)
async def test_an_upstream_that_is_away_keeps_its_models(error: Exception, words: str) -> None:
    """A restart over there must not turn every request into 404; nor may it take the others along."""
    watch = Watch()
    await watch.discovery.refresh()
    watch.gpu.listed = fails(error)
    watch.claude.listed = lambda: [OPUS, paid("claude/haiku")]
    await watch.discovery.refresh()
    assert watch.ids == ["gpu/qwen", "claude/opus", "claude/haiku"]
    assert watch.discovery.found[0] == Found("gpu", "openai", True, 1, words)
    assert watch.discovery.found[1].models == 2


async def test_the_next_gateway_knows_the_models_of_a_server_that_is_being_restarted() -> None:
    """A reload at that moment must not make them unknown; those of other servers are not its own."""
    before, later = Watch(), Watch()
    await before.discovery.refresh()
    for each in (later.gpu, later.claude):
        each.listed = fails(Refused("x"))
    later.discovery.inherit(before.discovery, {"gpu"})
    await later.discovery.refresh()
    assert later.ids == ["gpu/qwen"] and [found.models for found in later.discovery.found] == [1, 0]


async def test_going_away_and_coming_back_is_told_once_each() -> None:
    """A log line every three seconds would bury everything else."""
    watch = Watch()

    def errors() -> list[str | None]:
        return [found.error for found in watch.observed if found.upstream == "gpu"]

    await watch.discovery.refresh()
    for _ in range(3):
        watch.gpu.listed = fails(Refused("away"))
        await watch.discovery.refresh()
    assert errors() == [None, "away"]
    for _ in range(3):
        watch.gpu.listed = lambda: [QWEN]
        await watch.discovery.refresh()
    assert errors() == [None, "away", None]


async def test_an_upstream_that_was_never_there_is_told() -> None:
    watch = Watch()
    watch.gpu.listed = fails(Refused("away"))
    await watch.discovery.refresh()
    assert watch.observed[0] == Found("gpu", "openai", True, 0, "away")


async def test_an_upstream_that_hangs_does_not_hold_up_the_rest() -> None:
    """Nor the start of the gateway."""
    watch = Watch(upstreams=[Hangs(), FakeUpstream("claude", listed=lambda: [OPUS])], patience=0.01)
    await watch.discovery.refresh()
    assert watch.ids == ["claude/opus"]
    assert "did not list" in str(watch.discovery.found[0].error)


async def test_the_operators_notes_are_on_every_card() -> None:
    """Which count, in which order, under which other names, and whether anything here is real."""
    notes = Notes({"claude/opus": Model(context_window=9)}, True, {"best": "claude/opus"}, simulated=True)
    watch = Watch(notes)
    await watch.discovery.refresh()
    (only,) = watch.published[0].cards
    assert (only.id, only.context_window, only.simulated) == ("claude/opus", 9, True)
    assert watch.published[0].find("best").card is only


async def test_nothing_is_said_to_be_simulated_that_is_not() -> None:
    watch = Watch()
    await watch.discovery.refresh()
    assert not any(each.simulated for each in watch.published[0].cards)


async def test_it_goes_on_for_ever_and_faster_while_somebody_is_away() -> None:
    """A model server that was restarted is back within seconds, and a healthy one is left in peace."""
    watch = Watch()
    await watch.discovery.refresh()
    watch.claude.listed = fails(Refused("away"))
    running = asyncio.ensure_future(watch.discovery.run())
    while len(watch.slept) < 3:
        await asyncio.sleep(0)
    watch.claude.listed = lambda: [OPUS]
    while watch.slept[-1] != EVERY_SECONDS:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert watch.slept[0] == EVERY_SECONDS
    assert set(watch.slept[1:-1]) == {EVERY_SECONDS_WHILE_AWAY}


async def test_nothing_is_found_before_anybody_was_asked() -> None:
    assert Watch().discovery.found == ()


async def test_being_cancelled_is_not_an_error_of_the_upstream() -> None:
    """A shutdown while it asks must end it."""
    watch = Watch(upstreams=[Hangs()])
    asking = asyncio.ensure_future(watch.discovery.refresh())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert watch.published == []
