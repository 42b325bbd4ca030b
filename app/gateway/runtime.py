"""Builds what operators change while gateways run: the versions of it in the store, and the feature flags over them.

A part of the composition root, kept apart because it outlives the configuration it started with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from app.config.settings import FlagSettings
from app.core.clock import Clock
from app.gateway.audit import Audit
from app.gateway.switches import Switches
from app.gateway.versions import Listener, Version, Versions
from app.store.broadcast import Broadcast
from app.store.client import Store


class Runtime:
    """The changes of one gateway, and its flags."""

    def __init__(
        self, store: Store, clock: Clock, settings: FlagSettings, observe: Callable[[str, float], None]
    ) -> None:
        self.versions = Versions(store, Audit(store, clock), clock)
        self.switches = Switches(self.versions, settings, observe)
        self.versions.listeners.append(self.switches.apply)

    async def open(self, broadcast: Broadcast) -> None:
        """Before the first request. Raises `StoreUnavailable`."""
        await self.versions.refresh()
        await self.switches.open()
        self.versions.follow(broadcast)

    @contextlib.contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """The listener is told of the version that counts, and of every new one meanwhile."""
        listener(self.versions.current)
        self.versions.listeners.append(listener)
        try:
            yield
        finally:
            self.versions.listeners.remove(listener)

    async def restore(self, number: int) -> Version:
        """Everything as it was in that version, as a new one. Raises `NotFound`."""
        wanted = await self.versions.get(number)

        def edit(last: Version) -> Version:
            flags = self.switches.restored(wanted.flags)
            return last.model_copy(update={"flags": flags, "settings": wanted.settings})

        return await self.versions.change("version.restore", str(number), edit)
