"""The Anthropic Messages dialect: the functions of both codec protocols, gathered from the modules that hold them."""

from __future__ import annotations

from app.wire.messages.errors import read_error, write_error
from app.wire.messages.incoming import read_request
from app.wire.messages.params import write_request
from app.wire.messages.read import read_reply, reader
from app.wire.messages.write import write_reply, writer

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
