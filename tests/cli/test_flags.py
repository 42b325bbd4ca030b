"""What an operator types in an emergency does what it says, and shows what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.stub import Stub, stubbed


@pytest.fixture
def stub() -> Iterator[Stub]:
    with stubbed() as server:
        yield server


def state(**more: Any) -> dict[str, Any]:
    flag = {"name": "STREAMING", "value": True, "start": True, "locked": False, "changes": [], "off_means": "x"}
    return {**flag, **more}


def change(**more: Any) -> dict[str, Any]:
    return {"scope": None, "who": None, "value": False, "counts": True, **more}


def test_flags_are_listed_with_what_was_changed(run: Run, stub: Stub) -> None:
    some = change(scope="agent", who="qe", value="10%", counts=False)
    stub.replies = [{"data": [state(), state(name="SHADOW", value=False, locked=True, changes=[change(), some])]}]
    result = run("flags", "list", "--url", stub.url)
    assert result.stdout.splitlines() == [
        "flag                     value     start  changed",
        "STREAMING                 true      true",
        "SHADOW                   false      true  locked by FEATURE_LOCK, false,"
        " agent qe: 10% (overtaken by the environment)",
    ]


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("false",), {"value": False}),
        (("TRUE",), {"value": True}),
        (("10%",), {"value": "10%"}),
        (("100%",), {"value": True}),
        (("false", "--agent", "qe"), {"value": False, "agent": "qe"}),
        (("false", "--api-key", "ci"), {"value": False, "key": "ci"}),
        (("false", "--tenant", "acme"), {"value": False, "tenant": "acme"}),
    ],
)
def test_a_flag_is_set(run: Run, stub: Stub, arguments: tuple[str, ...], body: Any) -> None:
    stub.replies = [state(value=False, changes=[change()])]
    result = run("flags", "set", "STREAMING", *arguments, "--url", stub.url)
    assert result.exit_code == 0 and "STREAMING" in result.stdout
    assert stub.asked == [("PUT", "/admin/flags/STREAMING", body)]


@pytest.mark.parametrize("value", ["10", "off", "101%", ""])
def test_what_is_no_value_is_not_even_sent(run: Run, stub: Stub, value: str) -> None:
    result = run("flags", "set", "STREAMING", value, "--url", stub.url)
    assert result.exit_code == 2 and "percentage" in result.stderr and not stub.asked


def test_a_change_is_taken_back(run: Run, stub: Stub) -> None:
    stub.replies = [state(), state()]
    assert run("flags", "unset", "a/b", "--url", stub.url).exit_code == 0
    result = run("flags", "unset", "STREAMING", "--agent", "q e", "--url", stub.url, "--json")
    assert json.loads(result.stdout) == [state()]
    assert stub.asked == [
        ("DELETE", "/admin/flags/a%2Fb", None),
        ("DELETE", "/admin/flags/STREAMING?agent=q+e", None),
    ]
