"""Without these a client that asks again pays twice, or gets half an answer for a whole one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.access.idempotency import Idempotency
from app.api import idempotent
from app.api.chat import ChatEndpoint
from app.api.embeddings import EmbeddingsEndpoint
from app.api.front import Front, InFlight, TokenPath
from app.api.idempotent import Idempotent
from app.api.line import LineTimes
from app.core.caller import Caller
from app.core.errors import Incomplete, StoreUnavailable
from app.core.events import Fault, Finish, Text
from app.core.request import Embeddings
from app.gateway.embeddings import Embedded
from app.store.client import Store
from app.wire import chat, objects
from app.wire.codec import Limits
from tests.api.test_auth import Ring, door
from tests.api.wire import Scripted, Wire, asking, begin, beside, served, soon, usage, whole_answer

KEY = {"idempotency-key": "k"}
RING = Ring(
    {"alice": Caller(key_id="key_1"), "bob": Caller(key_id="key_2"), "quiet": Caller(key_id="k", store_content="off")},
    any_created=True,
)


def front(answers: Idempotency, gateway: Scripted, ring: Ring | None = None) -> Front:
    entrance = door(ring)
    endpoints: dict[str, Any] = {
        "/v1/chat/completions": ChatEndpoint(entrance, gateway.gateway, chat, Limits(), LineTimes(), lambda _: None),
        "/v1/embeddings": EmbeddingsEndpoint(entrance, gateway.gateway, Limits()),
    }
    return Front(
        {
            path: TokenPath(Idempotent(endpoint, entrance, answers, 100_000), objects.write_error)
            for path, endpoint in endpoints.items()
        },
        None,  # type: ignore[arg-type]  # nothing else is asked for
        in_flight_limit=100,
        on_error=lambda where, error: pytest.fail(f"{where}: {error!r}"),
        in_flight=InFlight(),
    )


@pytest.fixture
def answers(store: Store) -> Idempotency:
    return Idempotency(store)


class Client:
    """Asks the same again and again, unless told otherwise."""

    def __init__(self, answers: Idempotency, gateway: Scripted, ring: Ring | None = None) -> None:
        self._front = front(answers, gateway, ring)

    async def ask(self, body: bytes = b"", path: str = "/v1/chat/completions", **headers: str) -> Wire:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        wire = Wire(body or asking(False), path=path, headers={**KEY, **names})
        await self(wire)
        return wire

    async def __call__(self, wire: Wire) -> None:
        await self._front(wire.scope, wire.receive, wire.send)


# --- the same again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_request_gets_the_same_bytes(answers: Idempotency, stream: bool) -> None:
    """And is answered once; a stream comes as a stream again."""
    gateway = Scripted(*whole_answer())
    client = Client(answers, gateway)
    first = await client.ask(asking(stream), x_request_id="first")
    again = await client.ask(asking(stream), x_request_id="second")
    assert len(gateway.asked) == 1
    assert first.complete and again.complete
    assert (again.status, again.body) == (200, first.body)
    assert first.body.endswith(b"data: [DONE]\n\n") == stream
    assert again.headers["x-tierway-idempotent-replay"] == "first" and again.headers["x-request-id"] == "second"
    assert "x-tierway-idempotent-replay" not in first.headers
    moment = {"x-request-id", "openai-processing-ms", "x-tierway-idempotent-replay"}
    assert {k: v for k, v in first.headers.items() if k not in moment} == {
        k: v for k, v in again.headers.items() if k not in moment
    }
    assert again.headers["x-tierway-model"] == "up/small"


async def test_embeddings_are_repeated_too(answers: Idempotency) -> None:
    gateway = Scripted(embedded=Embedded(Embeddings(((0.5,),), "small", 1), served(), usage()))
    client = Client(answers, gateway)
    first, again = [await client.ask(b'{"model": "auto", "input": "x"}', path="/v1/embeddings") for _ in range(2)]
    assert first.status == again.status == 200 and first.body == again.body and len(gateway.asked) == 1


async def test_without_the_header_nothing_is_kept(answers: Idempotency, store: Store) -> None:
    gateway = Scripted(*whole_answer())
    for _ in range(2):
        wire = Wire(asking(False))
        await front(answers, gateway)(wire.scope, wire.receive, wire.send)
        assert wire.status == 200
    assert len(gateway.asked) == 2 and len(await store.call("KEYS", "*")) == 1


async def test_keys_of_one_caller_are_not_another_ones(answers: Idempotency) -> None:
    gateway = Scripted(*whole_answer())
    client = Client(answers, gateway, RING)
    for who in ("alice", "bob", "alice", "bob"):
        assert (await client.ask(authorization=f"Bearer {who}")).status == 200
    assert [caller.key_id for caller, _ in gateway.asked] == ["key_1", "key_2"]
    assert (await client.ask(authorization="Bearer mallory")).status == 401


async def test_where_content_may_not_be_stored_the_header_is_ignored_and_named(
    answers: Idempotency, store: Store
) -> None:
    gateway = Scripted(*whole_answer())
    client = Client(answers, gateway, RING)
    wires = [await client.ask(authorization="Bearer quiet") for _ in range(2)]
    assert len(gateway.asked) == 2 and len(await store.call("KEYS", "*")) == 1
    assert [wire.headers["x-tierway-ignored"] for wire in wires] == ["idempotency-key"] * 2


# --- another one, or too soon -----------------------------------------------------------------------------------------


async def test_another_body_is_refused(answers: Idempotency) -> None:
    client = Client(answers, gateway := Scripted(*whole_answer()))
    await client.ask()
    wire = await client.ask(asking(False, seed=1))
    assert (wire.status, wire.error["code"], wire.error["param"]) == (422, "idempotency_mismatch", "idempotency-key")
    assert (await client.ask(x_tierway_strategy="quality")).status == 422
    assert len(gateway.asked) == 1


async def test_while_the_first_is_being_answered_the_next_is_told_to_wait(answers: Idempotency) -> None:
    gate = asyncio.Event()
    client = Client(answers, gateway := Scripted(begin(), gate, Text("Hi"), Finish("stop"), usage()))
    first = Wire(asking(False), headers=KEY)
    async with beside(client(first)) as task:
        await gateway.waiting.wait()
        wire = await client.ask()
        assert (wire.status, wire.error["code"], wire.headers["retry-after"]) == (409, "idempotency_in_flight", "1")
        gate.set()
        await task
    again = await client.ask()
    assert again.body == first.body and len(gateway.asked) == 1


async def test_a_long_answer_keeps_its_key(store: Store) -> None:
    """Or a client that tries again while a slow model thinks pays twice."""
    gate = asyncio.Event()
    answers = Idempotency(store, hold_seconds=0.3)
    client = Client(answers, gateway := Scripted(begin(), gate, Text("Hi"), Finish("stop"), usage()))
    async with beside(client(Wire(asking(False), headers=KEY))) as task:
        await gateway.waiting.wait()
        await asyncio.sleep(0.7)
        assert (await client.ask()).status == 409
        gate.set()
        await task


@pytest.mark.parametrize("key", ["", " ", "x" * 300, "\xe9"])
async def test_what_is_no_key_is_refused(answers: Idempotency, key: str) -> None:
    wire = await Client(answers, gateway := Scripted()).ask(idempotency_key=key)
    assert (wire.status, wire.error["param"]) == (400, "idempotency-key") and not gateway.asked


# --- what is not kept -------------------------------------------------------------------------------------------------


async def test_an_error_is_not_kept(answers: Idempotency) -> None:
    client = Client(answers, gateway := Scripted(Incomplete("It broke off.")))
    assert (await client.ask()).status == 502
    assert (await client.ask(b"no json")).status == 400
    gateway.steps = whole_answer()
    assert (await client.ask()).status == 200
    assert (await client.ask()).headers["x-tierway-idempotent-replay"]


@pytest.mark.parametrize("steps", [(Fault(Incomplete("It broke off.")),), (Incomplete("It broke off."),)])
async def test_a_stream_that_broke_off_is_not_kept(answers: Idempotency, steps: tuple[Any, ...]) -> None:
    """It would be half an answer for ever."""
    client = Client(answers, gateway := Scripted(begin(), Text("Hal"), *steps))
    broken = await client.ask(asking(True))
    assert broken.status == 200 and b"[DONE]" not in broken.body
    gateway.steps = whole_answer()
    whole = await client.ask(asking(True))
    assert "x-tierway-idempotent-replay" not in whole.headers and len(gateway.asked) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_left_has_its_key_back(answers: Idempotency, stream: bool) -> None:
    client = Client(answers, gateway := Scripted(begin(), Text("Hal"), asyncio.Event()))
    wire = Wire(asking(stream), headers=KEY)
    async with beside(client(wire)) as task:
        await gateway.waiting.wait()
        wire.leave()
        await asyncio.wait_for(task, 2)
    gateway.steps = whole_answer()
    assert (await client.ask(asking(stream))).status == 200


async def test_a_request_that_is_cancelled_gives_its_key_back(answers: Idempotency) -> None:
    """A gateway that shuts down is followed by another, at which the client asks again."""
    client = Client(answers, gateway := Scripted(begin(), asyncio.Event()))
    wire = Wire(asking(False), headers=KEY)
    async with beside(client(wire)) as task:
        await gateway.waiting.wait()
        task.cancel()
        await asyncio.wait((task,))
    assert wire.status == 503
    gateway.steps = whole_answer()
    assert (await client.ask()).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_of_an_answer_that_is_too_large_to_keep_a_repetition_is_told(
    answers: Idempotency, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """It goes out whole all the same; what is kept is bounded, not what is answered."""
    client = Client(answers, gateway := Scripted(*whole_answer()))
    size = len((await client.ask(asking(stream))).body)
    monkeypatch.setattr(idempotent, "ANSWER_BYTES", size)
    await client.ask(asking(stream), idempotency_key="fits")
    assert (await client.ask(asking(stream), idempotency_key="fits")).status == 200
    monkeypatch.setattr(idempotent, "ANSWER_BYTES", size - 1)
    first = await client.ask(asking(stream), idempotency_key="large")
    assert first.complete and len(first.body) == size
    again = await client.ask(asking(stream), idempotency_key="large")
    assert (again.status, again.error["code"], again.error["param"]) == (422, "invalid_value", "idempotency-key")
    assert "too large to be kept" in again.error["message"] and len(gateway.asked) == 3


# --- without the store ------------------------------------------------------------------------------------------------


class Failing(Idempotency):
    """A store that does not take so many answers."""

    def __init__(self, store: Store, times: int) -> None:
        super().__init__(store)
        self.times = times

    async def keep(self, *args: Any) -> bool:
        self.times -= 1
        return self.times < 0 and await super().keep(*args)


async def test_without_the_store_the_promise_is_not_made(answers: Idempotency, store: Store) -> None:
    """Better no answer than one that is silently paid for twice."""
    await store.aclose()
    wire = await Client(answers, gateway := Scripted(*whole_answer())).ask()
    assert (wire.status, wire.error["code"]) == (503, StoreUnavailable.code) and not gateway.asked


@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_that_the_store_did_not_take_is_kept_later(
    store: Store, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Its client has it at once."""
    monkeypatch.setattr(idempotent, "LATER_SECONDS", (0.05,) * 5)
    answers = Failing(store, times)
    client = Client(answers, gateway := Scripted(*whole_answer()))
    first = Wire(asking(False), headers=KEY)
    async with beside(client(first)) as task:
        await soon(lambda: first.complete)
        assert not task.done()
        await task
    assert (await client.ask()).body == first.body and len(gateway.asked) == 1


async def test_one_that_is_never_taken_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotent, "LATER_SECONDS", (0.01, 0.01))
    answers = Failing(store, 100)
    wire = await Client(answers, Scripted(*whole_answer())).ask()
    assert wire.complete and answers.times == 97
