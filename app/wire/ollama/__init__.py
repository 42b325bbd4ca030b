"""Ollama's native wire, both halves: this module is the codec. What each part does is told where it is written."""

from __future__ import annotations

from app.wire.ollama.embed import read_embed, write_embed
from app.wire.ollama.faults import read_error
from app.wire.ollama.incoming import read_request
from app.wire.ollama.outgoing import write_request
from app.wire.ollama.read import read_reply, reader
from app.wire.ollama.write import write_error, write_reply, writer

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
