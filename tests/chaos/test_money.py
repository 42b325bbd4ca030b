"""Money under everything at once: four gateways on one store, mixed requests over limits that are too tight for them,
and processes that die at random.

At every look no limit is passed; at the end every call that the provider saw is in the books once, nothing is held, and
its own bill is no higher than what was charged. `make chaos` does it for minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx2
import orjson
import pytest

from app.core.clock import SystemClock
from app.core.errors import GatewayError
from app.core.spending import Counter as Limit
from app.core.spending import Lease
from app.core.tasks import TaskOwner
from app.spend.entries import EXPIRED, SETTLED, Entry
from app.spend.journal import entries, read
from app.spend.outbox import left_in
from app.spend.rebuild import books_of
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.errors import StoreUnusable
from app.store.folder import prepare
from app.store.ledger import HELD, LedgerStore, Settled, WrongEpoch, WrongPeriod
from app.store.opening import open_store
from tests.chaos.fleet import ADMIN_KEY, Fleet, Strikes
from tests.chaos.provider import Provider, prices
from tests.chaos.short_leases import LEASE_MS
from tests.cli.conftest import environment
from tests.flows.asking import within

REQUESTS: Final = int(os.environ.get("CHAOS_REQUESTS", "600"))
SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
LONG: Final = REQUESTS > 2_000
CLIENTS: Final = 24
USD_PER_REQUEST: Final = 0.009
"""About what they cost on average; limits are for fewer than there are."""
SETTLE_SECONDS: Final = 60.0
clock = SystemClock()


def config(url: str) -> dict[str, Any]:
    total = REQUESTS * USD_PER_REQUEST
    scopes = {
        "global": (total * 0.6, "*"),
        "tenant": (total * 0.4, "*"),
        "agent": (total * 0.25, "agent-*"),
        "session": (0.1, "*"),
    }
    timeouts = {"connect": 5, "first_token": 10, "idle": 10, "total": 30}
    return {
        "upstreams": {
            name: {"kind": "openai", "base_url": f"{url}/{name}", "timeouts": timeouts, "max_concurrency": 64}
            for name in prices()
        },
        "models": {f"{name}/{name}": {"complexity": [0, 1], "price": price} for name, price in prices().items()},
        "budgets": [
            {"scope": scope, "match": match, "period": "total", "limit": round(usd, 4)}
            for scope, (usd, match) in scopes.items()
        ],
    }


class Clients:
    """They ask until all requests are asked. `whole` are the ids of those that were answered to the end."""

    def __init__(self, fleet: Fleet, keys: Sequence[str], dice: Random) -> None:
        self.whole: set[str] = set()
        self.replies: Counter[str] = Counter()
        self._fleet = fleet
        self._keys = keys
        self._dice = dice
        self._numbers = itertools.count()

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        while (number := next(self._numbers)) < REQUESTS:
            id = f"chaos-{number}"
            patience = self._dice.uniform(0.02, 0.6) if self._dice.random() < 0.15 else 60.0
            head = self._head(id, number)
            try:
                async with asyncio.timeout(patience):
                    said = await self._ask(head)
            except TimeoutError:
                said = "left"
            except (OSError, asyncio.IncompleteReadError):
                said = "cut off"
            self.replies[said] += 1
            if said == "200":
                self.whole.add(id)
            elif said == "503":  # as its retry-after asks for, in short
                await asyncio.sleep(0.2)

    def _head(self, id: str, number: int) -> bytes:
        """The whole request."""
        dice = self._dice
        most = dice.choice((50, 100, 200, 200, 400))
        body: dict[str, Any] = {
            "model": dice.choice(("auto", "auto", "dear/dear", "cheap/cheap")),
            "messages": [{"role": "user", "content": f"{number} tokens={dice.randrange(1, most + 50)}"}],
            "max_tokens": most,
            "stream": dice.random() < 0.5,
        }
        headers = {
            "host": "gateway",
            "connection": "close",
            "content-type": "application/json",
            "authorization": f"Bearer {dice.choice(self._keys)}",
            "x-request-id": id,
            "x-tierway-agent": f"agent-{number % 3}",
        }
        if dice.random() < 0.1:
            headers["x-tierway-session"] = f"session-{number % 50}"
        if dice.random() < 0.1:
            headers["x-tierway-max-cost"] = str(dice.choice((0.005, 0.02, 0.05)))
        data = orjson.dumps(body)
        rows = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "content-length": len(data)}.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{rows}\r\n".encode() + data

    async def _ask(self, whole: bytes) -> str:
        """The status, or `broken` for an answer that did not come to its end."""
        while not (up := sorted(self._fleet.ports.keys() - self._fleet.frozen)):
            await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._fleet.ports[self._dice.choice(up)])
        try:
            writer.write(whole)
            head = await reader.readuntil(b"\r\n\r\n")
            rest = await reader.read(-1)
        finally:
            writer.transport.abort()
        status = head.split()[1].decode()
        streams = b"text/event-stream" in head
        if status == "200" and not (b"[DONE]" in rest if streams else rest.rstrip().endswith(b"}")):
            return "broken"
        return status


class Onlooker:
    """Looks at the counters again and again, and does what careless or hostile neighbours of the store would do:
    settles twice, and asks in the wrong period and epoch. `passed` are limits that were found passed."""

    def __init__(self, fleet: Fleet, store: Store, dice: Random) -> None:
        self.passed: list[tuple[Limit, int, int]] = []
        self.looks = self.doubled = self.strangers = 0
        self._calls = LedgerStore(store)
        self._folder = fleet.data / "ledger"
        self._limits: dict[str, Limit] = {}
        self._dice = dice

    async def run(self) -> None:
        while True:
            with contextlib.suppress(GatewayError):  # the store is away
                await self._look()
                await self._settle_again()
                await self._ask_wrongly()
            await asyncio.sleep(0.05)

    async def _look(self) -> None:
        for lease in await self._calls.held():
            self._limits.update((each.key, each) for each in lease.counters if each.limit_nano is not None)
        limits = [*self._limits.values()]
        wide = [each for each in limits if each.scope in ("global", "tenant", "key", "agent")]
        some = [*wide, *limits[-100:]]
        for limit, (used, held) in zip(some, await self._calls.used(some), strict=True):
            assert limit.limit_nano is not None
            if used + held > limit.limit_nano or min(used, held) < 0:
                self.passed.append((limit, used, held))
        self.looks += 1

    async def _settle_again(self) -> None:
        """What some journal says was settled."""
        files = sorted(self._folder.glob("journal-*.jsonl"))
        if not files:
            return
        settled = [
            entry for entry in read(self._dice.choice(files)) if entry.op == SETTLED and entry.final == "settled"
        ]
        for entry in self._dice.sample(settled[-200:], min(5, len(settled))):
            said = await self._calls.settle(entry.as_lease(), entry.amount_nano, entry.final, entry.cells)
            self.doubled += isinstance(said, Settled) and not said.applied

    async def _ask_wrongly(self) -> None:
        limits = list(self._limits.values())
        if not limits:
            return
        epoch, limit, now = await self._calls.epoch() or "", self._dice.choice(limits), int(clock.now() * 1_000)
        for wrong, counter, said in (
            (epoch, limit._replace(starts_ms=1, ends_ms=now - 1_000), WrongPeriod),
            (epoch, limit._replace(starts_ms=now + 600_000, ends_ms=now + 900_000), WrongPeriod),
            ("another", limit, WrongEpoch),
        ):
            lease = Lease(f"stranger-{self.strangers}", "stranger", "m", 1, (counter,), wrong)
            assert isinstance(await self._calls.admit(lease, lease_ms=LEASE_MS), said)
            self.strangers += 1


@contextlib.asynccontextmanager
async def beside(*coroutines: Any) -> AsyncIterator[None]:
    """These run meanwhile; what goes wrong there is raised at the end."""
    errors: list[BaseException] = []
    tasks = TaskOwner(lambda name, error: errors.append(error))
    for number, coroutine in enumerate(coroutines):
        tasks.spawn(coroutine, f"beside {number}")
    yield
    await tasks.cancel()
    assert not errors, errors


async def make_keys(port: int) -> list[str]:
    """Of two teams; one key has a limit of its own."""
    made: list[str] = []
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=30) as http:
        for team in ("one", "one", "two", "two"):
            spec: dict[str, Any] = {"name": team, "tenant": team}
            if not made:
                spec["budgets"] = {"total": round(REQUESTS * USD_PER_REQUEST * 0.1, 4)}
            reply = await http.post(f"http://127.0.0.1:{port}/admin/keys", json=spec)
            made.append(reply.json()["key"])
    return made


async def nothing_held(fleet: Fleet, store: Store) -> None:
    """The last lease is over, and nothing waits for the store."""

    async def is_so() -> bool:
        with contextlib.suppress(GatewayError):
            return not await LedgerStore(store).held() and not left_in(fleet.data / "ledger")
        return False

    await within(SETTLE_SECONDS, is_so, "nothing is held or waits")


async def verified(data: Path) -> str:
    line, pipe = [sys.executable, "-c", "from app.cli import main; main()"], asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *line, "ledger", "verify", "--json", stdout=pipe, stderr=pipe, env=environment(data)
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()
    return out.decode()


@pytest.mark.timeout(3_600 if LONG else 300)
async def test_no_limit_is_passed_and_no_cent_is_lost(tmp_path: Path) -> None:
    """The one promise on which all others stand: an owner who sets a limit sleeps well, whatever dies."""
    dice = Random(SEED)
    provider = Provider(SEED)
    async with provider.listening() as url:
        fleet = Fleet(tmp_path, 4, config(url))
        try:
            await fleet.start()
            clients = Clients(fleet, await make_keys(fleet.ports[0]), Random(dice.random()))
            store = await opened(fleet.data)
            onlooker = Onlooker(fleet, store, Random(dice.random()))
            strikes = Strikes(fleet, Random(dice.random()), every=3.0 if LONG else 1.2)
            async with beside(onlooker.run()):
                async with beside(strikes.run()):
                    await clients.run()
                await strikes.over()
                await nothing_held(fleet, store)
            await store.aclose()
            await fleet.end()
        finally:
            fleet.close()
    told = f"{clients.replies} {strikes.done} looks={onlooker.looks} doubled={onlooker.doubled}"
    assert not onlooker.passed, (onlooker.passed[:3], told)
    assert onlooker.looks > 5 and onlooker.strangers > 5 and clients.replies["200"] > REQUESTS / 10, told
    assert orjson.loads(await verified(fleet.data))["open_without_entry"] == 0
    await the_books_are_right(fleet.data, provider, clients)


async def opened(data: Path) -> Store:
    """The store while others keep it."""
    while True:
        store = Store(Address(path=prepare(data).socket), timeout=2.0)
        try:
            await store.open()
            return store
        except (StoreUnusable, GatewayError):
            await asyncio.sleep(0.1)


async def the_books_are_right(data: Path, provider: Provider, clients: Clients) -> None:
    leases = books_of(entries(data / "ledger")).leases
    assert all(entry.is_last_word for entry in leases.values()), "nothing is left open"
    await the_counters_are_the_sums(data, leases)
    by_root: dict[str, list[Entry]] = defaultdict(list)
    for entry in leases.values():
        by_root[entry.root].append(entry)
    calls: dict[str, list[int]] = defaultdict(list)
    for served in provider.served:
        calls[served.request_id].append(served.nano)
    unseen = 0
    for id, bills in calls.items():
        entered = by_root[id]
        assert len(entered) >= len(bills), f"a call of {id} is in no book"
        assert sum(bills) <= sum(each.amount_nano for each in entered), f"{id} was billed more than it was charged"
        if id in clients.whole and all(each.op != EXPIRED for each in entered):
            unseen += len(entered) - len(bills)
    assert unseen <= provider.closed, "only what was sent to a connection that was just closed was seen by nobody"
    whole = [served for served in provider.served if served.whole and served.request_id in clients.whole]
    alone = [served for served in whole if len(by_root[served.request_id]) == 1]
    exact = [served for served in alone if by_root[served.request_id][0].op == SETTLED]
    assert len(exact) > len(clients.whole) / 4
    assert all(by_root[served.request_id][0].amount_nano == served.nano for served in exact)


async def the_counters_are_the_sums(data: Path, leases: Mapping[str, Entry]) -> None:
    sums: Counter[Limit] = Counter()
    for entry in leases.values():
        for counter in entry.counters:
            sums[counter] += entry.amount_nano
    by_key: Counter[str] = Counter()
    for counter, nano in sums.items():
        by_key[counter.key] += nano
    async with open_store(None, data, timeout=10.0) as store:
        found = await LedgerStore(store).used(list(sums))
        for counter, (used, held) in zip(sums, found, strict=True):
            assert (used, held) == (by_key[counter.key], 0), counter
            assert counter.limit_nano is None or used <= counter.limit_nano, counter
        assert await store.call("ZCARD", layout.LEASES) == 0
        for id in leases:
            assert await store.call("HGET", layout.key("lease", id), "s") != HELD.encode(), id
