"""How busy upstreams are: what keeps requests from queueing at one while another is free."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.record import Attempt, Record
from app.upstreams.traffic import CEILING, Traffic
from tests.core.nouns import card

A = card("gpu/a")
ATTEMPT = Attempt("gpu/a", "gpu", "ok", None, 1.0)
RECORD = Record(
    request_id="r",
    parent_id=None,
    root_id="r",
    depth=0,
    endpoint="chat",
    model_requested="auto",
    stream=True,
    status=200,
    started_at=0.0,
    seconds=1.0,
    overhead_seconds=0.0,
    model="gpu/a",
    attempts=(ATTEMPT,),
    first_token_seconds=1.0,
)


def test_load_is_the_share_of_the_ceiling_in_flight() -> None:
    traffic = Traffic({"gpu": 4})
    assert traffic.load(A) == 0
    for _ in range(5):
        traffic.started("gpu")
    assert traffic.load(A) == traffic.use("gpu") == 1.25
    assert traffic.use("other") == 0 and traffic.ceiling("other") == CEILING
    for _ in range(7):
        traffic.ended("gpu")
    assert traffic.in_flight("gpu") == 0, "an end too many must not make room that is not there"


def test_where_requests_wait_everything_is_in_use() -> None:
    """Other gateways may have filled a server; its own queue is the only thing that says so."""
    waiting = {"gpu": 0}
    traffic = Traffic({"gpu": 4}, lambda upstream: waiting[upstream])
    traffic.started("gpu")
    assert traffic.use("gpu") == 0.25
    waiting["gpu"] = 2
    assert traffic.use("gpu") == 1.5


def test_the_usual_first_token_follows_what_is_seen() -> None:
    traffic = Traffic()
    assert traffic.first_token(A) is None
    traffic.observe(RECORD)
    assert traffic.first_token(A) == 1.0
    traffic.observe(replace(RECORD, first_token_seconds=2.0))
    assert traffic.first_token(A) == pytest.approx(1.2)


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, first_token_seconds=None),
        replace(RECORD, model=None),
        replace(RECORD, stream=False),
        replace(RECORD, attempts=(ATTEMPT, ATTEMPT)),
        replace(RECORD, attempts=()),
    ],
)
def test_what_does_not_show_it_does_not_count(record: Record) -> None:
    """A JSON reply comes whole at its end, and a second attempt has waited for the first."""
    traffic = Traffic()
    traffic.observe(record)
    assert traffic.first_token(A) is None


def test_ceilings_may_change_meanwhile() -> None:
    traffic = Traffic({"gpu": 4})
    traffic.started("gpu")
    traffic.configure({"gpu": 2})
    assert (traffic.ceiling("gpu"), traffic.load(A)) == (2, 0.5)


def test_the_next_gateway_counts_on() -> None:
    """Requests that began under the old configuration load the server all the same, and their end is noticed."""
    before, later = Traffic({"gpu": 4}), Traffic({"gpu": 4})
    before.observe(RECORD)
    before.started("gpu")
    later.inherit(before)
    later.started("gpu")
    assert later.in_flight("gpu") == 2 and later.first_token(A) == 1.0
    before.ended("gpu")
    assert later.in_flight("gpu") == 1
