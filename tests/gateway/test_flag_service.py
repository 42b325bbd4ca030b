"""A flag service drives features without ever being in the way: what it said last counts while it is slow or away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

import pytest

from app.core.caller import Caller
from app.core.clock import ManualClock
from app.flags import Served
from app.gateway import flag_service
from app.gateway.flag_service import EVERYBODY, FlagService, ServiceUnusable, Told, Who, load_service

CALLER = Caller(key_id="k1", name="ci", tenant="acme")
ACME = Who.of(CALLER, None)


class Board:
    """A flag service that says what is written on it. Without `answers`, asking hangs."""

    def __init__(self) -> None:
        self.says: dict[Who, Told] = {EVERYBODY: Told({"STREAMING": 1.0, "SHADOW": None})}
        self.asked: list[Who] = []
        self.answers = threading.Event()
        self.answers.set()
        self.clock = ManualClock()
        self.for_all: list[Mapping[str, float]] = []
        self.rounds: list[str] = []
        self.service = FlagService(self.ask, ("STREAMING", "SHADOW"), self.serve, self.rounds.append, self.clock)

    def ask(self, who: Who, names: Sequence[str]) -> Told:
        assert tuple(names) == ("STREAMING", "SHADOW")
        self.answers.wait()
        self.asked.append(who)
        return self.says.get(who, self.says[EVERYBODY])

    def serve(self, for_all: Mapping[str, float], served: Served) -> None:
        self.for_all.append(for_all)

    async def turn(self) -> None:
        self.clock.advance(2)
        await self.service.turn()

    async def meet(self, caller: Caller = CALLER, agent: str | None = None) -> Mapping[str, float]:
        """A request of this caller comes, while the service is asked."""
        met = asyncio.ensure_future(self.service.meet(caller, agent))
        while not met.done():
            await asyncio.sleep(0)
            await self.service.turn()
        return self.service.of(caller, agent)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    for name in ("FIRST_SECONDS", "START_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(flag_service, name, 30.0)  # a machine that is busy is no service that is slow
    return Board()


async def test_what_it_says_of_everybody_counts_from_the_first_request(board: Board) -> None:
    await board.service.open()
    assert board.for_all == [{"STREAMING": 1.0}] and board.rounds == ["ok"]
    assert board.service.of(CALLER, "qe") == {"STREAMING": 1.0}, "until it was asked about this one"
    board.says[EVERYBODY] = Told({"STREAMING": 0.0, "SHADOW": 0.25})
    await board.turn()
    await board.turn()
    assert board.for_all[1:] == [{"STREAMING": 0.0, "SHADOW": 0.25}], "told once"


async def test_the_first_request_of_a_tenant_gets_what_is_said_of_that_tenant(board: Board) -> None:
    """Else a targeted rollback would miss the first request after each start."""
    board.says[ACME] = Told({"STREAMING": 0.0})
    board.says[ACME._replace(agent="qe")] = Told({"STREAMING": 0.5})
    await board.service.open()
    assert await board.meet() == {"STREAMING": 0.0}
    assert await board.meet(agent="qe") == {"STREAMING": 0.5}
    board.says[ACME] = Told({"STREAMING": None})
    await board.turn()
    assert board.service.of(CALLER, None) == {}, "and what the service no longer knows is left to the gateway"


async def test_an_unreachable_service_changes_nothing_and_is_told_of(board: Board) -> None:
    await board.service.open()
    await board.meet()
    board.says = {EVERYBODY: Told({}, "GENERAL", dead=True)}
    board.asked.clear()
    await board.turn()
    assert board.asked == [EVERYBODY], "who is away is not asked about everybody in turn"
    assert board.service.of(CALLER, None) == {"STREAMING": 1.0} and board.rounds[-1] == "failed"
    board.clock.advance(1_000)
    await board.service.meet(CALLER, "new")  # does not wait
    await board.turn()
    assert board.service.of(CALLER, None) == {"STREAMING": 1.0}, "however long it is away"
    board.says = {EVERYBODY: Told({"STREAMING": 0.0})}
    await board.turn()
    assert board.service.of(CALLER, "new") == {"STREAMING": 0.0} and board.rounds[-1] == "ok"


async def test_a_service_that_hangs_costs_requests_nothing(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_service, "ANSWER_SECONDS", 0.02)
    await board.service.open()
    board.answers.clear()
    await board.turn()
    assert board.rounds[-1] == "failed" and board.service.of(CALLER, None) == {"STREAMING": 1.0}
    threads = threading.active_count()
    await board.turn()
    assert threading.active_count() <= threads, "it is not asked again while it owes an answer"
    board.says[EVERYBODY] = Told({"STREAMING": 0.0})
    monkeypatch.setattr(flag_service, "ANSWER_SECONDS", 30.0)
    board.answers.set()
    await board.turn()
    assert board.service.of(CALLER, None) == {"STREAMING": 0.0} and board.rounds[-1] == "ok"


async def test_a_first_request_does_not_wait_for_long(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_service, "FIRST_SECONDS", 0.01)
    await board.service.open()
    board.answers.clear()
    await board.service.meet(CALLER, None)  # nobody asks meanwhile
    assert board.service.of(CALLER, None) == {"STREAMING": 1.0}
    board.answers.set()


async def test_one_flag_that_cannot_be_said_keeps_its_last_value(board: Board) -> None:
    await board.service.open()
    board.says[EVERYBODY] = Told({"SHADOW": 0.5}, "tierway_streaming: PARSE_ERROR")
    await board.turn()
    assert board.for_all[-1] == {"STREAMING": 1.0, "SHADOW": 0.5} and board.rounds[-1] == "failed"


async def test_a_fault_of_the_provider_does_not_end_the_asking(board: Board) -> None:
    await board.service.open()
    says, board.says = board.says, {}
    await board.turn()
    assert board.rounds[-1] == "failed"
    board.says = says
    await board.turn()
    assert board.rounds[-1] == "ok"


async def test_who_did_not_come_for_long_is_asked_about_no_more(board: Board) -> None:
    await board.service.open()
    await board.meet()
    board.asked.clear()
    await board.turn()
    assert board.asked == [EVERYBODY, ACME]
    board.clock.advance(100)
    board.asked.clear()
    await board.turn()
    assert board.asked == [EVERYBODY]


async def test_without_an_answer_the_gateway_starts_as_it_is_configured(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flag_service, "START_SECONDS", 0.02)
    board.says[EVERYBODY] = Told({}, "PROVIDER_NOT_READY", dead=True)
    waiting = asyncio.ensure_future(board.service.open())
    while not waiting.done():
        await asyncio.sleep(0.01)
        board.clock.advance(0.01)
    assert board.for_all == [] and board.rounds == ["failed"] and board.service.of(CALLER, None) == {}


async def test_it_goes_on_by_itself(board: Board) -> None:
    await board.service.open()
    running = asyncio.ensure_future(board.service.run())
    board.clock.advance(2)
    await asyncio.wait_for(board.service.meet(CALLER, None), 10)
    while ACME not in board.asked:
        await asyncio.sleep(0.01)
    running.cancel()


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ServiceUnusable, match=r"tierway\[openfeature\]"):
        load_service("a:b")
