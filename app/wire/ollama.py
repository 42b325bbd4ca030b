"""Ollama's native wire, both halves: this module is the codec. What each part does is told where it is written."""

from __future__ import annotations

from app.wire.ollama_embed import read_embed, write_embed
from app.wire.ollama_faults import read_error
from app.wire.ollama_incoming import read_request
from app.wire.ollama_outgoing import write_request
from app.wire.ollama_read import read_reply, reader
from app.wire.ollama_write import write_error, write_reply, writer

__all__ = [
    "read_embed",
    "read_error",
    "read_reply",
    "read_request",
    "reader",
    "write_embed",
    "write_error",
    "write_reply",
    "write_request",
    "writer",
]
