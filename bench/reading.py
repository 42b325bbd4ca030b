"""One HTTP reply as the load generator reads it: as little as tells whether it is whole. No I/O.

Bodies are not unpacked: what is looked for (events, content, the end) is found in the bytes as they come, whatever way
they are cut.
"""

from __future__ import annotations

import re
from typing import Final

EVENT: Final = b"data:"
DONE: Final = b"[DONE]"
LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
HEAD_END: Final = b"\r\n\r\n"
_CONTENT: Final = re.compile(rb'"(?:reasoning_)?content": ?"[^"]')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)")
_UNKNOWN: Final = -1


class Reading:
    """Fed with bytes. `content` once the first content is there, `over` once the reply is; `events` are counted for
    streams."""

    __slots__ = ("_head", "_left", "_stream", "_tail", "closes", "content", "done", "events", "over", "status")

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._head: bytes | None = b""
        self._left = _UNKNOWN
        self._tail = b""
        self.status = 0
        self.events = 0
        self.content = False
        self.done = False
        self.over = False
        self.closes = False

    def feed(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, found, data = self._head.partition(HEAD_END)
            if not found:
                return
            self._read_head(head.lower())
        if self._left != _UNKNOWN:
            self._left -= len(data)
            self.over = self._left <= 0
        if self._stream or self._left == _UNKNOWN:
            self._scan(data)

    @property
    def whole(self) -> bool:
        """Whether it ended as a good reply ends."""
        return self.over and self.status == 200 and (self.done or not self._stream)

    def _read_head(self, head: bytes) -> None:
        self._head = None
        self.status = int(head[9:12])
        self.closes = b"\r\nconnection: close" in head
        if found := _LENGTH.search(head):
            self._left = int(found[1])
        self._tail = b"\r\n"  # so that a body that is empty ends like any other

    def _scan(self, data: bytes) -> None:
        tail = self._tail
        seen = tail + data
        if self._stream:
            # What was cut in two is found with the tail before it; what was whole in the tail was counted then.
            self.events += seen.count(EVENT) - tail.count(EVENT)
            self.done = self.done or DONE in seen
            if not self.content and _CONTENT.search(seen):
                self.content = True
        if self._left == _UNKNOWN:
            self.over = seen.endswith(LAST_CHUNK)
        # Until the first content all is kept, as it may be cut anywhere; then no more than the longest mark.
        self._tail = seen[-8:] if self.content or not self._stream else seen
