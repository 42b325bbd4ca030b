"""A refusal written by the server itself must be one that clients understand, and retry."""

from __future__ import annotations

import httptools
import orjson
from hypothesis import given
from hypothesis import strategies as st

from app.api.shedding import has_room, refusal
from app.wire.objects import write_error


class Read:
    """A reply as a client's parser reads it."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.whole = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(data)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


@given(st.none() | st.binary(max_size=200))
def test_whatever_a_client_calls_itself_the_refusal_is_whole(request_id: bytes | None) -> None:
    """An id of line breaks must not become a header of its own."""
    headers = [] if request_id is None else [(b"x-request-id", request_id)]
    reply = Read(refusal("memory", write_error, headers))
    assert reply.whole and reply.status == 503
    assert reply.headers.keys() == {"content-type", "content-length", "x-request-id", "retry-after"}
    assert orjson.loads(reply.body)["error"]["code"] == "overloaded"


def test_without_an_application_there_is_room() -> None:
    assert has_room(b"/v1/chat/completions", []) is None
