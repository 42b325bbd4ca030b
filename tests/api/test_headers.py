"""Without these a client does not learn who answered, or a strange name breaks its reply."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.headers import IGNORED_MAX, VALUE_MAX, header_value, ignored_value, reply_headers, whole_headers
from app.core.spending import RateState
from tests.api.wire import Wire, served, usage


def text(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    assert len({name for name, _ in headers}) == len(headers), "a header stands twice"
    return {name.decode(): value.decode() for name, value in headers}


@pytest.fixture
def wire() -> Wire:
    return Wire(headers={"x-request-id": "mine"})


async def test_who_answered_and_why(wire: Wire) -> None:
    about = served(tier="simple", score=0.12496, fallback="up/large")
    headers = text(reply_headers(wire.inbound(), about, ("seed", "x-tierway-cache")))
    assert headers.pop("openai-processing-ms").isdigit()
    assert headers == {
        "x-request-id": "mine",
        "x-tierway-model": "up/small",
        "x-tierway-upstream": "up",
        "x-tierway-tier": "simple",
        "x-tierway-score": "0.125",  # as far as it says anything
        "x-tierway-reason": "it was asked for",
        "x-tierway-fallback": "up/large",
        "x-tierway-attempts": "1",
        "x-tierway-ignored": "seed, x-tierway-cache",
    }


async def test_what_the_operator_filled_in_is_told(wire: Wire) -> None:
    """A caller must be able to see why its answer is cut short or colder than usual."""
    about = replace(served(), defaults=("temperature", "max_tokens"))
    assert text(reply_headers(wire.inbound(), about, ()))["x-tierway-defaults"] == "temperature, max_tokens"


async def test_how_the_limits_of_a_key_stand_is_told_as_openai_does(wire: Wire) -> None:
    """Clients pace themselves by it, before they are refused."""
    rates = (RateState("requests", 60, 59, 1.0), RateState("tokens", 10_000, 9_000, 6.0))
    about = replace(served(), rates=rates)
    expected = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "9000",
        "x-ratelimit-reset-tokens": "6s",
    }
    for headers in (reply_headers(wire.inbound(), about, ()), whole_headers(b"{}", wire.inbound(), about, (), usage())):
        assert {name: value for name, value in text(headers).items() if "ratelimit" in name} == expected


async def test_what_is_not_known_is_left_out(wire: Wire) -> None:
    """An empty header looks like an answer."""
    assert text(reply_headers(wire.inbound(), None, ())).keys() == {"x-request-id", "openai-processing-ms"}
    headers = text(reply_headers(wire.inbound(), served(), ()))
    assert not headers.keys() & {
        "x-tierway-tier",
        "x-tierway-score",
        "x-tierway-fallback",
        "x-tierway-ignored",
        "x-tierway-defaults",
    }


@pytest.mark.parametrize(
    ("nano", "told"), [(None, None), (0, "0.000000000"), (1, "0.000000001"), (12_345_678_901, "12.345678901")]
)
async def test_cost_is_told_to_the_nano_where_it_is_known(wire: Wire, nano: int | None, told: str | None) -> None:
    """An unknown price must not look like a free answer."""
    headers = text(whole_headers(b"12345", wire.inbound(), served(), (), usage(nano)))
    assert headers["content-type"] == "application/json" and headers["content-length"] == "5"
    assert headers.get("x-tierway-cost-usd") == told


async def test_without_usage_no_cost_is_told(wire: Wire) -> None:
    assert "x-tierway-cost-usd" not in text(whole_headers(b"", wire.inbound(), served(), (), None))


@given(st.text())
def test_any_name_makes_a_sound_header(name: str) -> None:
    """Names of models come from upstreams; a line break in one would split the reply."""
    assert re.fullmatch(rb"[ -~]*", header_value(name)) and len(header_value(name)) == len(name)


def test_a_long_value_is_cut() -> None:
    """A client refuses a reply whose headers are too large, and the answer is lost."""
    assert header_value("x" * VALUE_MAX) == b"x" * VALUE_MAX
    assert header_value("x" * (VALUE_MAX + 1)) == b"x" * (VALUE_MAX - 3) + b"..."


@given(st.lists(st.text(max_size=600).filter(lambda name: "," not in name), min_size=1, max_size=60))
def test_what_was_ignored_is_listed_as_far_as_it_fits(names: list[str]) -> None:
    """Hundreds of unknown parameters must not swell the head, and what is left out must be counted."""
    *listed, last = ignored_value(names).decode().split(", ")
    if (more := re.fullmatch(r"and (\d+) more", last)) and len(listed) < len(names):
        assert len(listed) + int(more[1]) == len(names)
    else:
        listed.append(last)
        assert len(listed) == len(names)
    assert len(ignored_value(names)) <= IGNORED_MAX + 20
    assert listed == [header_value(name).decode() for name in names[: len(listed)]]


def test_many_ignored_names_are_counted() -> None:
    said = ignored_value([f"parameter_{index}" for index in range(5000)])
    assert re.fullmatch(rb"parameter_0, parameter_1, .*, and 49\d\d more", said)
