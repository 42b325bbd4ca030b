from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.address import Address, parse
from app.store.errors import StoreUnusable


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", Address()),
        ("redis://cache", Address(host="cache")),
        ("valkey://cache:7000/3", Address(host="cache", port=7000, db=3)),
        ("redis://cache?db=4", Address(host="cache", db=4)),
        ("redis://me:p%40ss@cache", Address(host="cache", username="me", password="p@ss")),
        ("redis://:secret@cache/0", Address(host="cache", password="secret")),
        ("redis://[::1]:6380", Address(host="::1", port=6380)),
        ("unix:///run/redis%20x.sock?db=2", Address(path="/run/redis x.sock", db=2)),
        ("unix://:pw@/run/r.sock", Address(path="/run/r.sock", password="pw")),
    ],
)
def test_a_url_of_any_usual_form_leads_to_its_server(url: str, expected: Address) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cache:6379",
        "http://cache",
        "redis://cache:port",
        "redis://cache:99999",
        "redis://cache/first",
        "redis://cache?db=-1",
        "redis://cache?decode_responses=true",
        "redis://cache?nonsense",
        "redis://[::1",
        "unix://",
        "rediss://cache?ssl_ca_certs=/nowhere/ca.pem",
        "rediss://cache?ssl_certfile=/nowhere/cert.pem",
    ],
)
def test_a_wrong_url_is_refused_before_anything_connects(url: str) -> None:
    with pytest.raises(StoreUnusable, match="REDIS_URL"):
        parse(url)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_clear_refusal(text: str) -> None:
    """A stray character in the environment must end in a message, not in a traceback."""
    try:
        parse(f"redis://{text}")
    except StoreUnusable:
        pass


@pytest.mark.parametrize("url", ["redis://u:hunter2@h:bad", "redis://u:hunter2@h?what=1", "ftp://u:hunter2@h"])
def test_the_password_is_in_no_message(url: str) -> None:
    with pytest.raises(StoreUnusable) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_password_is_not_shown_when_an_address_is() -> None:
    assert "hunter2" not in repr(parse("redis://u:hunter2@h"))


def test_tls_checks_the_server_unless_told_otherwise() -> None:
    """Silently unchecked TLS would hand the password to anybody in between."""
    strict = parse("rediss://cache").tls
    assert strict is not None
    assert strict.check_hostname
    assert strict.verify_mode == ssl.CERT_REQUIRED
    unnamed = parse("valkeys://cache?ssl_check_hostname=false").tls
    assert unnamed is not None
    assert (unnamed.check_hostname, unnamed.verify_mode) == (False, ssl.CERT_REQUIRED)
    unchecked = parse("rediss://cache?ssl_cert_reqs=none").tls
    assert unchecked is not None
    assert (unchecked.check_hostname, unchecked.verify_mode) == (False, ssl.CERT_NONE)


def test_a_client_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "cert.pem"
    wrong.write_text("no certificate")
    with pytest.raises(StoreUnusable, match="certificate"):
        parse(f"rediss://cache?ssl_certfile={wrong}")


def test_the_greeting_authenticates_and_selects_before_it_asks() -> None:
    assert Address().greeting() == (("PING",),)
    assert Address(password="p", db=2).greeting() == (("AUTH", "p"), ("SELECT", "2"), ("PING",))
    assert Address(username="u", password="p").greeting() == (("AUTH", "u", "p"), ("PING",))
