"""The kinds of value, at and beyond their edges."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from pydantic import ConfigDict, SecretStr, TypeAdapter, ValidationError

from app.config import values
from app.config.values import base_url

STRICT = ConfigDict(strict=True)


def accept(kind: Any, value: object) -> Any:
    return TypeAdapter(kind, config=STRICT).validate_python(value)


def refusal(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        accept(kind, value)
    return caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("http://GPU-1:8000/", "http://gpu-1:8000"),
        ("https://api.example.com/v1", "https://api.example.com"),
        ("https://api.example.com/openai/v1/", "https://api.example.com/openai"),
        (" http://[::1]:80/v1/ ", "http://[::1]:80"),
        ("https://h/v10", "https://h/v10"),
    ],
)
def test_addresses_are_kept_in_one_form(written: str, kept: str) -> None:
    assert base_url(written) == kept


@pytest.mark.parametrize(
    "written",
    [
        *("", "localhost:11434", "ftp://h", "http://", "http:///v1", "http://h:99999", "http://h:x", "http://[::1"),
        *("http://h/v1/chat/completions", "http://h/v1/messages/", "http://h/api/chat"),
        *("http://h/?a=b", "http://h/#x", "http://h?", "http://a b", "http://h\\x"),
    ],
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"must"):
        base_url(written)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    said = refusal(values.Url, "http://user:hunter2@host")
    assert "api_key_env" in said
    assert "hunter2" not in said


@hypothesis(deadline=None)
@given(st.text(max_size=40))
def test_no_text_breaks_the_reader_of_addresses(text: str) -> None:
    try:
        kept = base_url(text)
    except ValueError:
        return
    assert base_url(kept) == kept


def test_a_pool_is_one_address_or_a_list_without_twins() -> None:
    assert accept(values.Pool, "http://a/v1") == ("http://a",)
    assert accept(values.Pool, ["http://a", "http://b"]) == ("http://a", "http://b")
    assert refusal(values.Pool, ["http://a", "http://a/v1"]) == "names the same server twice"
    assert accept(values.Many[str], ["a"]) == ("a",)
    refusal(values.Pool, [])
    refusal(values.Pool, 5)


def test_money_is_exact() -> None:
    assert accept(values.Usd, 0.2) == Decimal("0.2")
    assert accept(values.Usd, 50) == Decimal(50)
    assert accept(values.Usd, Decimal("0.1")) == Decimal("0.1")
    for wrong in ("5", True, None, -1, float("nan"), float("inf")):
        refusal(values.Usd, wrong)


def test_shares_are_percentages() -> None:
    assert accept(values.Share, "10%") == pytest.approx(0.1)
    for wrong in (0.1, 10, "10", "200%", None):
        assert refusal(values.Share, wrong) == 'must be a percentage, like "10%"'


def test_flags_and_their_names() -> None:
    assert accept(values.FlagValue, False) == 0.0
    assert refusal(values.FlagValue, "maybe") == 'must be true, false or a percentage, like "10%"'
    assert accept(values.FlagName, "streaming") == "streaming"
    with pytest.raises(ValidationError) as caught:
        accept(values.FlagName, "STREAMING")
    assert caught.value.errors()[0]["ctx"]["nearest"] == "streaming"


@pytest.mark.parametrize("name", ["auto", "tierway", "mode", "a/b", "", "-x", "a b", "x" * 65])
def test_upstream_names_that_would_break_model_ids_are_refused(name: str) -> None:
    refusal(values.UpstreamName, name)


def test_upstream_names_may_have_dots_and_dashes() -> None:
    assert accept(values.UpstreamName, "gpu-1.eu_2") == "gpu-1.eu_2"


def test_a_secret_in_place_of_a_variable_is_refused_and_not_repeated() -> None:
    assert accept(values.VariableName, "MY_KEY") == "MY_KEY"
    assert "sk-ant" not in refusal(values.VariableName, "sk-ant-123")


def test_patterns_time_zones_ranges_and_levels() -> None:
    assert accept(values.Glob, "o[1-9]*") == "o[1-9]*"
    refusal(values.Glob, "o[1-9*")
    refusal(values.Glob, "")
    assert accept(values.TimeZone, "UTC") == "UTC"
    assert accept(values.TimeZone, "Europe/Berlin") == "Europe/Berlin"
    for wrong in ("Mars/Base", "../etc/passwd", "/etc/passwd", "Europe"):
        assert "time zone" in refusal(values.TimeZone, wrong)
    assert accept(values.Range, [0, 0.4]) == (0.0, 0.4)
    assert refusal(values.Range, [0.5, 0.4]) == "must be [lowest, highest]"
    assert accept(values.Levels, [0.8, 1]) == (0.8, 1.0)
    assert refusal(values.Levels, [1.0, 0.8]) == "must be ascending"


def test_a_webhook_is_a_secret() -> None:
    hook = accept(values.Webhook, "https://hooks.example/T0/abc")
    assert isinstance(hook, SecretStr)
    assert "abc" not in repr(hook)
    for wrong in ("hooks.example", 5, None, "http://[", "ftp://h"):
        refusal(values.Webhook, wrong)


def test_tables_cannot_be_changed() -> None:
    table = accept(values.Table[int], {"a": 1})
    with pytest.raises(TypeError):
        table["b"] = 2
    with pytest.raises(TypeError):
        values.empty()["b"] = 2  # type: ignore[index]
