"""What money costs: CPU of admission and settlement where many share a call of the store, and how long admission takes
when several gateways ask the store at once.

`python -m bench.money` prints two tables. Both measure the gateway's own services on the embedded store; there is no
HTTP and no upstream. With `--client` it is one of those several gateways, and prints its times as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import uvloop

from app.config.schema import BudgetPolicy, BudgetRule
from app.core.caller import Caller
from app.core.card import Ability, Card
from app.core.clock import SystemClock
from app.core.messages import Message, TextPart
from app.core.money import Price, Tokens
from app.core.record import Attempt
from app.core.request import Request, Terms
from app.gateway.account import Account
from app.gateway.admission import Admission
from app.spend.budgets import Budgets
from app.spend.costs import Around, Costs, Place
from app.spend.dearest import Dearest
from app.spend.journal import Journal
from app.spend.ledger import Ledger
from app.spend.outbox import Outbox
from app.spend.remembered import Remembered
from app.store.ledger import LedgerStore
from app.store.opening import open_store
from bench.interleaved import ROOT
from bench.load import quantile
from bench.processes import CpuMeter, tree
from bench.report import markdown, written

CARD: Final = Card(
    *("bench/model", "model", "bench", "openai", False, frozenset({Ability.CHAT})),
    context_window=131_072,
    max_output=4_096,
    price=Price(1_000_000, 2_000_000, 100_000, 1_000_000, 1_000_000),
)
USED: Final = Tokens(prompt=50, completion=100)
LIMIT: Final = Decimal(1_000_000)
WITHIN_SECONDS: Final = 60.0
GOALS: Final = {"admission": 0.10, "settlement": 0.06}
GOAL_P99_MS: Final = 3.0


class Case(NamedTuple):
    """Which limits bind the requests."""

    name: str
    rules: tuple[BudgetRule, ...]
    caller: Caller


def _rule(scope: Any, period: Any) -> BudgetRule:
    return BudgetRule(scope=scope, period=period, limit=LIMIT)


RATED: Final = Caller(key_id="key_bench", name="bench", tenant="acme", requests_per_minute=60_000_000)
CASES: Final = (
    Case("a global budget, one rate", (_rule("global", "day"),), RATED),
    Case(
        "five budgets, two rates, a seat",
        (*(_rule(scope, "day") for scope in ("global", "tenant", "key", "agent")), _rule("key", "month")),
        replace(RATED, tokens_per_minute=60_000_000, concurrency=100_000),
    ),
)


def request(number: int) -> Request:
    name = f"bench-{os.getpid()}-{number}"
    return Request(
        model="auto",
        messages=(Message("user", (TextPart("Explain a process. " * 10),)),),
        terms=Terms(name, name, agent="bench"),
        dialect="chat",
        body={},
        needs=frozenset({Ability.CHAT}),
        input_bytes=200,
        max_tokens=100,
    )


@contextlib.asynccontextmanager
async def admission(data: Path, own: Path, case: Case) -> AsyncIterator[Admission]:
    """What a gateway asks for money, on the store of a data folder. `own` is where this one keeps its journal."""
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(None, data, timeout=WITHIN_SECONDS))
        clock = SystemClock()
        journal, outbox = Journal(own, clock), Outbox(own)
        await journal.open()
        stack.push_async_callback(journal.aclose)
        await outbox.open(journal.left_over)
        stack.push_async_callback(outbox.aclose)
        ledger = Ledger(
            LedgerStore(store),
            clock,
            journal,
            outbox,
            on_crash="full",
            over_reserved=lambda nano: None,
            alert=lambda counters: None,
        )
        await ledger.open(Remembered(own))
        around = Around(Dearest(lambda: (CARD,)), lambda upstream: Place("openai", False), {})
        yield Admission(
            ledger,
            Budgets(case.rules, BudgetPolicy()),
            calibration=None,
            clock=clock,
            guarded=lambda asked, caller: True,
            denied=lambda scope, counter: None,
            cells=Costs(store, clock, around).cells_of,
        )


async def admit(money: Admission, case: Case, number: int) -> Account:
    account = Account()
    await money.enter(account, case.caller, request(number), CARD, at_last=False)
    return account


async def settle(money: Admission, account: Account) -> None:
    """As the gateway does when an answer is whole and its usage known."""
    attempt = Attempt(CARD.id, CARD.upstream, "ok", None, 0.1, 250_000, USED, leased=True)
    account.ends(attempt, stands_in=False, told=True)
    await money.leave(account, USED.total)


# --- CPU -------------------------------------------------------------------------------------------------------------


class Spent(NamedTuple):
    """CPU-milliseconds of one call: of the gateway, and of the store's server."""

    gateway: float
    server: float


async def cpu(case: Case, connections: int, rounds: int) -> dict[str, Spent]:
    """So many requests at once, round after round: all admitted in one turn of the loop, then all settled in one."""
    with tempfile.TemporaryDirectory(prefix="bench-money-") as folder:
        async with admission(Path(folder, "data"), Path(folder, "own"), case) as money:
            servers = [pid for pid in tree(os.getpid()) if pid != os.getpid()]
            found: dict[str, list[Spent]] = {"admission": [], "settlement": [], "the loop itself": []}
            for turn in range(rounds + 1):
                seen = await _round(money, case, connections, turn, servers)
                for name, spent in seen.items() if turn else ():  # the first one warms up
                    found[name].append(spent)
    return {name: Spent(*(sum(each) / len(each) for each in zip(*all_, strict=True))) for name, all_ in found.items()}


async def _round(money: Admission, case: Case, connections: int, turn: int, servers: Sequence[int]) -> dict[str, Spent]:
    accounts: list[Account] = []

    async def admit_all() -> None:
        numbers = range(turn * connections, (turn + 1) * connections)
        accounts.extend(await asyncio.gather(*(admit(money, case, number) for number in numbers)))

    async def settle_all() -> None:
        await asyncio.gather(*(settle(money, account) for account in accounts))

    async def nothing() -> None:
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(connections)))

    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "admission": admit_all,
        "settlement": settle_all,
        "the loop itself": nothing,
    }
    return {name: await _spent(step, connections, servers) for name, step in steps.items()}


async def _spent(step: Callable[[], Awaitable[None]], calls: int, servers: Sequence[int]) -> Spent:
    meter, began = CpuMeter(servers), time.process_time()
    await step()
    return Spent((time.process_time() - began) / calls * 1e3, meter.seconds() / calls * 1e3)


def cpu_table(connections: int, rounds: int) -> str:
    rows = [["CPU-ms a request", "gateway", "store's server", "goal, gateway"]]
    for case in CASES:
        seen = uvloop.run(cpu(case, connections, rounds))
        for name, spent in seen.items():
            goal = GOALS.get(name)
            numbers = (written(each, 3) for each in spent)
            rows.append([f"{name}: {case.name}", *numbers, "-" if goal is None else f"{goal:.2f}"])
    return markdown(rows)


# --- waiting ---------------------------------------------------------------------------------------------------------


async def client(data: Path, own: Path, rate: float, seconds: float) -> list[float]:
    """Milliseconds that each admission took. Requests come at random moments, whether others are answered or not."""
    case, random_, took = CASES[0], random.Random(own.name), []
    async with admission(data, own, case) as money, asyncio.TaskGroup() as group:

        async def one(number: int) -> None:
            began = time.perf_counter()
            account = await admit(money, case, number)
            took.append((time.perf_counter() - began) * 1e3)
            await settle(money, account)

        await one(0)
        took.clear()
        due, number = time.perf_counter(), 0
        ends = due + seconds
        while due < ends:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            while due <= time.perf_counter() and due < ends:
                number += 1
                group.create_task(one(number))
                due += random_.expovariate(rate)
    return took


@contextlib.contextmanager
def keeping(data: Path, always: bool) -> Iterator[None]:
    """The store of that folder, in a process of its own, so that no client has it to look after."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from app.store.opening import open_store\n"
        "async def main():\n"
        f"    async with open_store(None, Path(sys.argv[1]), always={always}):\n"
        "        print(flush=True)\n"
        "        await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as keeper:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        try:
            yield
        finally:
            keeper.communicate()  # which ends its input, and so itself


def waits(clients: int, rate: float, seconds: float, always: bool) -> list[float]:
    """The times of all clients, in order. Raises `ChildProcessError` where one of them failed."""
    with tempfile.TemporaryDirectory(prefix="bench-money-") as folder, keeping(Path(folder, "data"), always):
        asked = [sys.executable, "-m", "bench.money", "--client", folder, "--seconds", str(seconds)]
        running = [
            subprocess.Popen(
                [*asked, "--rate", str(rate / clients), "--name", f"client-{number}"], stdout=subprocess.PIPE, cwd=ROOT
            )
            for number in range(clients)
        ]
        try:
            said = [each.communicate(timeout=seconds + WITHIN_SECONDS)[0] for each in running]
        finally:
            for each in running:
                if each.poll() is None:
                    each.send_signal(signal.SIGKILL)
                    each.wait()
        if any(each.returncode for each in running):
            raise ChildProcessError("a client failed; what it said stands above")
        return sorted(ms for each in said for ms in orjson.loads(each))


def waits_table(clients: int, rate: float, seconds: float) -> str:
    rows = [["admission, ms", "requests a second", "p50", "p90", "p99", "p99.9", "goal, p99"]]
    for name, always in (
        ("synced to the disk every second", False),
        ("every write synced before it is answered", True),
    ):
        found = waits(clients, rate, seconds, always)
        shares = (written(quantile(found, share), 2) for share in (0.5, 0.9, 0.99, 0.999))
        rows.append([f"{clients} clients, {name}", written(len(found) / seconds, 0), *shares, f"{GOAL_P99_MS:.0f}"])
    return markdown(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.money", description=__doc__.split("\n\n")[0])
    parser.add_argument("--connections", type=int, default=32, help="requests at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="how often (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="gateways that ask at once (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1_000, help="requests a second of all (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="for how long (default: %(default)s)")
    parser.add_argument("--client", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="client", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.client is not None:
        run = client(asked.client / "data", asked.client / asked.name, asked.rate, asked.seconds)
        print(orjson.dumps(uvloop.run(run)).decode())
        return
    print(cpu_table(asked.connections, asked.rounds))
    print()
    print(waits_table(asked.clients, asked.rate, asked.seconds))


if __name__ == "__main__":
    main()
