"""Builds what operators change while gateways run: the versions of it in the store, and the feature flags over them.

A part of the composition root, kept apart because it outlives the configuration it started with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from app.config.settings import FlagSettings
from app.core.clock import Clock
from app.core.errors import Unprocessable
from app.gateway.audit import Audit
from app.gateway.switches import Switches
from app.gateway.versions import Filed, Listener, Version, Versions
from app.store.client import Store


class Runtime:
    """The changes of one gateway, and its flags. `file` says which configuration file it has now."""

    def __init__(
        self, store: Store, clock: Clock, settings: FlagSettings, observe: Callable[[str, float], None]
    ) -> None:
        self.versions = Versions(store, Audit(store, clock), clock)
        self.switches = Switches(self.versions, settings, observe)
        self.versions.listeners.append(self.switches.apply)
        self.file: Callable[[], Filed | None] = lambda: None

    async def open(self) -> None:
        """Before the first request. Raises `StoreUnavailable`."""
        await self.versions.refresh()
        await self.switches.open()

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
        wanted, file = await self.versions.get(number), self.file()
        other = wanted.file is not None and file is not None and wanted.file.print != file.print
        if other and wanted.file is not None and wanted.file.text is None:
            raise Unprocessable(f"The configuration file of version {number} was too long to be kept.", param="n")

        def edit(last: Version) -> Version:
            flags = self.switches.restored(wanted.flags)
            pinned = {file.print: wanted.file} if other and file is not None else {}
            told = {"flags": flags, "settings": wanted.settings, "file": wanted.file or file, "pinned": pinned}
            return last.model_copy(update=told)

        return await self.versions.change("version.restore", str(number), edit)
