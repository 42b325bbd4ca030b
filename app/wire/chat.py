"""The OpenAI chat dialect, both halves: the functions that `UpstreamCodec` and `ClientCodec` ask for."""

from __future__ import annotations

from app.wire.chat_objects import write_reply
from app.wire.chat_outgoing import write_request
from app.wire.chat_read import reader
from app.wire.chat_reply import read_error, read_reply
from app.wire.chat_request import read_request
from app.wire.chat_write import writer
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
