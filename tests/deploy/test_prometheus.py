"""A real Prometheus over a gateway under mixed load: what the dashboards and alerts ask is answered."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import yaml

from app.simulator.server import simulate
from grafana.generate import DASHBOARDS
from tests.deploy.declared import LISTED, NAME, RULES, alerts, named, recorded
from tests.deploy.promtool import program
from tests.flows.asking import ADMIN, ANY, Asking, within
from tests.flows.service import MODELS, Service, gateway, upstream

KINDS: Final = ("ollama", "vllm", "anthropic")
VARIABLES: Final = {"$__rate_interval": "10s", "$__range": "10s", "$what_if": "10"}
PAID: Final = MODELS["anthropic"]
NOTES: Final = {**{MODELS[kind]: ANY for kind in KINDS}, PAID: {**ANY, "price": {"input": 4.0, "output": 20.0}}}
BUDGETS: Final = [
    {"scope": "global", "period": "day", "limit": 50.0},
    {"scope": "session", "period": "total", "limit": 2.0},
]
SELECTOR: Final = re.compile(r"[{,]\s*(\w+)(=~|!~|!=|=)\"([^\"]*)\"")
FILTER: Final = re.compile(r"[<>=]=?\s*\(?[\d.(]|unless|\band\b")


class Prometheus:
    def __init__(self, url: str) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=20)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def ready(self) -> bool:
        try:
            return (await self._http.get("/-/ready")).status_code == 200
        except httpx2.HTTPError:
            return False

    async def ask(self, expr: str) -> list[dict[str, Any]]:
        """Raises with Prometheus' own words where an expression is wrong."""
        for variable, value in VARIABLES.items():
            expr = expr.replace(variable, value)
        reply = await self._http.post("/api/v1/query", data={"query": expr})
        assert reply.status_code == 200, f"{expr}: {reply.text}"
        data = reply.json()["data"]
        return [data] if data["resultType"] == "scalar" else list(data["result"])

    async def has(self, expr: str) -> bool:
        return bool(await self.ask(expr))


@contextlib.asynccontextmanager
async def prometheus(folder: Path, targets: dict[str, str]) -> AsyncIterator[Prometheus]:
    """One that scrapes and judges every second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "*.yaml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [url.removeprefix("http://")]}]}
            for job, url in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    client = Prometheus(f"http://127.0.0.1:{port}")
    try:
        await within(30, client.ready, "Prometheus is ready")
        yield client
    finally:
        await client.aclose()
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def load(asking: Asking) -> None:
    """One round of everything: streams and whole answers, each upstream, mistakes, sessions, feedback."""
    replies = [
        await asking.chat("What is the capital of Portugal?"),
        await asking.chat("Write a haiku.", stream=True),
        await asking.chat("Hello", PAID),
        await asking.chat("Hello", PAID, stream=True),
        await asking.chat("Hello", MODELS["vllm"], session="round-and-round"),
    ]
    assert [reply.status for reply in replies] == [200] * 5, [reply.text for reply in replies]
    assert await asking.feedback(replies[0].id, 1.0) == 202
    assert (await asking.chat("Hello", "no-such-model")).code == "model_not_found"
    assert (await asking.chat("Prove it.", PAID, max_cost="0.0000001")).code == "budget_exceeded"


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[Prometheus, Asking, Service]]:
    async with contextlib.AsyncExitStack() as stack:
        sims = {kind: await stack.enter_async_context(simulate(kind)) for kind in KINDS}
        more: dict[str, dict[str, Any]] = {"ollama": {"cost_per_hour": 1.0}}
        upstreams = {kind: upstream(sim, **more.get(kind, {})) for kind, sim in sims.items()}
        environ = {"ANTHROPIC_API_KEY": "simulated", **ADMIN}
        service = await stack.enter_async_context(
            gateway(folder, upstreams, sims, environ=environ, models=NOTES, budgets=BUDGETS)
        )
        asking = await stack.enter_async_context(Asking(service))
        targets = {"tierway": service.url, "vllm": sims["vllm"].base_url}
        yield await stack.enter_async_context(prometheus(folder, targets)), asking, service


class Silence:
    """Why an expression may be empty: `why` follows what it names down to what the gateway itself exposes."""

    def __init__(self, prometheus: Prometheus, exposed: str) -> None:
        self._prometheus = prometheus
        self._exposed = exposed

    async def why(self, expr: str) -> str | None:
        """None where nothing explains it."""
        for name in named(expr):
            if name in recorded() and not await self._prometheus.has(name):
                return await self.why(recorded()[name])
        for name, labels in selectors(expr):
            if not await self._prometheus.has(f"{name}{labels}") and self._never_happened(name, labels):
                return f"{name}{labels} never happened"
        if "offset" in expr:
            return "it looks further back than this test lasts"
        return "all it names is there, and none of it passes its condition" if FILTER.search(expr) else None

    def _never_happened(self, name: str, labels: str) -> bool:
        """The gateway declares the metric, and no sample of it has these labels."""
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if not re.search(rf"^# TYPE {family}(_total)? ", self._exposed, re.MULTILINE):
            return False
        samples = [line for line in self._exposed.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        wanted = [f'{label}="{value}"' for label, compares, value in SELECTOR.findall(labels) if compares == "="]
        return not any(all(one in sample for one in wanted) for sample in samples)


def selectors(expr: str) -> list[tuple[str, str]]:
    return [(name, labels) for name, labels in NAME.findall(LISTED.sub("", expr)) if name not in recorded()]


EVERY: Final = {
    **{
        f"{dashboard.uid}: {panel.title}: {query.legend}": query.expr
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
    },
    **{name: rule["expr"] for name, rule in alerts().items()},
    **recorded(),
}


@pytest.mark.timeout(400)
async def test_every_query_and_alert_is_answered(tmp_path: Path) -> None:
    """Non-empty, or empty because it never happened: then the gateway declares the metric and has no such sample."""
    program("prometheus")
    async with watched(tmp_path) as (prometheus, asking, service):
        service.sims["ollama"].fault_next("server_error", times=4)
        assert (await asking.chat("Somebody else has to answer this.")).status == 200
        service.sims["ollama"].no_faults()

        async def scraped_twice() -> bool:
            await load(asking)
            return await prometheus.has('sum(rate(tierway_requests_total{status="200"}[10s])) > 0') and all(
                [await prometheus.has(name) for name in ("tierway:availability:ratio5m", "tierway:errors:ratio5m")]
            )

        await within(120, scraped_twice, "there are rates")
        answered: list[str] = []
        silent: dict[str, str] = {}
        unexplained: list[str] = []

        async def all_explained() -> bool:
            """What is exposed and what was scraped are of two moments: looked at again until they agree."""
            await load(asking)
            async with httpx2.AsyncClient() as client:
                silence = Silence(prometheus, (await client.get(f"{service.url}/metrics")).text)
            for found in (answered, silent, unexplained):
                found.clear()
            for what, expr in EVERY.items():
                if await prometheus.has(expr):
                    answered.append(what)
                elif (why := await silence.why(expr)) is None:
                    unexplained.append(f"{what}: {expr}")
                else:
                    silent[what] = why
            return not unexplained and len([each for each in answered if each.startswith("tierway-")]) >= 100

        with contextlib.suppress(AssertionError):
            await within(120, all_explained, "every query is answered, or silent for a reason")
        assert not unexplained, "\n".join(unexplained)
        firing = {alert["metric"]["alertname"] for alert in await prometheus.ask('ALERTS{alertstate="firing"}')}
        assert firing <= set(alerts()), firing
        shown = [what for what in answered if what.startswith("tierway-")]
        assert len(shown) >= 100, "\n".join(f"{what}: {why}" for what, why in silent.items())
