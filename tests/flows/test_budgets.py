"""Budgets through the front door: whoever sets one sleeps well, and whoever is inside of it notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import openai
import orjson
import pytest

from app.simulator.behaviour import DEFAULTS, Behaviour
from app.simulator.record import Call
from app.simulator.script import Script
from app.simulator.server import simulate
from app.simulator.simulated import Simulated
from app.store.opening import open_store
from tests.flows.asking import ANY, Asking, Reply, replicas, within
from tests.flows.service import MODELS, Service

CLAUDE, OTHER, LOCAL = MODELS["anthropic"], MODELS["openai"], MODELS["ollama"]
PRICED: Final = {"price": {"input": 0, "output": 120}}
"""A thousand tokens of an answer are 0.12 USD, and nothing else costs anything: what is held is what is charged."""
DAY: Final = "global:*:day"
SECONDS: Final = 10.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk keeps a store that must not lose anything waiting; who is refused then is not what this is about."""
    monkeypatch.setattr("app.main.open_store", functools.partial(open_store, timeout=SECONDS))


def limit(usd: float, scope: str = "global", **more: Any) -> dict[str, Any]:
    return {"scope": scope, "period": "day", "limit": usd, **more}


def paid(openai: Mapping[str, Any] = PRICED, anthropic: Mapping[str, Any] = PRICED) -> dict[str, Any]:
    """Both paid models, for every request."""
    return {OTHER: {**ANY, **openai}, CLAUDE: {**ANY, **anthropic}}


def slow(kind: str, seconds: float) -> Behaviour:
    """Every answer takes that long, so that what is held for several is held at the same time."""
    return replace(DEFAULTS[kind], models=tuple(replace(model, first_token=seconds) for model in DEFAULTS[kind].models))


@contextlib.asynccontextmanager
async def one(folder: Path, *kinds: str, **config: Any) -> AsyncIterator[tuple[Service, Asking]]:
    kinds = kinds or ("anthropic",)
    notes = {MODELS[kind]: {**ANY, **PRICED} for kind in kinds if kind != "ollama"}
    async with replicas(folder, 1, kinds, **{"models": notes, **config}) as (replica,):
        yield replica


async def answered(asking: Asking, tokens: int, **more: Any) -> Reply:
    """Asks for an answer of so many tokens, which is what it is allowed as well."""
    return await asking.chat(f"sim:tokens={tokens}", **{"max_tokens": tokens, **more})


async def standing(asking: Asking, id: str = DAY) -> tuple[Decimal, Decimal]:
    """What is used and held of a limit."""
    data: list[dict[str, Any]] = (await asking.admin("GET", "budgets"))["data"]
    state = next(each for each in data if each["id"] == id)
    return Decimal(str(state["used"])), Decimal(str(state["held"]))


async def settled(asking: Asking, usd: str, id: str = DAY) -> None:
    """All that was asked is paid: settling goes on for a moment after an answer."""
    wanted = (Decimal(usd), Decimal(0))

    async def is_so() -> bool:
        return await standing(asking, id) == wanted

    await within(SECONDS, is_so, f"{usd} USD are used of {id}, and nothing is held")


def made(service: Service, kind: str) -> int:
    """How many answers an upstream was asked for."""
    return len(service.sims[kind].asked)


# --- one limit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_exactly_as_many_as_fit_are_answered(tmp_path: Path, stream: bool) -> None:
    """Of fifty at once, 0.12 USD each, three fit into 0.45: a fourth would be spent beyond the limit, and to refuse the
    third, or the small one that fits beside them, would keep back money that is there."""
    async with simulate("anthropic", slow("anthropic", 2.0)) as sim:
        async with one(tmp_path, sims={"anthropic": sim}, budgets=[limit(0.45)]) as (service, asking):
            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(answered(asking, 1_000, stream=stream)) for _ in range(50)]

            async def refused() -> bool:
                return sum(task.done() for task in tasks) >= 47

            await within(SECONDS, refused, "those that do not fit are refused at once")
            small = await answered(asking, 750, stream=stream)
            replies = await asyncio.gather(*tasks)
            assert small.status == 200, "what is left can be used while the others run"
            assert Counter((reply.status, reply.code) for reply in replies) == {
                (200, None): 3,
                (429, "budget_exceeded"): 47,
            }
            assert made(service, "anthropic") == 4
            await settled(asking, "0.45")
            assert (await answered(asking, 1)).code == "budget_exceeded"


async def test_what_is_not_used_is_free_again(tmp_path: Path) -> None:
    """An answer that ends early costs what it was, and the rest of what was held can be spent by the next."""
    async with one(tmp_path, budgets=[limit(0.12)]) as (_, asking):
        for used in ("0.03", "0.06"):
            assert (await asking.chat("sim:tokens=250", max_tokens=500)).status == 200
            await settled(asking, used)
        assert (await answered(asking, 501)).code == "budget_exceeded"
        assert (await answered(asking, 500)).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_one_request_after_the_other_is_not_in_its_own_way(tmp_path: Path, stream: bool) -> None:
    """Whoever has the last byte of an answer may ask again: what it held, and its seat, are not somebody else's."""
    async with one(tmp_path, budgets=[limit(0.15)]) as (_, asking):
        key = await key_of(asking, "alone", concurrency=1)
        for _ in range(12):
            reply = await asking.chat("sim:tokens=1", max_tokens=1_000, stream=stream, key=key["key"])
            assert reply.status == 200, reply.text


async def test_who_left_is_charged_no_more_than_was_held(tmp_path: Path) -> None:
    async with simulate("anthropic", slow("anthropic", 3.0)) as sim:
        async with one(tmp_path, sims={"anthropic": sim}, budgets=[limit(0.12)]) as (service, asking):
            task = asyncio.get_running_loop().create_task(answered(asking, 1_000))

            async def asked() -> bool:
                return made(service, "anthropic") == 1

            await within(SECONDS, asked, "the upstream has the request")
            task.cancel()

            async def is_over() -> bool:
                return (await standing(asking))[1] == 0 and bool(service.lines())

            await within(SECONDS, is_over, "nothing is held any more")
            used, _ = await standing(asking)
            assert used == Decimal("0.12"), "its server finishes what nobody reads, and bills it"


# --- the same bill ----------------------------------------------------------------------------------------------------


async def cost_of(client: openai.AsyncOpenAI, stream: bool, **more: Any) -> tuple[str, Decimal, int]:
    """Who answered one turn of a conversation, what it cost by its own word, and its output tokens."""
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What did I say?"},
        {"role": "assistant", "content": "Nothing yet."},
        {"role": "user", "content": "sim:tokens=40 " + "and on " * 20},
    ]
    asked: dict[str, Any] = {"model": "auto", "messages": messages, "max_tokens": 200, **more}
    if not stream:
        reply = await client.chat.completions.create(**asked)
        usage, said = reply.usage, (reply.model_extra or {})["tierway"]
    else:
        chunks = [each async for each in await client.chat.completions.create(**asked, stream=True)]
        usage, said = chunks[-1].usage, (chunks[-1].model_extra or {})["tierway"]
    return said["model"], Decimal(str(said["cost_usd"])), 0 if usage is None else usage.completion_tokens


FALLS: Final = {
    "straight": (),
    "its first model cannot serve": ("unavailable", "unavailable"),
    "its first model breaks before it begins": ("empty_error", "empty_error"),
    "its first model is throttled": ("throttled",),
}


@pytest.mark.parametrize("fall", FALLS)
async def test_streamed_or_not_it_costs_the_same_and_all_books_agree(tmp_path: Path, fall: str) -> None:
    """The reply, the list of costs and the budget say the same amount, to the nano-dollar, whichever way it came."""
    price = {"input": 3, "output": 15}
    models = {OTHER: {**ANY, "price": {"input": 1, "output": 2}}, CLAUDE: {**ANY, "price": price}}
    async with one(tmp_path, "openai", "anthropic", models=models, budgets=[limit(1)]) as (service, asking):
        client, costs = service.openai(), list[Decimal]()
        for stream, usage in ((False, None), (True, {"include_usage": True}), (True, None)):
            for fault in FALLS[fall]:
                service.sims["openai"].fault_next(fault)
            more: dict[str, Any] = {} if usage is None else {"stream_options": usage}
            model, cost, tokens = await cost_of(client, stream, **more)
            assert model == (CLAUDE if FALLS[fall] else OTHER)
            assert tokens in (0, 40) and cost > 0
            costs.append(cost)
        assert len(set(costs)) == 1, costs
        await settled(asking, str(sum(costs)))
        listed = await asking.admin("GET", "costs?group_by=model")
        assert Decimal(str(listed["total"]["cost_usd"])) == sum(costs)
        by_model = {row["model"]: Decimal(str(row["cost_usd"])) for row in listed["data"] if row["cost_usd"]}
        assert by_model == {(CLAUDE if FALLS[fall] else OTHER): sum(costs)}
        logged = [Decimal(str(line["cost_usd"])) for line in service.lines()]
        assert logged == costs
        billed = await service.metric("tierway_cost_usd_total")
        assert billed == pytest.approx(float(sum(costs)))


# --- who is bound -----------------------------------------------------------------------------------------------------


async def key_of(asking: Asking, name: str, **more: Any) -> dict[str, Any]:
    return await asking.admin("POST", "keys", {"name": name, **more}, status=201)


@pytest.mark.parametrize("scope", ["tenant", "key", "agent", "session"])
async def test_each_has_its_own(tmp_path: Path, scope: str) -> None:
    """One agent, team or conversation that runs away must not use up what the others may spend."""
    rules = [limit(0.12, scope, match="*")]
    async with one(tmp_path, budgets=rules) as (_, asking):
        keys = [(await key_of(asking, name, tenant=f"team-{name}"))["key"] for name in ("one", "two")]
        who: list[dict[str, Any]] = [{"key": key} for key in keys]
        if scope in ("agent", "session"):
            who = [{"key": keys[0], scope: name} for name in ("one", "two")]
        for each in who:
            assert (await answered(asking, 1_000, **each)).status == 200
            refused = await answered(asking, 100, **each)
            assert refused.code == "budget_exceeded" and f"{scope} budget" in refused.text, refused.text

        async def shown() -> bool:
            data = (await asking.admin("GET", f"budgets?scope={scope}"))["data"]
            return [state["used"] for state in data if state["used"]] == [0.12, 0.12]

        await within(SECONDS, shown, "the operator sees both")


async def test_a_shared_limit_counts_all_that_match(tmp_path: Path) -> None:
    rules = [limit(0.12, "agent", match="qe-*", shared=True)]
    async with one(tmp_path, budgets=rules) as (_, asking):
        assert (await answered(asking, 1_000, agent="qe-1")).status == 200
        assert (await answered(asking, 1, agent="qe-2")).code == "budget_exceeded"
        assert (await answered(asking, 1, agent="dev-1")).status == 200


async def test_the_budgets_of_a_key(tmp_path: Path) -> None:
    """The narrowest counts, and the wider ones as well."""
    async with one(tmp_path, budgets=[limit(0.18)]) as (_, asking):
        small = await key_of(asking, "small", budgets={"day": 0.06, "total": 0.12})
        large = await key_of(asking, "large", budgets={"month": 5})
        assert (await answered(asking, 500, key=small["key"])).status == 200
        refused = await answered(asking, 500, key=small["key"])
        assert refused.status == 429 and f"key:{small['id']}:day" in refused.text
        assert (await answered(asking, 1_001, key=large["key"])).code == "budget_exceeded"
        assert (await answered(asking, 1_000, key=large["key"])).status == 200
        await settled(asking, "0.18")
        await settled(asking, "0.12", f"key:{large['id']}:month")
        await settled(asking, "0.06", f"key:{small['id']}:total")


async def test_a_session_has_a_limit_of_its_callers_choice(tmp_path: Path) -> None:
    async with one(tmp_path) as (_, asking):
        bound: dict[str, Any] = {"session": "s1", "session_max_cost": 0.15}
        assert (await answered(asking, 1_000, **bound)).status == 200
        refused = await answered(asking, 300, **bound)
        assert refused.code == "budget_exceeded" and "session:s1:total" in refused.text
        assert (await answered(asking, 300, session="s2", session_max_cost=0.15)).status == 200
        assert (await answered(asking, 300, session="s1")).status == 200, "the limit was of that request"


# --- one request, all it causes ---------------------------------------------------------------------------------------


async def test_a_request_has_a_limit_for_all_its_attempts(tmp_path: Path) -> None:
    """Its first attempt broke off and is billed all the same; what is left does for a cheaper model alone."""
    cheap = {"price": {"input": 0, "output": 12}}
    async with one(tmp_path, "openai", "anthropic", models=paid(anthropic=cheap)) as (service, asking):
        service.sims["anthropic"].fault_next("unavailable", 2)
        reply = await answered(asking, 1_000, max_cost=0.13)
        assert reply.model == OTHER and reply.headers["x-tierway-cost-usd"] == "0.120000000"
        service.sims["anthropic"].fault_next("cut_clean", 3)
        reply = await answered(asking, 1_000, max_cost=0.13)
        assert (reply.status, reply.code) == (502, "upstream_failed"), "0.012 of it are gone, and 0.12 do not fit"
        assert made(service, "openai") == 1
        spent = Decimal("0.12") + (made(service, "anthropic") - 2) * Decimal("0.012")
        await settled(asking, str(spent))
        before = made(service, "openai")
        service.sims["anthropic"].no_faults()
        assert (await answered(asking, 1_000, max_cost=0.011)).code == "budget_exceeded"
        assert (await answered(asking, 1_000, max_cost=0.012)).model == CLAUDE
        assert made(service, "openai") == before


async def test_retries_count_on_the_limit_of_their_request(tmp_path: Path) -> None:
    """A model that breaks off again and again is not paid for again and again."""
    async with one(tmp_path) as (service, asking):
        service.sims["anthropic"].fault_always("cut_clean")
        assert (await answered(asking, 1_000, max_cost=0.2)).status == 502
        assert made(service, "anthropic") == 1
        await settled(asking, "0.12")


# --- what does not fit ------------------------------------------------------------------------------------------------


async def test_what_does_not_fit_goes_to_a_cheaper_model(tmp_path: Path) -> None:
    """The one that was chosen, as long as there is money for it; then the next that can be paid."""
    cheap = {"price": {"input": 0, "output": 12}}
    routing = {"default_model": CLAUDE}
    options: dict[str, Any] = {"models": paid(openai=cheap), "budgets": [limit(0.144)], "routing": routing}
    environ = {"FEATURE_MULTI_MODEL_ROUTER": "false"}
    models = options["models"]
    models[CLAUDE]["fallback"] = [OTHER]
    async with one(tmp_path, "openai", "anthropic", environ=environ, **options) as (service, asking):
        replies = []
        for used in ("0.12", "0.132", "0.144"):
            replies.append(await answered(asking, 1_000))
            await settled(asking, used)
        assert [reply.model for reply in replies] == [CLAUDE, OTHER, OTHER]
        assert replies[1].headers["x-tierway-fallback"] == CLAUDE
        decision = await asking.decision(replies[1].id)
        assert decision["passed_over"] == "budget_exceeded" and "a limit on spend" in decision["summary"]
        assert await service.metric("tierway_fallbacks_total", cause="budget_exceeded") == 2
        assert (await answered(asking, 1_000)).code == "budget_exceeded"
        assert made(service, "anthropic") == 1


async def test_an_answer_of_no_stated_length_is_made_shorter(tmp_path: Path) -> None:
    """Who named no length gets what is left, and the upstream is told so; who named one gets it, or a refusal."""
    async with one(tmp_path, budgets=[limit(0.18)]) as (service, asking):
        reply = await asking.chat("sim:tokens=2000", stream=True)
        assert reply.status == 200 and not reply.broke
        assert service.sims["anthropic"].asked[-1].fields["max_tokens"] == 1_500
        await settled(asking, "0.18")
        assert (await asking.chat("Hello")).code == "budget_exceeded", "nothing worth asking for is left"


async def test_where_it_is_allowed_every_answer_is_made_shorter(tmp_path: Path) -> None:
    options: dict[str, Any] = {"budgets": [limit(0.18)], "budget": {"lower_max_tokens": True}}
    async with one(tmp_path, **options) as (service, asking):
        client = service.openai()
        messages: Any = [{"role": "user", "content": "sim:tokens=2000"}]
        reply = await client.chat.completions.create(model="auto", messages=messages, max_tokens=2_000)
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage is not None and reply.usage.completion_tokens == 1_500
        await settled(asking, "0.18")


async def test_the_official_client_is_told_and_does_not_ask_again(tmp_path: Path) -> None:
    """An agent's library that repeats what no budget allows would only heat the room."""
    async with one(tmp_path, budgets=[limit(0.1)]) as (service, _):
        client = service.openai(max_retries=5)
        messages: Any = [{"role": "user", "content": "Hello"}]
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(model="auto", messages=messages, max_tokens=1_000, stream=stream)
            error = caught.value
            assert (error.status_code, error.code, error.type) == (429, "budget_exceeded", "insufficient_quota")
            assert error.response.headers["x-should-retry"] == "false"
            for words in (DAY, "0.10 USD", "0.00 USD are used"):
                assert words in str(error)
        assert len(service.lines()) == 2 and made(service, "anthropic") == 0
        assert await service.metric("tierway_budget_denied_total", scope="global") == 2


async def test_an_unknown_price_is_refused_by_name(tmp_path: Path) -> None:
    """What nobody knows the price of could cost anything: it is not zero."""
    models = {CLAUDE: ANY, LOCAL: ANY}
    async with one(tmp_path, "ollama", "anthropic", models=models, budgets=[limit(5)]) as (service, asking):
        reply = await asking.chat(model=CLAUDE)
        assert reply.code == "budget_exceeded" and f"models.{CLAUDE}.price" in reply.text
        assert made(service, "anthropic") == 0
        assert (await asking.chat(model=LOCAL)).status == 200
    async with one(tmp_path, "ollama", "anthropic", models=models) as (_, asking):
        assert (await asking.chat(model=CLAUDE)).status == 200, "without a budget nobody needs to know"


async def test_a_budget_that_is_spent_leaves_the_free_models(tmp_path: Path) -> None:
    models = {CLAUDE: {**ANY, **PRICED}, LOCAL: ANY}
    async with one(tmp_path, "anthropic", "ollama", models=models, budgets=[limit(0)]) as (_, asking):
        assert (await asking.chat(model=CLAUDE)).code == "budget_exceeded"
        for stream in (False, True):
            reply = await asking.chat(stream=stream)
            assert (reply.status, reply.model) == (200, LOCAL)
        assert await standing(asking) == (Decimal(0), Decimal(0))


async def test_without_the_guard_spend_is_counted_and_nothing_refused(tmp_path: Path) -> None:
    environ = {"FEATURE_BUDGET_GUARD": "false"}
    async with one(tmp_path, budgets=[limit(0.1)], environ=environ) as (_, asking):
        for _ in range(2):
            assert (await answered(asking, 1_000)).status == 200
        await settled(asking, "0.24")


# --- streams ----------------------------------------------------------------------------------------------------------


class Heedless(Simulated):
    """Honours no limit that it is asked to keep."""

    def answer(self, call: Call) -> Script:
        body = orjson.dumps({**call.fields, "max_tokens": 30_000}) if call.fields else call.raw
        return super().answer(Call(call.method, call.path, call.query, call.headers, body, call.keep_alive))


async def streamed(service: Service, said: str, **more: Any) -> tuple[str | None, int, dict[str, Any]]:
    """How a stream ended, how many pieces of text came, and what the gateway said of it at the end."""
    messages: Any = [{"role": "user", "content": said}]
    stream = await service.openai().chat.completions.create(model="auto", messages=messages, stream=True, **more)
    finish, pieces, last = None, 0, dict[str, Any]()
    async for chunk in stream:
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            pieces += bool(choice.delta.content)
        last = (chunk.model_extra or {}).get("tierway", last)
    return finish, pieces, last


async def test_a_stream_goes_on_as_long_as_there_is_money(tmp_path: Path) -> None:
    """It holds a slice at a time. One that outgrows what is left ends cleanly and says why; the next is refused."""
    options: dict[str, Any] = {"budgets": [limit(0.36)], "budget": {"estimate": "calibrated"}}
    async with simulate("anthropic") as sim, one(tmp_path, sims={"anthropic": sim}, **options) as (service, asking):
        finish, pieces, said = await streamed(service, "sim:tokens=1500")
        assert (finish, pieces) == ("stop", 1_500) and "stopped" not in said
        await settled(asking, "0.18")
        service.sims["anthropic"].fault_always("slow_drip", size=600, seconds=0.001)
        finish, pieces, said = await streamed(service, "sim:tokens=20000")
        assert finish == "length" and said["stopped"] == "budget"
        assert pieces <= 1_501, "no more than there was money for, and the one that was too many"

        async def let_go() -> bool:
            return (await standing(asking))[1] == 0

        await within(SECONDS, let_go, "nothing is held")
        used, _ = await standing(asking)
        assert Decimal("0.2") < used <= Decimal("0.36")


async def test_an_upstream_that_honours_no_limit_is_cut_at_ours(tmp_path: Path) -> None:
    """It was asked for 500 tokens and makes 20,000. Whoever pays by the token pays for what was agreed on."""
    sim = Heedless("openai")
    await sim.start()
    try:
        sim.fault_always("slow_drip", size=2_000, seconds=0.001)
        models = {OTHER: {**ANY, **PRICED}}
        async with one(tmp_path, "openai", sims={"openai": sim}, models=models, budgets=[limit(0.1)]) as (
            service,
            asking,
        ):
            finish, pieces, said = await streamed(service, "sim:tokens=20000", max_tokens=500)
            assert finish == "length" and said["stopped"] == "budget" and pieces <= 501
            await settled(asking, "0.06")
    finally:
        await sim.close()
    assert not sim.errors


# --- an operator, and several gateways --------------------------------------------------------------------------------


async def test_a_changed_limit_counts_on_every_gateway(tmp_path: Path) -> None:
    """No restart, no redeployment: whoever finds out at night that an agent runs wild stops it at once, everywhere."""
    async with replicas(
        tmp_path, 2, ("anthropic",), models={CLAUDE: {**ANY, **PRICED}}, budgets=[limit(0.05)]
    ) as gateways:
        (_, first), (_, second) = gateways
        assert (await answered(second, 500)).code == "budget_exceeded"
        await first.admin("PUT", f"budgets/{DAY}", {"limit": 0.12})

        async def allowed() -> bool:
            return (await answered(second, 500)).status == 200

        await within(SECONDS, allowed, "the other gateway knows of it")
        assert (await answered(first, 500)).status == 200, "what the other spent counts here"
        assert (await answered(first, 1)).code == "budget_exceeded"
        await first.admin("DELETE", f"budgets/{DAY}")
        await settled(second, "0.12")


class Hook:
    """Takes whatever is posted to it."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split()[0])
        self.heard.append(orjson.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def test_somebody_is_told_once_when_a_limit_is_near_and_when_it_is_reached(tmp_path: Path) -> None:
    """Two gateways, one webhook, one message each: nobody reads the third of the same."""
    hook = Hook()
    async with hook.listening() as url:
        rules: dict[str, Any] = {"budgets": [limit(0.12)], "budget": {"webhook": url}}
        async with replicas(tmp_path, 2, ("anthropic",), models={CLAUDE: {**ANY, **PRICED}}, **rules) as gateways:
            for tokens, levels in ((500, []), (400, ["80%"]), (100, ["80%", "100%"])):
                assert (await answered(gateways[0][1], tokens)).status == 200

                async def told(wanted: int = len(levels)) -> bool:
                    return len(hook.heard) >= wanted

                await within(20, told, f"{levels} are told")
                assert [each["level"] for each in hook.heard] == levels
            (service, _), (other, second) = gateways
            assert (await answered(second, 500)).code == "budget_exceeded"
            await asyncio.sleep(2.5)  # longer than gateways take to look again
            assert [each["level"] for each in hook.heard] == ["80%", "100%"]
            assert {each["budget"] for each in hook.heard} == {DAY} and hook.heard[-1]["limit_usd"] == 0.12
            counted = [await each.metric("tierway_budget_alerts_total") for each in (service, other)]
            assert sum(counted) == 2

            async def shown() -> bool:
                return await service.metric("tierway_budget_used_usd", scope="global", period="day") == 0.12

            await within(SECONDS, shown, "the gauge shows it")


# --- how often a key may ask ------------------------------------------------------------------------------------------


async def test_requests_a_minute(tmp_path: Path) -> None:
    async with one(tmp_path) as (service, asking):
        key = (await key_of(asking, "few", requests_per_minute=2))["key"]
        replies = [await answered(asking, 10, key=key) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        left = [reply.headers["x-ratelimit-remaining-requests"] for reply in replies]
        assert left[:2] == ["1", "0"] and replies[0].headers["x-ratelimit-limit-requests"] == "2"
        assert replies[2].code == "rate_limit_exceeded" and 0 < float(replies[2].headers["retry-after"]) <= 30
        with pytest.raises(openai.RateLimitError, match="2 requests a minute"):
            await service.openai(api_key=key).chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hi"}]
            )
        assert made(service, "anthropic") == 2


async def test_tokens_a_minute_are_given_back(tmp_path: Path) -> None:
    """Who asks for room and needs a tenth of it may ask again; who needs too much is told that it never fits."""
    async with one(tmp_path) as (_, asking):
        key = (await key_of(asking, "few", tokens_per_minute=1_000))["key"]
        too_large = await asking.chat("Hi", max_tokens=2_000, key=key)
        assert too_large.status == 429 and "too large" in too_large.text
        reply = await asking.chat("sim:tokens=100", max_tokens=900, key=key)
        assert reply.status == 200 and reply.headers["x-ratelimit-limit-tokens"] == "1000"
        assert int(reply.headers["x-ratelimit-remaining-tokens"]) < 200, "as long as it runs"

        async def again() -> bool:
            return (await asking.chat("sim:tokens=5", max_tokens=700, key=key)).status == 200

        await within(SECONDS, again, "what was not used is there again, much sooner than a minute brings it")


async def test_requests_at_a_time(tmp_path: Path) -> None:
    async with simulate("anthropic", slow("anthropic", 2.5)) as sim:
        async with one(tmp_path, sims={"anthropic": sim}) as (service, asking):
            key = (await key_of(asking, "narrow", concurrency=2))["key"]
            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(answered(asking, 10, key=key)) for _ in range(2)]

            async def asked() -> bool:
                return made(service, "anthropic") == 2

            await within(SECONDS, asked, "both run")
            refused = await answered(asking, 10, key=key)
            assert refused.code == "rate_limit_exceeded" and "retry-after" in refused.headers
            assert [(await task).status for task in tasks] == [200, 200]
            assert made(service, "anthropic") == 2

            async def seated() -> bool:
                return (await answered(asking, 10, key=key)).status == 200

            await within(SECONDS, seated, "a seat is free again")
