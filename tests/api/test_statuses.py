"""Without these a client made from the OpenAPI document does not know the errors it will get, or expects others."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Query

from app.api.app import fastapi_app
from app.api.statuses import NOT_OURS, SHAPE, answers, described


@pytest.fixture
def document() -> Any:
    router = APIRouter()

    @router.get("/v1/things", responses={**described({"410": "It is gone."})})
    async def listed() -> dict[str, str]:
        return {}

    @router.put("/admin/things/{name}", responses={200: answers("text/csv", about="A table")})
    async def put(name: str, body: dict[str, str], n: int = Query(1)) -> dict[str, str]:
        return {}

    @router.get("/plain")
    async def plain() -> dict[str, str]:
        return {}

    app = fastapi_app([router])
    assert app.openapi() == app.openapi(), "asked for twice, it must not change"
    return app.openapi()


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/v1/things", "get", {"200", "401", "410", "429", "503"}),
        ("/admin/things/{name}", "put", {"200", "400", "401", "404", "408", "413", "422", "429", "503"}),
        ("/plain", "get", {"200"}),
    ],
)
def test_a_client_is_told_of_every_error_it_may_get(document: Any, path: str, method: str, statuses: set[str]) -> None:
    assert set(document["paths"][path][method]["responses"]) == statuses


def test_a_client_can_read_our_errors_by_the_document(document: Any) -> None:
    """The framework's own shape has no `error` in it."""
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert response["content"]["application/json"]["schema"] == SHAPE
    assert not set(NOT_OURS) & document["components"]["schemas"].keys()
    assert "Error" in document["components"]["schemas"]


def test_a_reply_that_is_no_json_is_told_of(document: Any) -> None:
    content = document["paths"]["/admin/things/{name}"]["put"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/csv"}
