"""Without these the token paths are missing from the document, or it says what is not so."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from fastapi import FastAPI

from app.access.idempotency import NAME, asked_of
from app.api.documented import ERRORS, HEADERS, document_token_paths
from app.api.statuses import ERROR, SHAPE
from app.api.terms import read_terms
from app.core.caller import ANONYMOUS
from app.core.errors import GatewayError
from app.core.request import Terms
from app.wire import chat, embeddings
from app.wire.codec import Limits
from tests.api.wire import Wire

PATHS = ("/v1/chat/completions", "/v1/embeddings", "/v1/route")


@pytest.fixture
def document() -> Any:
    app = FastAPI()
    document_token_paths(app)
    assert app.openapi() == app.openapi(), "asked for twice, it must not change"
    return app.openapi()


def operation(document: Any, path: str) -> Any:
    return document["paths"][path]["post"]


@pytest.mark.parametrize("path", PATHS)
def test_a_token_path_is_described(document: Any, path: str) -> None:
    about = operation(document, path)
    assert about["summary"] and about["requestBody"]["required"]
    assert {"200", "408", *ERRORS} == set(about["responses"])
    assert about["responses"]["400"]["content"]["application/json"]["schema"] == SHAPE
    assert {each["name"] for each in about["parameters"]} == set(HEADERS)


def test_what_people_come_for_is_described_first() -> None:
    """The page at /docs shows paths in this order; fifty of the operator's stood before the one that answers."""
    app = FastAPI()
    app.get("/admin/keys")(lambda: None)
    document_token_paths(app)
    assert [*app.openapi()["paths"]] == [*PATHS, "/admin/keys"]


def test_it_says_where_which_key_is_wanted(document: Any) -> None:
    """Else the page at /docs has no place for a key, and cannot be tried once there is one."""
    for path in PATHS:
        assert operation(document, path)["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_the_stream_is_described(document: Any) -> None:
    assert "text/event-stream" in operation(document, PATHS[0])["responses"]["200"]["content"]


def test_the_examples_work(document: Any) -> None:
    """What people paste from the document must be taken."""

    def example(path: str) -> bytes:
        return orjson.dumps(
            operation(document, path)["requestBody"]["content"]["application/json"]["schema"]["example"]
        )

    for path in (PATHS[0], PATHS[2]):
        assert chat.read_request(example(path), Terms("r", "r"), Limits()).model == "auto"
    assert embeddings.read_request(example(PATHS[1]), Terms("r", "r")).model == "tierway/static"


async def test_every_header_that_is_described_is_read() -> None:
    """Each of them changes what comes of a request, or refuses a bad value."""
    for name in HEADERS:
        wire = Wire(headers={name: "\x07"})
        try:
            read = read_terms(wire.inbound(), ANONYMOUS)
            if name == NAME:
                asked_of(ANONYMOUS, b"\x07", "/", {}, b"")
        except GatewayError as error:
            assert error.param == name
        else:
            assert name == "x-request-id" and read.request_id != "\x07"


def test_errors_have_the_shape_that_is_described() -> None:
    body = orjson.loads(chat.write_error(GatewayError("x")))
    assert set(body) == set(ERROR["required"]) and set(body["error"]) == set(ERROR["properties"]["error"]["required"])
