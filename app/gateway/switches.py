"""The feature flags of one gateway: the environment's and the file's values, with what operators changed at run time
over them. Every gateway on the same store sees a change within two seconds.

The environment has the last word in two ways: with FEATURE_LOCK nothing overrides it, and when its own value becomes
another, what was changed over the former one counts no more. A flag service is heard of what nobody here has a word on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.config.features import FEATURES, flag_value
from app.config.problems import nearest
from app.config.settings import FlagSettings
from app.core.caller import Caller
from app.core.errors import NotFound, Unprocessable
from app.flags import SCOPES, Flags, Served
from app.gateway.audit import GATEWAY
from app.gateway.versions import FlagChange, Version, Versions

LOCKED: Final = "FEATURE_LOCK is set and the environment names {name}, so its value cannot be changed here."


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator said of a flag: for everybody, or for an agent type, a key or a tenant. `counts`: it has not
    been overtaken by the environment, and is not locked."""

    scope: str | None
    who: str | None
    share: float
    counts: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """One flag: the share of units it is on for, that with which this gateway started, and what was changed. `served`
    is what the flag service says of everybody, None where it says nothing."""

    name: str
    share: float
    start: float
    locked: bool
    changes: tuple[Change, ...]
    served: float | None = None


class Switches:
    """`flags` is the snapshot of the moment; `observe` is told the share of each."""

    def __init__(self, versions: Versions, settings: FlagSettings, observe: Callable[[str, float], None]) -> None:
        self._versions = versions
        self._observe = observe
        self._gone: Mapping[str, FlagChange] = {}
        self._served: Served | None = None
        self._for_all: Mapping[str, float] = {}
        self.configure(settings)

    def configure(self, settings: FlagSettings) -> None:
        """From now on these are the values to begin with."""
        self._start = Flags.start(settings)
        self.apply(self._versions.current)

    def serve(self, for_all: Mapping[str, float], served: Served) -> None:
        """From now on a flag service says this of everybody, and that of a caller."""
        self._for_all, self._served = for_all, served
        self.apply(self._versions.current)

    async def open(self) -> None:
        """Before the first request, once the versions are read. What the environment has overtaken by now is marked,
        so that it does not come back with the former value."""
        self._gone = {field: change for field, change in self._versions.current.flags.items() if change.dropped}
        overtaken = [field for field, change in self._versions.current.flags.items() if self._overtaken(field, change)]
        for field in overtaken:
            await self._versions.change("flag.dropped", field, functools.partial(_drop, field), actor=GATEWAY)
        self.apply(self._versions.current)

    def apply(self, version: Version) -> None:
        """A new snapshot."""
        shares: dict[str, float] = {}
        tables: dict[str, dict[str, dict[str, float]]] = {scope: {} for scope in SCOPES}
        for field, change in version.flags.items():
            name, scope, who = _parts(field)
            if not self._counts(field, change):
                continue
            if scope is None:
                shares[name] = change.value
            elif scope in tables:
                tables[scope].setdefault(who or "", {})[name.lower()] = change.value
        self.flags = self._start.changed({**self._for_all, **shares}, tables, _without(shares, self._served))
        for name, share in self.flags.shares.items():
            self._observe(name, share)

    async def put(self, name: str, share: float, scope: str | None = None, who: str | None = None) -> Switch:
        """From now on this is the flag's value. Raises `NotFound`, and `Unprocessable` for a locked one."""
        name = self._known(name)
        if name in self._start.fixed:
            raise Unprocessable(LOCKED.format(name=name), param="name")
        field, change = _field(name, scope, who), FlagChange(value=share, over=self._start.shares[name])
        words = str(flag_value(share)).lower()
        await self._versions.change("flag.put", field, lambda last: _with(last, field, change), words)
        return self._switch(name)

    async def unset(self, name: str, scope: str | None = None, who: str | None = None) -> Switch:
        """What is configured counts again. Raises `NotFound`."""
        name = self._known(name)
        field = _field(name, scope, who)
        await self._versions.change("flag.delete", field, lambda last: _with(last, field, None))
        return self._switch(name)

    def restored(self, flags: Mapping[str, FlagChange]) -> Mapping[str, FlagChange]:
        """These changes, put once more: they count whatever the environment said meanwhile."""
        return {
            field: FlagChange(value=change.value, over=self._start.shares[name])
            for field, change in flags.items()
            if (name := _parts(field)[0]) in FEATURES
        }

    def states(self) -> list[Switch]:
        return [self._switch(name) for name in self.flags.shares]

    def _switch(self, name: str) -> Switch:
        changes = [
            Change(scope, who, change.value, self._counts(field, change))
            for field, change in self._versions.current.flags.items()
            for about, scope, who in (_parts(field),)
            if about == name
        ]
        share, start, locked = self.flags.shares[name], self._start.shares[name], name in self._start.fixed
        return Switch(name, share, start, locked, tuple(changes), self._for_all.get(name))

    def _counts(self, field: str, change: FlagChange) -> bool:
        name = _parts(field)[0]
        return (
            name in FEATURES
            and name not in self._start.fixed
            and change.over == self._start.shares[name]
            and self._gone.get(field) != change
        )

    def _overtaken(self, field: str, change: FlagChange) -> bool:
        name = _parts(field)[0]
        return name in FEATURES and change.over != self._start.shares[name] and not change.dropped

    def _known(self, name: str) -> str:
        upper = name.upper().removeprefix("FEATURE_")
        if upper not in FEATURES:
            meant = nearest(upper, FEATURES)
            raise NotFound(
                f"There is no flag {name[:64]!r}" + (f"; did you mean {meant}?" if meant else "."), param="name"
            )
        return upper


def _without(put: Mapping[str, float], served: Served | None) -> Served | None:
    """What the service says, but for the flags that an operator has put for everybody."""
    if served is None or not put:
        return served

    def others(caller: Caller, agent: str | None) -> Mapping[str, float]:
        return {name: share for name, share in served(caller, agent).items() if name not in put}

    return others


def _field(name: str, scope: str | None, who: str | None) -> str:
    return name if scope is None else f"{name} {scope} {who}"


def _parts(field: str) -> tuple[str, str | None, str | None]:
    name, _, rest = field.partition(" ")
    scope, _, who = rest.partition(" ")
    return name, scope or None, who or None


def _with(last: Version, field: str, change: FlagChange | None) -> Version:
    flags = {name: value for name, value in last.flags.items() if name != field}
    return last.model_copy(update={"flags": flags if change is None else {**flags, field: change}})


def _drop(field: str, last: Version) -> Version:
    change = last.flags.get(field)
    return last if change is None else _with(last, field, change.model_copy(update={"dropped": True}))
