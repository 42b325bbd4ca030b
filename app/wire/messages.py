"""The Anthropic Messages dialect: the functions of both codec protocols, gathered from the modules that hold them."""

from __future__ import annotations

from app.wire.messages_errors import read_error
from app.wire.messages_params import write_request
from app.wire.messages_read import read_reply, reader

__all__ = [
    "read_error",
    "read_reply",
    "reader",
    "write_request",
]
