"""Feature flags as one frozen snapshot: who gets what, decided without asking anybody.

Start values come from the settings. What changes at run time makes a new snapshot (`changed`); keeping that the same on
all replicas is left to the store. A request asks once for all flags (`decide`), so that it never mixes two snapshots.
Where a flag service was asked beforehand, `served` knows what it says of this caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from app.config.schema import Overrides
from app.config.settings import FlagSettings
from app.core.caller import ANONYMOUS, Caller
from app.core.shares import is_in_share

SCOPES: Final = ("agent", "key", "tenant")

Served = Callable[[Caller, str | None], Mapping[str, float]]
"""The shares that a flag service has for a caller and its agent type, by flag; of others it has nothing to say."""

_EMPTY: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Flags:
    """`shares` says for which share (0..1) of units each flag is on; `fixed` are flags that nothing overrides."""

    shares: Mapping[str, float]
    fixed: frozenset[str] = frozenset()
    overrides: Overrides = field(default_factory=Overrides)
    served: Served | None = None
    _for_all: Mapping[str, bool] | None = field(init=False)

    def __post_init__(self) -> None:
        """Where every flag is on or off for everybody, that is the answer to all."""
        said = self.overrides
        varies = said.key or said.agent or said.tenant or any(share not in (0, 1) for share in self.shares.values())
        varies = varies or self.served is not None
        for_all = None if varies else {name: bool(share) for name, share in self.shares.items()}
        object.__setattr__(self, "_for_all", for_all)

    @classmethod
    def start(cls, settings: FlagSettings) -> Flags:
        """The snapshot a gateway starts with."""
        return cls(settings.start, settings.named if settings.locked else frozenset(), settings.overrides)

    def changed(
        self,
        shares: Mapping[str, float],
        tables: Mapping[str, Mapping[str, Mapping[str, float]]],
        served: Served | None = None,
    ) -> Flags:
        """The snapshot with these shares, and with these words for some callers, by scope (`agent`, `key`, `tenant`),
        who, and the flag's name in lower case. Fixed flags stay as they are. What is `served` counts before a share."""
        kept = {
            name: self.shares[name] if name in self.fixed else shares.get(name, self.shares[name])
            for name in self.shares
        }
        said = self.overrides
        agent, key, tenant = (_merged(getattr(said, scope), tables.get(scope, {})) for scope in SCOPES)
        overrides = Overrides.model_construct(None, agent=agent, key=key, tenant=tenant)
        return Flags(MappingProxyType(kept), self.fixed, overrides, served)

    def decide(self, unit: str, *, caller: Caller = ANONYMOUS, agent: str | None = None) -> Mapping[str, bool]:
        """Every flag as it is for this unit."""
        if self._for_all is not None:
            return self._for_all
        said = _EMPTY if self.served is None else self.served(caller, agent)
        shares = {**self.shares, **said}
        return {name: self._is_on(name, shares[name], unit, caller, agent) for name in self.shares}

    def evaluate(self, name: str, unit: str, *, caller: Caller = ANONYMOUS, agent: str | None = None) -> bool:
        """Whether the flag is on for this unit (a session, else a key), which gets the same answer every time.

        A word about the key counts before one about the agent, and that before one about the tenant.
        """
        return self._is_on(name, self.shares[name], unit, caller, agent)

    def _is_on(self, name: str, share: float, unit: str, caller: Caller, agent: str | None) -> bool:
        if name not in self.fixed:
            share = self._override(name.lower(), caller, agent, share)
        return is_in_share(name, unit, share)

    def _override(self, name: str, caller: Caller, agent: str | None, share: float) -> float:
        overrides = self.overrides
        for table, who in (
            (overrides.key, caller.key_id),
            (overrides.key, caller.name),
            (overrides.agent, agent),
            (overrides.tenant, caller.tenant),
        ):
            if table and who is not None and name in (said := table.get(who, _EMPTY)):
                return said[name]
        return share


def _merged(
    configured: Mapping[str, Mapping[str, float]], changed: Mapping[str, Mapping[str, float]]
) -> Mapping[str, Mapping[str, float]]:
    """What was changed counts before what is configured."""
    whos = (*configured, *(who for who in changed if who not in configured))
    return MappingProxyType({who: {**configured.get(who, _EMPTY), **changed.get(who, _EMPTY)} for who in whos})
