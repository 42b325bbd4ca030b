"""Without these the page of the API is blank where there is no internet, or runs what somebody else wrote."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.app import fastapi_app
from app.api.page import page


class Rating(BaseModel):
    """A body."""

    rating: float | None = Field(description="0 to 1, `null` for none.")
    words: list[str] = []


@pytest.fixture
def shown() -> str:
    router = APIRouter(tags=["feedback"])

    @router.post("/v1/rate/{id}", summary="Rate <b>it</b>")
    async def rate(id: str, body: Rating, like: str = "x") -> None: ...

    return page(fastapi_app([router]).openapi())


def test_it_says_what_may_be_sent_and_what_comes_back(shown: str) -> None:
    for part in (
        "<b>POST</b><code>/v1/rate/{id}</code>",
        "<td><code>id</code></td><td>path</td>",
        "<code>rating</code> *</td><td><code>number | null</code></td><td>0 to 1, <code>null</code> for none.",
        "<td><code>list of string</code></td>",
        "<td>422</td>",
        "<code>/v1/chat/completions</code>",
        "How <code>auto</code> chooses.",
    ):
        assert part in shown, part


def test_it_needs_nobody_else_and_runs_nothing(shown: str) -> None:
    assert re.findall(r"(?:href|src)=\"([^\"]*)\"", shown) == ["/openapi.json"]
    assert not any(word in shown for word in ("<script", "@import", "url(", "://"))
    assert "Rate &lt;b&gt;it&lt;/b&gt;" in shown


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/components/schemas/Error"}, "Error"),
        ({"oneOf": [{"const": "a"}, {"enum": ["b", 1]}]}, "a | b | 1"),
        ({"type": "array"}, "list of any"),
        ({}, "any"),
    ],
)
def test_a_type_in_words(schema: dict[str, Any], words: str) -> None:
    about = {"title": "t", "version": "1"}
    operation = {"parameters": [{"name": "p", "in": "query", "schema": schema}], "responses": {}}
    made = page({"info": about, "paths": {"/": {"get": operation}}})
    assert f"<td>query</td><td><code>{words}</code></td>" in made and "<h2>other</h2>" in made


async def test_it_is_served_with_a_policy_that_allows_no_scripts() -> None:
    transport = httpx2.ASGITransport(app=fastapi_app([]))
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        reply = await client.get("/docs")
        assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert (await client.get("/redoc")).status_code == 404
