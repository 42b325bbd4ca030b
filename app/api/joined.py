"""Lets the head of a reply leave with the first bytes of its body, in one packet, where these come at once.

uvicorn writes the two apart, and with delays of small packets switched off each is a packet of its own: twice the work
for the kernel here, and for whoever reads there.
"""

from __future__ import annotations

import asyncio


class Joined:
    """The transport as one reply sees it: its first write waits for the second, but no longer than this turn lasts."""

    __slots__ = ("_held", "_later", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._later: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        if self._later is None:
            self._held = data
            self._later = self._loop.call_soon(self.flush)
        elif self._held:
            data, self._held = self._held + data, b""
            self._later.cancel()
            self._transport.write(data)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self.flush()
        self._transport.close()
