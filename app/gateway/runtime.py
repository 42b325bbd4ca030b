"""Builds what operators change while gateways run: the versions of it in the store, and the feature flags over them.

A part of the composition root, kept apart because it outlives the configuration it started with.
"""

from __future__ import annotations

from collections.abc import Callable

from app.config.settings import FlagSettings
from app.core.clock import Clock
from app.core.errors import Unprocessable
from app.gateway.audit import Audit
from app.gateway.switches import Switches
from app.gateway.tuning import Loudness
from app.gateway.versions import Filed, Listener, Version, Versions
from app.store.client import Store


def _nobody(version: Version) -> None:
    """There is no gateway yet."""


class Runtime:
    """The changes of one gateway, and its flags. `file` says which configuration file it has now."""

    def __init__(
        self, store: Store, clock: Clock, settings: FlagSettings, observe: Callable[[str, float], None]
    ) -> None:
        self.versions = Versions(store, Audit(store, clock), clock)
        self.switches = Switches(self.versions, settings, observe)
        self._hears: Listener = _nobody
        self.versions.listeners += (self.switches.apply, Loudness().apply, self._tell)
        self.file: Callable[[], Filed | None] = lambda: None

    async def open(self) -> None:
        """Before the first request. Raises `StoreUnavailable`."""
        await self.versions.refresh()
        await self.switches.open()

    def tell(self, listener: Listener) -> None:
        """The listener is told of the version that counts, and of every new one until another takes its place: what
        gateways share must go by the newest of them alone."""
        self._hears = listener
        listener(self.versions.current)

    def _tell(self, version: Version) -> None:
        self._hears(version)

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
