"""Without these keys cannot be made before the first start, or a secret is lost or shown twice."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import Result

from app.access.keys import KeyRecord
from app.cli.keys import LAST, _key_line, moment
from tests.cli.conftest import Run

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def made(result: Result) -> dict[str, str]:
    """What the command says of a new key, by its first word."""
    assert result.exit_code == 0, result.output
    return dict(line.split(maxsplit=1) for line in result.stdout.splitlines())


def listed(run: Run) -> list[dict[str, Any]]:
    result = run("keys", "list", "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 0 and data["object"] == "list"
    keys: list[dict[str, Any]] = data["data"]
    return keys


def test_a_key_lives_from_its_making_to_its_end(run: Run) -> None:
    assert "need none" in run("keys", "list").stdout, "an empty table tells nobody who may ask"
    result = run("keys", "create", "--name", "ci", "--tenant", "qa", "--model", "ollama/*", "--model", "auto")
    key = made(result)
    assert key["key"].startswith("tw-") and key["name"] == "ci" and "cannot be shown again" in result.stderr
    assert "from now on every request needs one" in result.stderr, "else it locks out who asked without, unannounced"
    (record,) = listed(run)
    assert (record["id"], record["tenant"], record["models"]) == (key["id"], "qa", ["ollama/*", "auto"])
    assert key["key"] not in json.dumps(record)
    table = run("keys", "list").stdout.splitlines()
    assert len(table) == 2 and key["id"] in table[1] and table[1].endswith("active") and "never" in table[1]
    ended = run("keys", "revoke", key["id"])
    assert ended.exit_code == 0 and ended.stdout == f"{key['id']} is revoked.\n"
    assert run("keys", "list").stdout.splitlines()[1].endswith("revoked")
    assert "from now on" not in run("keys", "create", "--name", "second").stderr


def test_as_json_with_everything_that_can_be_said(run: Run) -> None:
    options = ["--expires", "2099-01-31", "--priority", "batch", "--privacy", "local", "--store-content", "off"]
    options += ["--budget", "day=0.5", "--budget", "total=20", "--rpm", "60", "--tpm", "9000", "--concurrency", "2"]
    result = run("keys", "create", "--name", "x", "--retention-days", "7", "--json", *options)
    key = json.loads(result.stdout)
    assert key["key"].startswith("tw-") and key["expires_at"] == datetime(2099, 1, 31, tzinfo=UTC).timestamp()
    said = {"priority": "batch", "privacy": "local", "store_content": "off", "retention_days": 7, "tenant": None}
    said |= {"budgets": {"day": 0.5, "total": 20}, "requests_per_minute": 60, "tokens_per_minute": 9000}
    assert said.items() <= key.items() and key["concurrency"] == 2


@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        (["--name", "x", "--expires", "soon"], 2, "90d"),
        (["--name", "x", "--expires", "²d"], 2, "90d"),
        (["--name", "x", "--expires", "999999999d"], 2, "90d"),
        (["--name", "x", "--expires", "d"], 2, "90d"),
        (["--name", "x", "--expires", ""], 2, "90d"),
        (["--name", "x", "--expires", "2027-13-01"], 2, "90d"),
        (["--name", "x", "--expires", "1960-01-01"], 2, "expires_at"),
        (["--name", "x", "--expires", "2020-01-01"], 1, "in the past"),
        (["--name", "x", "--expires", "0d"], 1, "in the past"),
        (["--name", ""], 2, "name"),
        (["--name", "a\nb"], 2, "name"),
        (["--name", "x", "--retention-days", "-1"], 2, "retention_days"),
        (["--name", "x", "--priority", "high"], 2, "--priority"),
        (["--name", "x", "--budget", "5"], 2, "day=5"),
        (["--name", "x", "--budget", "day=1", "--budget", "day=2"], 2, "day=5"),
        (["--name", "x", "--budget", "week=5"], 2, "budgets.week"),
        (["--name", "x", "--budget", "day=much"], 2, "day=5"),
        (["--name", "x", "--budget", "day=inf"], 2, "day=5"),
        (["--name", "x", "--budget", "day="], 2, "day=5"),
        (["--name", "x", "--budget", "day=-1"], 2, "budgets.day"),
        (["--name", "x", "--rpm", "0"], 2, "requests_per_minute"),
        (["--name", "x", "--tpm", "-1"], 2, "tokens_per_minute"),
        (["--name", "x", "--concurrency", "0"], 2, "concurrency"),
        ([], 2, "--name"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(run: Run, options: list[str], status: int, word: str) -> None:
    result = run("keys", "create", *options)
    assert result.exit_code == status and word in result.stderr and result.stdout == ""
    assert "pydantic" not in result.stderr
    assert listed(run) == []


def test_a_key_that_is_not_there_cannot_be_ended(run: Run) -> None:
    """People give the name, or the secret itself, which is not repeated."""
    secret = made(run("keys", "create", "--name", "ci"))["key"]
    for given in ("key_0", "ci", secret, ""):
        result = run("keys", "revoke", given)
        assert result.exit_code == 1 and result.stdout == "" and "Traceback" not in result.stderr
        assert secret not in result.stderr and "tierway keys list" in result.stderr


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_moments_are_spans_or_dates(text: str, when: datetime) -> None:
    assert moment(text, NOW) == when.timestamp()


@pytest.mark.parametrize(
    ("about", "end"),
    [
        ({}, "never       active"),
        ({"expires_at": int(NOW.timestamp()) + 90_000}, "2026-11-21  active"),
        ({"expires_at": int(NOW.timestamp())}, "2026-11-20  expired"),
        ({"expires_at": 5, "revoked_at": 7}, "1970-01-01  revoked"),
        ({"expires_at": LAST * 4}, "9999-12-31  active"),
    ],
)
def test_a_line_says_how_a_key_stands(about: dict[str, int], end: str) -> None:
    """Also of one whose end the admin API was given in milliseconds: no date can hold it."""
    record = KeyRecord.model_validate({"id": "key_1", "name": "x", "created_at": 1, **about})
    assert _key_line(record, NOW).endswith(f"all                      any      interactive  none               {end}")


def test_a_line_says_what_a_key_may() -> None:
    about = {"id": "key_1", "name": "x", "created_at": 1, "privacy": "local", "priority": "batch"}
    about |= {"budgets": {"day": 0.5}, "requests_per_minute": 60, "concurrency": 2}
    limits = "$0.5/day,60rpm,2at-once"
    assert _key_line(KeyRecord.model_validate(about), NOW).split()[4:7] == ["local", "batch", limits]
