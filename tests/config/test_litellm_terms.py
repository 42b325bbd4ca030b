"""A wrong row here sends somebody's prompts, and key, to the wrong place."""

from __future__ import annotations

import pytest

from app.config.litellm_terms import BY_PREFIX, FOREIGN, PARAMS, PROVIDERS, SETTINGS
from app.config.values import VARIABLE_NAME, base_url


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_where_it_says(name: str) -> None:
    """At an address as we write them, over TLS or on this machine, with a key of its own."""
    provider = PROVIDERS[name]
    assert provider.base is None or base_url(provider.base) == provider.base
    assert provider.base is None or provider.base.startswith(("https://", "http://127.0.0.1:"))
    assert provider.key is None or VARIABLE_NAME.fullmatch(provider.key)
    assert name not in FOREIGN


def test_no_two_providers_share_a_key() -> None:
    keys = [provider.key for provider in PROVIDERS.values() if provider.key]
    assert len(keys) == len(set(keys))


def test_names_without_a_provider_lead_to_one() -> None:
    assert {provider for _, provider in BY_PREFIX} <= PROVIDERS.keys()


def test_every_word_says_something() -> None:
    assert all(len(words) > 10 and "\n" not in words for words in (*PARAMS.values(), *SETTINGS.values()))
