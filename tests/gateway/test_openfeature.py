"""A provider of OpenFeature is asked with the names and attributes that operators target by, and no odd answer of it
becomes a flag."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from app.gateway.flag_service import EVERYBODY, Service, ServiceUnusable, Who
from app.gateway.openfeature import service_of

NAMES = ("STREAMING", "SHADOW")
SEEN: list[EvaluationContext] = []
NO_PROVIDER = object()


def by_tenant(flag: InMemoryFlag[bool], context: EvaluationContext) -> FlagResolutionDetails[bool]:
    SEEN.append(context)
    return FlagResolutionDetails(value=context.attributes.get("tenant") != "acme")


def provider() -> InMemoryProvider:
    flags = {
        "tierway_streaming": InMemoryFlag("on", {"on": True}, context_evaluator=by_tenant),
        "tierway_shadow": InMemoryFlag("some", {"some": "12.5%"}),
    }
    return InMemoryProvider(flags)


def odd() -> InMemoryProvider:
    flags = {
        "tierway_streaming": InMemoryFlag("odd", {"odd": "sometimes"}),
        "tierway_shadow": InMemoryFlag("odd", {"odd": 7}),
    }
    return InMemoryProvider(flags)


class Down(InMemoryProvider):
    """Answers nothing, and counts how often it was asked."""

    asked = 0

    def __init__(self) -> None:
        super().__init__({})

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        Down.asked += 1
        raise ConnectionError("nobody is there")


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    made = service_of(f"{__name__}:{request.param}")
    while str(ErrorCode.PROVIDER_NOT_READY.value) in (made.ask(EVERYBODY, NAMES).error or ""):
        time.sleep(0.01)  # the SDK readies a provider in a thread of its own
    yield made
    made.close()


@pytest.mark.parametrize("service", ["provider"], indirect=True)
def test_a_flag_may_differ_by_tenant_and_a_text_is_a_share(service: Service) -> None:
    assert service.ask(EVERYBODY, NAMES).shares == {"STREAMING": 1.0, "SHADOW": 0.125}
    SEEN.clear()
    acme = Who("k1", "ci", "acme", "qe")
    assert service.ask(acme, NAMES).shares == {"STREAMING": 0.0, "SHADOW": 0.125}
    (context,) = SEEN
    assert context.targeting_key == "k1"
    assert context.attributes == {"key_id": "k1", "key": "ci", "tenant": "acme", "agent": "qe"}


@pytest.mark.parametrize("service", ["provider"], indirect=True)
def test_a_flag_the_service_does_not_know_is_left_to_the_gateway(service: Service) -> None:
    told = service.ask(EVERYBODY, (*NAMES, "BUDGET_GUARD"))
    assert told.shares["BUDGET_GUARD"] is None and told.error is None and not told.dead


@pytest.mark.parametrize("service", ["odd"], indirect=True)
def test_what_is_no_flag_value_is_named_and_does_not_count(service: Service) -> None:
    told = service.ask(EVERYBODY, NAMES)
    assert not told.shares and not told.dead
    assert told.error is not None and told.error.startswith("tierway_streaming: ")
    assert service.ask(EVERYBODY, ("SHADOW",)).error is not None


@pytest.mark.parametrize("service", ["Down"], indirect=True)
def test_a_service_that_is_away_is_asked_once_a_round(service: Service) -> None:
    """Each question may take its whole time limit."""
    before = Down.asked
    told = service.ask(EVERYBODY, NAMES)
    assert told.dead and told.error and Down.asked == before + 1


@pytest.mark.parametrize("place", ["no_such_module:Name", f"{__name__}:no_such_name", f"{__name__}:NO_PROVIDER"])
def test_what_is_no_provider_is_said_at_start(place: str) -> None:
    with pytest.raises(ServiceUnusable, match="TIERWAY_FLAG_PROVIDER"):
        service_of(place)
