"""Settings are plain frozen values with the promised defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from pydantic import SecretStr

from app.config.settings import Settings, UpstreamSettings, same_upstreams, upstream_settings


def test_settings_can_be_made_without_file_or_environment() -> None:
    """Every other test of the product starts here."""
    settings = Settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8080, 1)
    assert dict(settings.aliases) == {"gpt-*": "auto", "o[1-9]*": "auto"}
    assert settings.flags.start["STREAMING"] == 1.0
    assert settings.flags.start["SHADOW"] == 0.0


def test_nothing_can_be_changed_at_run_time() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]
    for table in (settings.aliases, settings.upstreams, settings.models, settings.flags.start, settings.sources):
        with pytest.raises(TypeError):
            table["x"] = "y"  # type: ignore[index]


def test_secrets_are_in_no_repr() -> None:
    upstream = UpstreamSettings("c", "anthropic", ("https://x",), api_key=SecretStr("sk-1"))
    settings = Settings(admin_key=SecretStr("sk-2"), redis_url=SecretStr("redis://:sk-3@h"), upstreams={"c": upstream})
    assert "sk-" not in repr(settings)
    assert upstream_settings(settings)["c"] is upstream


def test_upstreams_are_the_same_while_they_are_the_same_servers() -> None:
    one = UpstreamSettings("gpu", "vllm", ("http://gpu",))
    other = {"gpu": replace(one, max_concurrency=5), "new": one}
    assert same_upstreams(Settings(upstreams={"gpu": one}), Settings(upstreams=other)) == {"gpu"}
    moved = {"gpu": replace(one, base_urls=("http://other",))}
    assert not same_upstreams(Settings(upstreams={"gpu": one}), Settings(upstreams=moved))
