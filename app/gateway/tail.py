"""The end of a stream that can be resumed, as the process that makes it holds it: numbered events, within bounds.

An event leaves once it is stored and every reader here has it; when the bound is reached, as soon as it is stored, and
readers who lag behind find it in the store. Nothing here knows the store, or waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

BATCH_EVENTS: Final = 64
BATCH_BYTES: Final = 32_768
TAKE_BYTES: Final = 16_384
END: Final = b"\n\n"


class Place:
    """How far one reader is: `after` is the number of the last event it has."""

    __slots__ = ("after",)

    def __init__(self, after: int) -> None:
        self.after = after


class Tail:
    """`last` is the number of the newest event, `stored` of the newest that is in the store, for as long as the stream
    is `kept` there. `over`: nothing more comes. `came` and `went` are pulses for those who wait for events, or for
    room."""

    def __init__(self, most_bytes: int) -> None:
        self.last = self.stored = 0
        self.kept = True
        self.over = False
        self.came = asyncio.Event()
        self.went = asyncio.Event()
        self._most = most_bytes
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._places: list[Place] = []

    @property
    def behind(self) -> int:
        """How many events are still to be stored."""
        return self.last - self.stored if self.kept else 0

    @property
    def full(self) -> bool:
        return self._size > self._most

    @property
    def _first(self) -> int:
        return self.last - len(self._frames) + 1

    def add(self, data: bytes) -> None:
        """Numbers the encoded events in `data`; each ends with a blank line."""
        for event in data.split(END)[:-1]:
            self.last += 1
            frame = b"id: %d\n%b\n\n" % (self.last, event)
            self._frames.append(frame)
            self._size += len(frame)
        _pulse(self.came)

    def end(self) -> None:
        self.over = True
        _pulse(self.came)

    def batch(self) -> tuple[int, bytes]:
        """The next events to be stored, and the number of the last of them."""
        frames = self._from(self.stored, BATCH_BYTES, BATCH_EVENTS)
        return self.stored + len(frames), b"".join(frames)

    def has_stored(self, number: int) -> None:
        self.stored = number
        self._trim()

    def give_up_store(self) -> None:
        """From now on there is no other copy."""
        self.kept = False
        self._trim()
        _pulse(self.came)

    @contextlib.contextmanager
    def reading(self, after: int) -> Iterator[Place]:
        """What its reader has not yet is held for it, within the bound."""
        place = Place(after)
        self._places.append(place)
        try:
            yield place
        finally:
            self._places.remove(place)
            self._trim()

    def take(self, place: Place) -> bytes | None:
        """The next events for a reader, empty where there are none yet; None: they have left already."""
        if place.after >= self.last:
            return b""
        if place.after < self._first - 1:
            return None
        frames = self._from(place.after, TAKE_BYTES, BATCH_EVENTS)
        place.after += len(frames)
        self._trim()
        return b"".join(frames)

    def _from(self, after: int, most_bytes: int, most: int) -> list[bytes]:
        """At least one, where there is any."""
        found: list[bytes] = []
        start = after - self._first + 1
        for frame in islice(self._frames, start, start + most):
            if found and most_bytes < len(frame):
                break
            found.append(frame)
            most_bytes -= len(frame)
        return found

    def _trim(self) -> None:
        taken = min((place.after for place in self._places), default=self.stored)
        floor = min(taken, self.stored) if self.kept else taken
        self._drop(floor)
        if self.full and self.kept:
            self._drop(self.stored)

    def _drop(self, floor: int) -> None:
        count = min(len(self._frames), floor - self._first + 1)
        for _ in range(count):
            self._size -= len(self._frames.popleft())
        if count > 0:
            _pulse(self.went)


def _pulse(event: asyncio.Event) -> None:
    """Wakes those who wait now."""
    event.set()
    event.clear()
