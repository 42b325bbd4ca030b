"""The OpenAI chat dialect, both halves: the functions that `UpstreamCodec` and `ClientCodec` ask for."""

from __future__ import annotations

from app.wire.chat.objects import write_reply
from app.wire.chat.outgoing import write_request
from app.wire.chat.read import reader
from app.wire.chat.reply import read_error, read_reply
from app.wire.chat.request import read_request
from app.wire.chat.write import writer
from app.wire.objects import write_error

__all__ = [
    "read_error",
    "read_reply",
    "read_request",
    "reader",
    "write_error",
    "write_reply",
    "write_request",
    "writer",
]
