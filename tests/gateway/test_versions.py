"""What operators changed is kept as a row of states: without it nobody can go back to how it was."""

from __future__ import annotations

import asyncio

import pytest

from app.core.clock import ManualClock
from app.core.errors import NotFound, Overloaded
from app.gateway.audit import Audit
from app.gateway.versions import KEPT, TRIES, FlagChange, Version, Versions
from app.store import layout
from app.store.client import Store


def versions(store: Store) -> Versions:
    clock = ManualClock(1_700_000_000.0)
    return Versions(store, Audit(store, clock), clock)


def setting(name: str, value: object, last: Version) -> Version:
    return last.model_copy(update={"settings": {**last.settings, name: value}})


async def put(kept: Versions, name: str, value: object) -> Version:
    return await kept.change("setting.put", name, lambda last: setting(name, value, last))


async def test_each_change_is_a_version_of_everything(store: Store) -> None:
    here, there = versions(store), versions(store)
    assert (await put(here, "strategy", "quality")).number == 1
    assert (await put(there, "cloud", "never")).number == 2, "it knows what the other did"
    await here.refresh()
    assert here.current.settings == {"strategy": "quality", "cloud": "never"} == there.current.settings
    assert [(each.number, each.subject) for each in await here.list()] == [(2, "cloud"), (1, "strategy")]
    assert len(await here.list(1)) == 1
    assert (await here.get(1)).settings == {"strategy": "quality"}
    assert await here.get(0) == Version()
    for missing in (3, -1):
        with pytest.raises(NotFound):
            await here.get(missing)
    assert [entry["subject"] for entry in await Audit(store, ManualClock()).entries()] == ["cloud", "strategy"]


async def test_of_many_at_once_none_is_lost(store: Store) -> None:
    """Two operators, or two replicas, must not undo each other's changes."""
    kept = [versions(store) for _ in range(4)]
    await asyncio.gather(*(put(each, f"s{number}", number) for number, each in enumerate(kept)))
    await kept[0].refresh()
    assert kept[0].current.settings == {f"s{number}": number for number in range(4)}


async def test_who_cannot_get_through_is_told(store: Store) -> None:
    here, there = versions(store), versions(store)
    turns = 0

    async def busy(action: str, subject: str) -> None:
        await there.change(action, subject, lambda last: setting("busy", last.number, last))

    class Slow(Versions):
        async def _last(self) -> Version:
            nonlocal turns
            last = await super()._last()
            turns += 1
            await busy("setting.put", f"{turns}")
            return last

    slow = Slow(store, Audit(store, ManualClock()), ManualClock())
    with pytest.raises(Overloaded):
        await put(slow, "strategy", "cost")
    assert turns == TRIES
    await here.refresh()
    assert "strategy" not in here.current.settings


async def test_what_changes_nothing_is_no_version(store: Store) -> None:
    kept = versions(store)
    await put(kept, "strategy", "quality")
    assert (await put(kept, "strategy", "quality")).number == 1
    assert len(await Audit(store, ManualClock()).entries()) == 1


async def test_listeners_are_told_of_what_is_new_alone(store: Store) -> None:
    here, there, heard = versions(store), versions(store), list[int]()
    there.listeners.append(lambda version: heard.append(version.number))
    await put(here, "strategy", "quality")
    await there.refresh()
    await there.refresh()
    assert heard == [1]


async def test_old_ones_are_forgotten(store: Store) -> None:
    kept = versions(store)
    for number in range(KEPT + 3):
        await put(kept, "strategy", number)
    found = await kept.list()
    assert [each.number for each in found] == list(range(KEPT + 3, 3, -1))
    for key in await store.call("KEYS", "*"):
        assert layout.fault_of(key.decode(), await store.call("TTL", key)) is None


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"flags": {"STREAMING": {"value": 2, "over": 1}}}', b"\xff"])
async def test_what_cannot_be_read_changes_nothing(store: Store, text: bytes) -> None:
    """A newer release may have written it: what counted before counts on, and a change is still possible."""
    kept = versions(store)
    await put(kept, "strategy", "quality")
    await store.call("HSET", layout.RUNTIME, "2", text)
    await store.call("HSET", layout.RUNTIME, "x", "y")
    await kept.refresh()
    assert kept.current.settings == {"strategy": "quality"}
    assert [each.number for each in await kept.list()] == [1]
    assert (await put(kept, "cloud", "never")).number == 3
    with pytest.raises(NotFound):
        await kept.get(2)


async def test_what_a_later_release_adds_is_passed_over(store: Store) -> None:
    await store.call("HSET", layout.RUNTIME, "1", b'{"number": 1, "later": [], "settings": {"strategy": "cost"}}')
    kept = versions(store)
    await kept.refresh()
    assert kept.current == Version(number=1, settings={"strategy": "cost"})


def test_a_version_survives_its_writing() -> None:
    version = Version(number=1, flags={"STREAMING": FlagChange(value=0.5, over=1.0)}, settings={"a": [1, {"b": None}]})
    assert Version.model_validate_json(version.model_dump_json()) == version
