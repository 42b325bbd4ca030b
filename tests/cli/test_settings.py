"""Settings, versions and reloads from a terminal: the commands that the rollback guide gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.stub import Stub, stubbed

STATE = {"name": "strategy", "value": "quality", "configured": "cost", "changed": True}
VERSION = {"number": 3, "at": 1_795_132_800.0, "action": "flag.put", "subject": "STREAMING", "reason": "0"}
VERSION |= {"flags": {}, "settings": {}, "file": None}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with stubbed() as server:
        yield server


def test_settings_are_listed(run: Run, stub: Stub) -> None:
    limit = {"name": "target_local", "value": None, "configured": None, "changed": False}
    stub.replies = [{"data": [STATE, limit]}] * 2
    assert run("settings", "list", "--url", stub.url).stdout.splitlines() == [
        "strategy                 quality  (configured: cost)",
        "target_local             null",
    ]
    assert json.loads(run("settings", "list", "--url", stub.url, "--json").stdout) == [STATE, limit]


def test_several_are_set_in_one_go(run: Run, stub: Stub) -> None:
    stub.replies = [{"data": [STATE]}]
    changes = ("target_local=0.2", "strategy=quality", 'breaker={"failures": 2}', "cloud=null", "default_model=a=b")
    assert run("settings", "set", *changes, "--url", stub.url).exit_code == 0
    values: dict[str, Any] = {"target_local": 0.2, "strategy": "quality", "breaker": {"failures": 2}, "cloud": None}
    assert stub.asked == [("PUT", "/admin/settings", {**values, "default_model": "a=b"})]


def test_what_is_no_change_is_not_even_sent(run: Run, stub: Stub) -> None:
    result = run("settings", "set", "strategy", "--url", stub.url)
    assert result.exit_code == 2 and "NAME=VALUE" in result.stderr and not stub.asked


def test_changes_are_taken_back_together(run: Run, stub: Stub) -> None:
    """One misspelt name must not leave half of a rollback behind."""
    stub.replies = [{"data": [STATE]}]
    assert run("settings", "unset", "strategy", "breaker.a/b", "--url", stub.url).exit_code == 0
    assert stub.asked == [("PUT", "/admin/settings", {"strategy": None, "breaker.a/b": None})]


def test_versions_are_listed_and_restored(run: Run, stub: Stub) -> None:
    stub.replies = [{"data": [VERSION]}, VERSION, VERSION]
    line = "     3  2026-11-20 00:00:00  flag.put STREAMING 0"
    head, shown = run("versions", "list", "--limit", "5", "--url", stub.url).stdout.splitlines()
    assert shown == line and "UTC" in head, "nobody knows whose clock it is"
    assert run("versions", "restore", "2", "--url", stub.url).stdout.splitlines() == [head, line]
    assert json.loads(run("versions", "restore", "0", "--url", stub.url, "--json").stdout) == [VERSION]
    assert [(method, path) for method, path, _ in stub.asked] == [
        ("GET", "/admin/versions?limit=5"),
        ("POST", "/admin/versions/2/restore"),
        ("POST", "/admin/versions/0/restore"),
    ]


def test_a_reload(run: Run, stub: Stub) -> None:
    stub.replies = [{"outcome": outcome, "config_version": "abc"} for outcome in ("ok", "unchanged", "ok")]
    assert run("reload", "--url", stub.url).stdout == "ok: configuration abc counts now\n"
    told = run("reload", "--url", stub.url).stdout
    assert told == "unchanged: configuration abc counted already\n", "the file's change was noticed before it was said"
    assert json.loads(run("reload", "--url", stub.url, "--json").stdout)["outcome"] == "ok"
