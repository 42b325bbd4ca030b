"""Reads the configuration again: when its file changes, when a signal or an operator says so, and when an operator goes
back to an earlier version of it.

What is wrong with it changes nothing: it is said in the log, in a metric, and to whoever asked. How the new
configuration comes to count is handed in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from app.config.problems import ConfigError
from app.config.settings import Settings
from app.core.errors import GatewayError
from app.gateway.tuning import tuned
from app.gateway.versions import Filed, Version, Versions
from app.store.broadcast import Broadcast
from app.telemetry.logs import get_logger

LOOK_SECONDS: Final = 0.5
OK, UNCHANGED, FAILED = "ok", "unchanged", "failed"
TOPIC: Final = "reload"
PROBLEMS_SHOWN: Final = 20
FILE: Final = "file"
FIXED: Final = (
    *("host", "port", "workers", "data_dir", "redis_url", "config_path", "log_level", "log_format"),
    "openfeature",
)
"""Settings that count from the start of a process to its end."""

Read = Callable[[bytes | None], Settings]
Follow = Callable[[Settings], Awaitable[object]]

log = get_logger("tierway")


class Outcome(NamedTuple):
    """`version` names the configuration that counts now, `problems` what is wrong with the one that does not."""

    outcome: str
    version: str
    problems: tuple[str, ...] = ()


class Reloading:
    """`settings` are those that count. `read(text)` makes settings of the environment and of a file with this text, or
    of the file as it is; `follow` lets them count; `observe` is told each outcome."""

    def __init__(
        self,
        settings: Settings,
        read: Read,
        versions: Versions,
        follow: Follow,
        observe: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.file: Filed | None = None
        self._read = read
        self._versions = versions
        self._follow = follow
        self._observe = observe
        self._lock = asyncio.Lock()
        self._broadcast: Broadcast | None = None
        self._told = self._telling = False
        self._pin: Filed | None = None
        self._wake = asyncio.Event()

    async def open(self) -> Settings:
        """Before the first request: the settings to begin with, which are other than those that were read where an
        operator went back from this very file."""
        text = await asyncio.to_thread(_bytes_of, self.settings.config_path)
        self.file = None if text is None else Filed.of(text)
        meant = self._meant(text)
        if self._pin is not None:
            with contextlib.suppress(ConfigError):  # a release that takes it no more goes by the file
                self.settings = await self._settings_of(meant)
        await self._note()
        return self.settings

    async def reload(self, why: str) -> Outcome:
        """Reads the file, and lets it count if it is another."""
        async with self._lock:
            try:
                outcome = await self._again()
            except ConfigError as error:
                outcome = Outcome(FAILED, self._version, tuple(map(str, error.problems)))
            except Exception as error:  # noqa: BLE001 - whatever keeps the new gateway from starting, the old one goes on
                words = error.message if isinstance(error, GatewayError) else str(error) or type(error).__name__
                outcome = Outcome(FAILED, self._version, (words,))
        self._observe(outcome.outcome)
        if outcome.outcome == FAILED:
            problems = outcome.problems[:PROBLEMS_SHOWN]
            log.error("the configuration was not reloaded", why=why, problems=problems, config_version=outcome.version)
        else:
            words = "the configuration was reloaded" if outcome.outcome == OK else "the configuration is the same"
            log.info(words, why=why, config_version=outcome.version)
        return outcome

    async def reload_all(self, why: str) -> Outcome:
        """The same, and every other gateway on this store reads its own file too."""
        outcome = await self.reload(why)
        if self._broadcast is not None:
            self._telling = True
            try:
                await self._broadcast.changed(TOPIC)
            except BaseException:  # also when cancelled: what was not told has no echo
                self._telling = False
                raise
        return outcome

    async def _again(self) -> Outcome:
        text = await asyncio.to_thread(_bytes_of, self.settings.config_path)
        settings = await self._settings_of(self._meant(text))
        self.file = None if text is None else Filed.of(text)
        if settings == self.settings:
            return Outcome(UNCHANGED, self._version)
        await self._follow(settings)
        self.settings = settings
        with contextlib.suppress(GatewayError):  # the store is away: what counts is no less in force for that
            await self._note()
        return Outcome(OK, self._version)

    @property
    def _version(self) -> str:
        """As the log lines of requests have it: what operators changed at run time is a part of it."""
        return tuned(self.settings, self._versions.current.settings).version

    async def _settings_of(self, text: bytes | None) -> Settings:
        """Read anew, but for what a process cannot change once it runs."""
        made = await asyncio.to_thread(self._read, text)
        return replace(made, **{name: getattr(self.settings, name) for name in FIXED})

    def _meant(self, text: bytes | None) -> bytes | None:
        """What an operator put in the place of this file, else itself."""
        pinned = self._pin = None if text is None else self._versions.current.pinned.get(Filed.of(text).print)
        if pinned is None or pinned.text is None:
            return text
        log.warning("an earlier configuration counts in place of the file", config_file=pinned.print)
        return pinned.text.encode()

    async def _note(self) -> None:
        """Keeps the file, so that it is possible to go back to it."""
        file = self.file
        if file is None:
            return

        def edit(last: Version) -> Version:
            same = last.file is not None and last.file.print == file.print
            pinned = file.print in last.pinned  # then another counts, and is the file of that version
            return last if same or pinned else last.model_copy(update={"file": file})

        await self._versions.change("config.load", self._version, edit, actor=FILE)

    # --- what makes it read -----------------------------------------------------------------------------------------

    def follow(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        broadcast.watch(TOPIC, self._tell)
        self._versions.listeners.append(self._hear)

    async def run(self) -> None:
        """Watches the file for ever. A file that is still being written is left until it rests."""
        seen = before = await asyncio.to_thread(_mark, self.settings.config_path)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()
            if self._wake.is_set():
                self._wake.clear()
                await self.reload("an earlier version was restored")
            now = await asyncio.to_thread(_mark, self.settings.config_path)
            if now == before and now != seen:
                seen = now
                await self.reload("the file changed")
            before = now

    async def _tell(self) -> None:
        told, self._told = self._told, True
        own, self._telling = self._telling, False
        if told and not own:  # the first time only says that we listen, and what we tell we know
            await self.reload("an operator said so")

    def _hear(self, version: Version) -> None:
        if self.file is not None and version.pinned.get(self.file.print) != self._pin:
            self._wake.set()


def _bytes_of(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError:
        return None


def _mark(path: Path | None) -> tuple[int, int, int] | None:
    """What changes with a file, also when it is a link that leads elsewhere now."""
    try:
        stat = None if path is None else path.stat()
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)
