"""The gateway's own OpenAPI document, tried against the gateway: who makes a client from the document must meet nothing
that it does not tell of, and nothing that anybody can send may be answered with a fault of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import yaml

from tests.cli.conftest import Command, environment
from tests.cli.test_serve import url_of
from tests.flows.asking import ADMIN, ADMIN_KEY
from tests.fuzz.budget import SECONDS, SEED, TIMEOUT

pytestmark = pytest.mark.timeout(TIMEOUT)

CONFIG: Final[dict[str, Any]] = {
    "budgets": [
        {"scope": "global", "period": "day", "limit": 1_000_000},
        {"scope": "agent", "match": "*", "period": "day", "limit": 1_000_000},
    ],
    "routing": {"rollouts": {"trial": {"kind": "ab", "share": "10%", "to": {"strategy": "quality"}}}},
}
CHECKS: Final = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance", "unsupported_method", "allow_header_conformance"),
)
"""Nothing that sends wrong keys: whoever guesses is told to wait, which hides all else."""
WORDS: Final[dict[str, list[str]]] = {
    "flags": ["MULTI_MODEL_ROUTER", "STREAMING", "BUDGET_GUARD", "SESSIONS", "SHADOW", "LOCAL_MODELS"],
    "settings": ["strategy", "target_local", "max_local_latency", "default_model", "cloud"],
    "upstreams": ["sim-ollama", "sim-vllm", "sim-claude", "none"],
    "budgets": ["global:*:day", "agent:*:day", "key:none:day", "agent:a/b:day"],
    "rollouts": ["trial", "other"],
    "models": ["auto", "auto:cost", "sim-ollama/sim-small", "sim-claude/claude-sim-large", "tierway/static", "gpt-4o"],
    "requests": ["the-first", "none"],
    "sessions": ["the-first", "none", "a/b"],
    "days": ["2026-11-14", "2025-02-29", "7d", "0001-01-01", "9999-12-31"],
    "numbers": ["0", "1", "0.001", "1e308", "nan", "-1"],
}
ANSWERED: Final = ("/v1/chat/completions", "/v1/embeddings", "/v1/route")
EXPECTED: Final = ["2xx", "4xx", "503", "504"]
"""There, an operator may have switched everything off that could answer, and a caller may allow too little time."""
KNOWN: Final = {
    ("/admin/flags/{name}", "path.name"): "flags",
    ("/admin/settings/{name}", "path.name"): "settings",
    ("/admin/upstreams/{name}/drain", "path.name"): "upstreams",
    ("/admin/upstreams/{name}/resume", "path.name"): "upstreams",
    ("/admin/upstreams/{name}/reset", "path.name"): "upstreams",
    ("/admin/budgets/{id}", "path.id"): "budgets",
    ("/admin/rollouts/{name}", "path.name"): "rollouts",
    ("/admin/decisions/{request_id}", "path.request_id"): "requests",
    ("/admin/baseline", "body.model"): "models",
    ("/admin/costs", "query.from"): "days",
    ("/admin/costs", "query.to"): "days",
    ("/admin/report", "query.from"): "days",
    ("/admin/report", "query.since"): "days",
    ("/v1/models/{model}", "path.model"): "models",
    ("/v1/sessions/{session_id}", "path.session_id"): "sessions",
    ("/v1/feedback", "body.request_id"): "requests",
    ("/v1/streams/{stream_id}", "path.stream_id"): "streams",
    **{
        (path, place): words
        for path in ANSWERED
        for place, words in (
            ("body.model", "models"),
            ("header.x-tierway-session", "sessions"),
            ("header.x-tierway-max-cost", "numbers"),
        )
    },
}
"""Where a stranger's word leads nowhere: what is there, so that the other half of the endpoint is tried as well."""


class Tried:
    """A gateway as `tierway serve` makes it, and a caller's key to it."""

    def __init__(self, folder: Path) -> None:
        (folder / "tierway.yaml").write_text(yaml.safe_dump(CONFIG))
        environ = {**ADMIN, "TIERWAY_PORT": "0", "TIERWAY_LOG_LEVEL": "warning", "OLLAMA_BASE_URL": ""}
        self.command = Command.start(
            "serve", "--config", str(folder / "tierway.yaml"), env=environment(folder / "data", **environ)
        )

    def open(self) -> None:
        self.url = url_of(self.command.until("\n\ncurl ", 60))
        made = httpx2.post(f"{self.url}/admin/keys", json={"name": "fuzz"}, headers=_bearer(ADMIN_KEY))
        self.key = made.json()["key"]
        asked = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {**_bearer(self.key), "x-request-id": "the-first", "x-tierway-session": "the-first"}
        assert httpx2.post(f"{self.url}/v1/chat/completions", json=asked, headers=headers).status_code == 200
        resumable = {**_bearer(self.key), "x-tierway-resumable": "true"}
        stream = httpx2.post(f"{self.url}/v1/chat/completions", json={**asked, "stream": True}, headers=resumable)
        self.words = {**WORDS, "streams": [stream.headers["x-tierway-stream-id"], "none"]}

    def config(self) -> str:
        """For the tool: both keys, the words it cannot guess, and that a caller's own time limit may run out."""
        lines = [
            f"auth.openapi.{name}.bearer = {json.dumps(key)}" for name, key in (("key", self.key), ("admin", ADMIN_KEY))
        ]
        lines += [f"dictionaries.{name}.values = {json.dumps(values)}" for name, values in self.words.items()]
        for path in dict.fromkeys(path for path, _ in KNOWN):
            lines += ["[[operations]]", f"include-path = {json.dumps(path)}"]
            if path in ANSWERED:
                lines.append(f"checks.not_a_server_error.expected-statuses = {json.dumps(EXPECTED)}")
            lines += [
                f'parameters.{json.dumps(place)} = {{ dictionary = "{words}", probability = 0.6 }}'
                for (where, place), words in KNOWN.items()
                if where == path
            ]
        return "\n".join(lines) + "\n"


@pytest.fixture
def tried(tmp_path: Path) -> Iterator[Tried]:
    made = Tried(tmp_path)
    try:
        made.open()
        yield made
    finally:
        made.command.close()


def statuses(report: Path) -> dict[str, Counter[int]]:
    """What every operation answered, and how often."""
    found: dict[str, Counter[int]] = {}
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            seen = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for id, case in seen.get("cases", {}).items():
                reply = seen.get("interactions", {}).get(id, {}).get("response")
                name = f"{case['value']['method']} {case['value']['path']}"
                found.setdefault(name, Counter()).update([reply["status_code"]] if reply else [])
    return found


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_client_meets_nothing_that_the_document_does_not_tell(tried: Tried, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(tried.config())
    length = (
        ("--max-time", str(int(SECONDS)), "--generation-database", "none")
        if SECONDS
        else ("--phases", "examples,fuzzing", "--max-examples", "2", "--generation-deterministic")
    )
    line = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run", "--no-color"),
        *(f"{tried.url}/openapi.json", "--checks", ",".join(CHECKS), "--seed", str(SEED), "--continue-on-failure"),
        *("--request-timeout", "60", "--warnings", "off", *length),
        *("--generation-with-security-parameters", "false"),
        *("--suppress-health-check", "all", "--report", "ndjson", "--report-ndjson-path", "report.ndjson"),
    ]
    done = subprocess.run(line, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True)
    told = f"seed {SEED}\n{done.stdout}\n{done.stderr}\n{tried.command.told}"
    assert done.returncode == 0, told
    assert tried.command.process.poll() is None, told
    assert "Traceback" not in tried.command.told, tried.command.told
    reached = statuses(tmp_path / "report.ndjson")
    missed = {operation for operation, found in reached.items() if not set(found) - {401, 403, 429}}
    assert not missed, f"the keys open nothing there: {missed}"
    document = httpx2.get(f"{tried.url}/openapi.json").json()
    told_of = {f"{method.upper()} {path}" for path, each in document["paths"].items() for method in each}
    assert told_of <= reached.keys(), f"never tried: {told_of - reached.keys()}"
    if SECONDS:
        print(*(f"{name}: {dict(found)}" for name, found in sorted(reached.items()) if name in told_of), sep="\n")  # noqa: T201 - what pytest -rP shows
