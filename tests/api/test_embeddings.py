"""Without these embeddings are not what their caller asked for, or are made for nobody."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import numpy as np
import orjson
import pytest

from app.api.auth import Door
from app.api.embeddings import EmbeddingsEndpoint
from app.core.errors import InvalidValue, ModelNotFound, RequestTooLarge
from app.core.request import EmbeddingRequest, Embeddings
from app.gateway.embeddings import Embedded
from app.wire.codec import Limits
from tests.api.test_auth import Ring
from tests.api.wire import Scripted, Wire, beside, served, soon, usage


def embedded(*ignored: str) -> Embedded:
    reply = Embeddings(((0.5, -1.0), (0.25, 2.0)), "small-embed", 7, ignored)
    return Embedded(reply, served(), usage(15))


def endpoint(gateway: Scripted, limits: Limits | None = None) -> EmbeddingsEndpoint:
    keys = Ring()
    return EmbeddingsEndpoint(
        Door(lambda: keys, admin_key=None, open_at_first=True), gateway.gateway, limits or Limits()
    )


def asking(**more: Any) -> bytes:
    return orjson.dumps({"model": "tierway/static", "input": ["a", "b"], **more})


async def serve(
    gateway: Scripted, body: bytes, limits: Limits | None = None, headers: dict[str, str] | None = None
) -> Wire:
    wire = Wire(body, path="/v1/embeddings", headers=headers)
    await endpoint(gateway, limits)(wire.inbound())
    return wire


async def test_texts_in_vectors_out() -> None:
    gateway = Scripted(embedded=embedded("user"))
    wire = await serve(gateway, asking(), headers={"x-request-id": "mine", "x-tierway-cache": "off"})
    assert wire.status == 200 and wire.complete
    assert [each["embedding"] for each in wire.json["data"]] == [[0.5, -1.0], [0.25, 2.0]]
    assert wire.json["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert wire.json["tierway"]["model"] == "up/small" and wire.json["tierway"]["cost_usd"] == 1.5e-8
    assert wire.headers["x-tierway-model"] == "up/small" and wire.headers["x-tierway-cost-usd"] == "0.000000015"
    assert wire.headers["x-tierway-ignored"] == "x-tierway-cache, user" and wire.headers["x-request-id"] == "mine"
    request = gateway.asked[0][1]
    assert isinstance(request, EmbeddingRequest) and request.inputs == ("a", "b")


async def test_base64_as_official_clients_ask_by_default() -> None:
    wire = await serve(Scripted(embedded=embedded()), asking(encoding_format="base64"))
    first = np.frombuffer(b64decode(wire.json["data"][0]["embedding"]), dtype="<f4")
    assert first.tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("body", "limits", "error"),
    [
        (asking(input=""), Limits(), InvalidValue),
        (asking(), Limits(body_bytes=10), RequestTooLarge),
        (asking(model=3), Limits(), InvalidValue),
    ],
)
async def test_what_is_wrong_is_refused_before_anybody_works(
    body: bytes, limits: Limits, error: type[Exception]
) -> None:
    gateway = Scripted(embedded=embedded())
    with pytest.raises(error):
        await serve(gateway, body, limits)
    assert gateway.asked == []


async def test_an_error_of_the_gateway_goes_on_to_be_rendered() -> None:
    with pytest.raises(ModelNotFound):
        await serve(Scripted(embedded=ModelNotFound("No such model.")), asking())


async def test_a_client_that_leaves_ends_the_work() -> None:
    """A large batch that nobody waits for must not hold up the others."""
    gateway = Scripted()
    wire = Wire(asking(), path="/v1/embeddings")
    async with beside(endpoint(gateway)(wire.inbound())) as task:
        await gateway.waiting.wait()
        wire.leave()
        await soon(task.done)
        assert task.exception() is None and gateway.over == 1 and wire.sent == []
