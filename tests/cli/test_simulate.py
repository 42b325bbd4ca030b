"""Without these nobody can rehearse without a model, or only where all the usual ports are free."""

from __future__ import annotations

import re
import signal
import socket

import httpx2
import pytest

from app.simulator.server import PORTS
from tests.cli.conftest import Run, Start


def test_servers_run_where_they_are_wanted_until_they_are_told_to_end(start: Start) -> None:
    command = start("simulate", "--kind", "ollama=0", "--kind", "anthropic=0")
    told = command.until("Stop with Ctrl-C")
    urls = dict(re.findall(r"(OLLAMA_BASE_URL|ANTHROPIC_BASE_URL)=(http://127.0.0.1:\d+)", told))
    assert httpx2.get(f"{urls['OLLAMA_BASE_URL']}/api/tags").json()["models"]
    assert "cut" in httpx2.get(f"{urls['ANTHROPIC_BASE_URL']}/_sim/faults").json()
    assert "ANTHROPIC_API_KEY" in told and "vllm" not in told
    assert command.end(signal.SIGTERM) == 0 and "Traceback" not in command.told


def test_a_port_that_is_taken_is_named(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("simulate", "--kind", f"vllm={port}")
    assert result.exit_code == 1 and f"Port {port} for vllm cannot be had" in result.stderr
    assert "--kind vllm=PORT" in result.stderr and "attempting" not in result.stderr


@pytest.mark.parametrize("kind", ["x", "ollama=", "ollama=x", "ollama=-1", "ollama=65536", "ollama=²", "=5", ""])
def test_what_is_no_kind_is_refused(run: Run, kind: str) -> None:
    result = run("simulate", "--kind", kind)
    assert result.exit_code == 2 and all(known in result.stderr for known in PORTS)
