"""Commands that ask a gateway end with a word, whatever answers them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.core.errors import InvalidApiKey, NotFound, Overloaded, Unprocessable
from app.wire.objects import write_error
from tests.cli.conftest import NOWHERE, Run
from tests.cli.stub import Stub, stubbed


@pytest.fixture
def stub() -> Iterator[Stub]:
    with stubbed() as server:
        yield server


def test_the_admin_key_goes_along(run: Run, stub: Stub) -> None:
    stub.replies = [{"data": []}, {"data": []}]
    assert run("flags", "list", "--url", stub.url + "/", TIERWAY_ADMIN_KEY="boss").exit_code == 0
    assert run("flags", "list", "--url", stub.url).exit_code == 0
    assert stub.keys == ["Bearer boss", None] and stub.asked == [("GET", "/admin/flags", None)] * 2


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (401, write_error(InvalidApiKey("x")), 1, "wants its admin key"),
        (404, write_error(NotFound("There is no flag 'X'.")), 2, "404: There is no flag 'X'."),
        (422, write_error(Unprocessable("value: no")), 2, "422: value: no"),
        (503, write_error(Overloaded("busy", retry_after=1)), 1, "503: busy"),
        (200, b"<html>", 1, "is no gateway"),
        (200, b"[]", 1, "is no gateway"),
        (500, b"", 1, "is no gateway"),
        (500, b'{"error": "x"}', 1, "is no gateway"),
    ],
)
def test_what_went_wrong_is_said(run: Run, stub: Stub, status: int, body: Any, code: int, words: str) -> None:
    stub.status, stub.replies = status, [body]
    result = run("flags", "list", "--url", stub.url)
    assert result.exit_code == code and words in result.stderr


@pytest.mark.parametrize("url", [NOWHERE, "http://[", NOWHERE.removeprefix("http://")])
def test_where_nothing_answers(run: Run, url: str) -> None:
    result = run("flags", "list", "--url", url)
    assert result.exit_code == 1 and "No gateway answers" in result.stderr and "--url" in result.stderr
    assert ".." not in result.stderr and "protocol" not in result.stderr, "who leaves out http:// means it"
