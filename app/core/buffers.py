"""How many bytes of one stream may wait, and where: one number of the operator's, divided among the places that hold
them.

Between an upstream and a client that does not read, bytes come to rest in the kernel towards the client, in the
server's write buffer, in a batch of events on its way there, in the body of the reply behind it, in what TLS has not
decrypted yet, and in the kernel towards the upstream. Linux doubles what it is asked for, and one read takes all that
the kernel holds; with both counted the places together hold no more than the number. An event that is larger than all
that by itself is still held whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

DEFAULT_BYTES: Final = 262_144
LEAST_BYTES: Final = 65_536
"""Below this the kernel's own least sizes count for more than what it is asked for."""
SHARES: Final = 16
WHOLE_BYTES: Final = 131_072
"""What the kernel is asked for where a reply comes whole, and is not held back for anybody."""


@dataclass(frozen=True, slots=True)
class Buffers:
    """`share` is the sixteenth part of what one stream may hold."""

    share: int = DEFAULT_BYTES // SHARES

    @classmethod
    def of(cls, total: int) -> Self:
        return cls(max(total, LEAST_BYTES) // SHARES)

    @property
    def send_socket(self) -> int:
        """What the kernel is asked for towards a client."""
        return self.share

    @property
    def write(self) -> int:
        """What the server keeps before it lets nobody write."""
        return self.share

    @property
    def body(self) -> int:
        """What waits of a reply before its socket is left alone."""
        return self.share

    def receive_socket(self, *, secure: bool, streams: bool) -> int:
        """What the kernel is asked for towards an upstream; TLS holds as much again."""
        if not streams:
            return WHOLE_BYTES
        return self.share if secure else 2 * self.share

    def most(self, *, secure: bool) -> int:
        """What all places together hold of one stream: its bytes in hand, and again as bytes to write, are two shares
        each at most, and behind them is a body with one read beyond its share."""
        kernel = 2 * self.receive_socket(secure=secure, streams=True)
        sending = 2 * self.send_socket + self.write + 2 * self.share
        undecrypted = kernel + self.body if secure else 0
        one_read = undecrypted or kernel
        record = self.share if secure else 0
        return sending + 2 * self.body + one_read + undecrypted + kernel + record
