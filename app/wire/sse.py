"""Decodes Server-Sent Events from bytes, however they are split, and bounds how long an unfinished event may grow.

Follows the WHATWG grammar (LF, CR or CRLF, comments, multi-line data, byte order mark) on bytes, so that a character
cut in two is nobody's problem. Knows nothing of what an event means. Events without data are dropped; `id` and
`retry` have no use here.
"""

from __future__ import annotations

from typing import Final

from app.core.errors import BadReply

MAX_EVENT: Final = 8 * 1024 * 1024
BETWEEN: Final = b"\n\ndata: "
"""What stands between the data of two plain events."""
_BOM: Final = b"\xef\xbb\xbf"

Frame = tuple[str, bytes]
"""The event's name (empty for the default) and its data."""


class SseDecoder:
    """`feed` gives the events that became whole with these bytes."""

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._tail: list[bytes] = []  # pieces of a line whose end has not come
        self._event = ""
        self._data: list[bytes] = []
        self._held = 0  # bytes in _tail and _data
        self._begun = False
        self._skip_lf = False

    def single(self, data: bytes) -> bytes | None:
        """The data of bytes that are one event of one line and nothing else, as they mostly come while a model writes.
        None for any others; those are for `feed`."""
        if not self._idle() or not (data.startswith(b"data: ") and data.endswith(b"\n\n")):
            return None
        self._begun, payload = True, data[6:-2]
        return None if b"\n" in payload or b"\r" in payload or len(data) > self._limit else payload

    def feed(self, data: bytes) -> list[Frame]:
        """Raises `BadReply` once an event is longer than the limit."""
        if self._idle() and data.endswith(b"\n\n"):
            frames = _plain(data) if len(data) <= self._limit else None
            if frames is not None:
                self._begun = True
                return frames
        return self._feed_lines(data)

    def end(self) -> list[Frame]:
        """The last event, where the stream ended without the blank line that completes it. It may be cut short."""
        frames: list[Frame] = []
        if self._tail:
            line = b"".join(self._tail)
            self._tail = []
            self._line(line, frames)
        self._dispatch(frames)
        return frames

    def _idle(self) -> bool:
        return not (self._tail or self._data or self._event or self._skip_lf)

    def _feed_lines(self, data: bytes) -> list[Frame]:
        if self._skip_lf and data:
            # The CR that ended the last chunk was half of a CRLF.
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        frames: list[Frame] = []
        for line in data.splitlines(keepends=True):
            body = line.rstrip(b"\r\n")
            if len(body) == len(line):
                self._hold(body)
                break
            if self._tail:
                self._hold(body)
                body = b"".join(self._tail)
                self._tail = []
                self._held -= len(body)
            self._line(body, frames)
        if data.endswith(b"\r"):
            self._skip_lf = True
        return frames

    def _hold(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._grow(len(piece))

    def _grow(self, size: int) -> None:
        self._held += size
        if self._held > self._limit:
            raise BadReply(f"an event is longer than {self._limit} bytes")

    def _line(self, line: bytes, frames: list[Frame]) -> None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(frames)
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._grow(len(value) + 1)
        elif field == b"event":
            self._event = value.decode("utf-8", "replace")

    def _dispatch(self, frames: list[Frame]) -> None:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        if data:
            frames.append((self._event, data))
        self._event, self._data, self._held = "", [], 0


def _plain(data: bytes) -> list[Frame] | None:
    """The frames of a chunk that holds nothing but whole one-line data events, as nearly every chunk does."""
    if b"\r" in data or not data.startswith(b"data: "):
        return None
    payloads = data[6:-2].split(BETWEEN)
    if data.count(b"\n") != 2 * len(payloads):
        return None
    return [("", payload) for payload in payloads if payload]
