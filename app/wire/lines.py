"""Splits a stream of bytes into lines, however the bytes arrive, and bounds how long an unfinished line may grow.

Used for NDJSON. Knows nothing of what a line means.
"""

from __future__ import annotations

from typing import Final

from app.core.errors import BadReply

MAX_LINE: Final = 8 * 1024 * 1024


class LineSplitter:
    """`feed` gives the lines that became whole, without their newline (LF or CRLF); empty lines are left out."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Raises `BadReply` once a line is longer than the limit."""
        head, newline, rest = data.partition(b"\n")
        if not newline:
            self._hold(data)
            return []
        if self._pieces:
            self._hold(head)
            head = b"".join(self._pieces)
            self._pieces, self._held = [], 0
        *middle, tail = rest.split(b"\n")
        lines = [self._bounded(line) for line in (head, *middle) if line and line != b"\r"]
        if tail:
            self._hold(tail)
        return lines

    def end(self) -> list[bytes]:
        """The last line, where the stream ended without a newline."""
        line = b"".join(self._pieces).removesuffix(b"\r")
        self._pieces, self._held = [], 0
        return [line] if line else []

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self._limit:
            raise BadReply(f"a line is longer than {self._limit} bytes")
        self._pieces.append(piece)

    def _bounded(self, line: bytes) -> bytes:
        if len(line) > self._limit:
            raise BadReply(f"a line is longer than {self._limit} bytes")
        return line[:-1] if line.endswith(b"\r") else line
