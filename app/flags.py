"""Feature flags as one frozen snapshot: who gets what, decided without asking anybody.

Start values come from the settings. What changes at run time makes a new snapshot; keeping that the same on all
replicas is left to the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from app.config.schema import Overrides
from app.config.settings import FlagSettings
from app.core.caller import ANONYMOUS, Caller
from app.core.shares import is_in_share as is_in_share

_EMPTY: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Flags:
    """`shares` says for which share (0..1) of units each flag is on; `fixed` are flags that nothing overrides."""

    shares: Mapping[str, float]
    fixed: frozenset[str] = frozenset()
    overrides: Overrides = field(default_factory=Overrides)

    @classmethod
    def start(cls, settings: FlagSettings) -> Flags:
        """The snapshot a gateway starts with."""
        return cls(settings.start, settings.named if settings.locked else frozenset(), settings.overrides)

    def evaluate(self, name: str, unit: str, *, caller: Caller = ANONYMOUS, agent: str | None = None) -> bool:
        """Whether the flag is on for this unit (a session, else a key), which gets the same answer every time.

        A word about the key counts before one about the agent, and that before one about the tenant.
        """
        share = self.shares[name]
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
