"""Without these the command that everybody begins with does not start, says what is not so, or does not end."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from uvicorn.supervisors.multiprocess import Process

from app.assembly import Ready
from app.cli.serve import Workers, banner
from app.config.settings import Settings, UpstreamSettings
from app.gateway.discovery import Found
from app.routing.registry import Registry
from tests.api.site import card
from tests.cli.conftest import Run, Start

ADMIN_KEY = "the-admin-key-of-this-test"
OLLAMA = Found("ollama", "ollama", True, 2, None)


def url_of(told: str) -> str:
    found = re.search(r"Tierway \S+ on (http://\S+)", told)
    assert found, told
    return found[1]


def soon(true: Callable[[], bool], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)


# --- one process ----------------------------------------------------------------------------------------------------


def ask(url: str, key: str | None = None) -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
    return httpx2.post(f"{url}/v1/chat/completions", json=body, headers=headers).status_code


def test_from_the_first_start_to_the_end(start: Start, run: Run) -> None:
    """What a newcomer does: start, paste the line, make a key, list the models, end the key."""
    environ = {"OLLAMA_BASE_URL": "", "TIERWAY_ADMIN_KEY": ADMIN_KEY, "TIERWAY_LOG_LEVEL": "error"}
    command = start("serve", TIERWAY_PORT="0", **environ)
    told = command.until("\n\ncurl ")
    url, line = url_of(told), told.strip().splitlines()[-1]
    assert not url.endswith(":0")
    pasted = subprocess.run(["bash", "-c", line], capture_output=True, timeout=20, env=os.environ | {"no_proxy": "*"})
    assert b'"chat.completion"' in pasted.stdout, pasted
    made = run("keys", "create", "--name", "ci").stdout.split()
    key_id, secret = made[1], made[-1]
    soon(lambda: ask(url) == 401)
    assert ask(url, secret) == 200
    assert run("models", "--url", url).exit_code == 1
    for key in (secret, ADMIN_KEY):
        assert run("models", "--url", url, "--key", key).exit_code == 0
    assert run("keys", "revoke", key_id).exit_code == 0
    soon(lambda: ask(url, secret) == 401)
    assert command.end(signal.SIGINT) == 0 and "Traceback" not in command.told


def test_streams_are_let_end_and_the_rest_is_told_why(start: Start, tmp_path: Path) -> None:
    """Rolling out a new version must not cut answers that are under way; one that takes too long is told, not cut."""
    file = tmp_path / "tierway.yaml"
    file.write_text("streaming: {grace: 3}")
    environ = {"OLLAMA_BASE_URL": "", "TIERWAY_LOG_LEVEL": "error"}
    command = start("serve", "--config", str(file), TIERWAY_PORT="0", **environ)
    url = url_of(command.until("\n\ncurl "))

    def stream(text: str) -> Any:
        body = {"model": "sim-ollama/sim-small", "stream": True, "messages": [{"role": "user", "content": text}]}
        return httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20)

    with stream("sim:tokens=100") as good, stream("sim:tokens=100 sim:fault=stall") as stuck:
        pieces: list[tuple[Iterator[str], list[str]]] = [(reply.iter_text(), []) for reply in (good, stuck)]
        for chunks, read in pieces:
            read.append(next(chunks))
        command.process.send_signal(signal.SIGTERM)
        for chunks, read in pieces:
            read.extend(chunks)
    whole, cut = ("".join(read) for _, read in pieces)
    assert whole.endswith("data: [DONE]\n\n")
    assert '"code":"shutting_down"' in cut.splitlines()[-2] and "[DONE]" not in cut
    assert command.wait() == 0 and "Traceback" not in command.told


def test_a_hang_up_reloads_it(start: Start, tmp_path: Path) -> None:
    """As other servers take it: what the file says now counts, and a file that is wrong is told and stops nothing."""
    file = tmp_path / "tierway.yaml"
    file.write_text("upstreams: {}")
    command = start("serve", "--config", str(file), TIERWAY_PORT="0")
    url = url_of(command.until("\n\ncurl "))
    command.process.send_signal(signal.SIGHUP)
    soon(lambda: "the configuration is the same" in command.told)
    file.write_text("aliases: {vectors: tierway/static}\nupstreams: {}")
    command.process.send_signal(signal.SIGHUP)
    soon(lambda: "the configuration was reloaded" in command.told)
    body = {"model": "vectors", "input": "Hi"}
    assert httpx2.post(f"{url}/v1/embeddings", json=body).status_code == 200
    file.write_text("alias: {}")
    command.process.send_signal(signal.SIGHUP)
    soon(lambda: "the configuration was not reloaded" in command.told and "did you mean aliases" in command.told)
    assert httpx2.post(f"{url}/v1/embeddings", json=body).status_code == 200
    assert command.end() == 0 and "Traceback" not in command.told


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"TIERWAY_HOST": "0.0.0.0"}, "TIERWAY_ALLOW_ANONYMOUS"),
        ({"TIERWAY_DATA_DIR": "/dev/null/x"}, "TIERWAY_DATA_DIR"),
    ],
)
def test_a_start_that_fails_says_why_and_what_to_do(start: Start, more: dict[str, str], word: str) -> None:
    command = start("serve", TIERWAY_PORT="0", **more)
    assert command.wait() == 3
    assert "Traceback" not in command.told and "curl" not in command.told
    assert sum(word in line for line in command.err) == 1, "once is enough"


def test_an_address_that_is_taken_is_said_before_anything_is_announced(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", TIERWAY_PORT=port)
    assert result.exit_code == 1 and result.stdout == ""
    assert f"port {port}" in result.stderr and "in use" in result.stderr and "TIERWAY_PORT" in result.stderr
    assert "attempting" not in result.stderr, "the address once is enough"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "::2"])
def test_an_address_that_is_not_ours_is_said_to_be_that(run: Run, host: str) -> None:
    result = run("serve", TIERWAY_HOST=host, TIERWAY_PORT="0")
    assert result.exit_code == 1 and host in result.stderr and "Traceback" not in result.output


# --- several --------------------------------------------------------------------------------------------------------


def children(pid: int) -> set[int]:
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def workers(pid: int) -> set[int]:
    """Without multiprocessing's own."""
    return {each for each in children(pid) if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are looked up in /proc")
def test_two_workers_are_one_gateway(start: Start, tmp_path: Path) -> None:
    """One file, one banner, one store, one set of numbers; one that dies is replaced and its gauges go with it."""
    file = tmp_path / "tierway.yaml"
    file.write_text("aliases: {vectors: tierway/static}")
    environ = {"TIERWAY_WORKERS": "2", "TIERWAY_ADMIN_KEY": ADMIN_KEY}
    command = start("serve", "--config", str(file), TIERWAY_PORT="0", **environ)
    told = command.until("\ncurl ", 60)
    assert "workers      2" in told
    url, boss = url_of(told), {"authorization": f"Bearer {ADMIN_KEY}"}
    soon(lambda: command.told.count("Application startup complete") == 2)
    made = httpx2.post(f"{url}/admin/keys", json={"name": "x"}, headers=boss).json()
    key = {"authorization": f"Bearer {made['key']}"}
    body = {"model": "vectors", "input": "Hi"}
    time.sleep(0.3)  # in which the other worker learns of the key
    for _ in range(20):  # a connection each, so that both are asked
        assert httpx2.post(f"{url}/v1/embeddings", json=body, headers=key).status_code == 200
    counted = r'tierway_requests_total\{endpoint="embeddings".*status="200".*\} (\d+)'
    soon(lambda: re.findall(counted, httpx2.get(f"{url}/metrics").text) == ["20"])
    before = workers(command.process.pid)
    assert len(before) == 2
    command.process.send_signal(signal.SIGHUP)
    soon(lambda: command.told.count("the configuration is the same") >= 2)
    assert workers(command.process.pid) == before, "each reads its configuration, none is started again"
    folder = re.search(rb"PROMETHEUS_MULTIPROC_DIR=([^\0]+)", Path(f"/proc/{min(before)}/environ").read_bytes())
    assert folder
    shared = Path(os.fsdecode(folder[1]))
    dead = min(before)
    os.kill(dead, signal.SIGKILL)
    soon(lambda: len(workers(command.process.pid) - before) == 1)
    soon(lambda: not list(shared.glob(f"gauge_live*_{dead}.db")))
    assert list(shared.glob(f"counter_{dead}.db")), "what it counted still counts"
    soon(lambda: command.told.count("Application startup complete") == 3)
    assert re.findall(counted, httpx2.get(f"{url}/metrics").text) == ["20"]
    assert command.end(signal.SIGTERM) == 0
    assert command.told.count("Try it:") == 1 and not shared.exists() and "Traceback" not in command.told


@pytest.mark.parametrize(("codes", "status"), [((0, -15), 0), ((None, 3), 3), ((1, None), 0)])
def test_workers_that_cannot_start_end_it_all_with_an_error(codes: tuple[int | None, ...], status: int) -> None:
    """uvicorn stops then, as if that were in good order; whoever supervises us must see that it is not."""
    workers = Workers.__new__(Workers)
    workers.processes = [cast(Process, SimpleNamespace(exitcode=code)) for code in codes]
    assert workers.status == status


# --- what it says ---------------------------------------------------------------------------------------------------


def said(
    *found: Found, host: str = "127.0.0.1", simulated: bool = False, keys_needed: bool = False, models: int = 1
) -> str:
    registry = Registry([card(f"ollama/m{index}") for index in range(models)])
    upstreams = {"claude": UpstreamSettings("claude", "anthropic", ("http://claude-1:9", "http://claude-2:9"))}
    settings = Settings(host=host, upstreams=upstreams)
    return banner(Ready(settings, registry, found or (OLLAMA,), simulated, keys_needed))


def test_the_banner_says_where_and_with_what() -> None:
    text = said(OLLAMA, Found("claude", "anthropic", False, 0, "The key is not valid."))
    assert "http://127.0.0.1:8080/docs" in text and "SIMULATOR" not in text
    assert re.search(r"ollama +ollama +local +2 models\n", text)
    assert re.search(r"claude +anthropic +paid +away at http://claude-1:9, http://claude-2:9: The key is not", text)
    assert "models       auto, ollama/m0\n" in text and "workers" not in text


def test_the_banner_counts_like_a_person() -> None:
    assert re.search(r"local +1 model\n", said(Found("ollama", "ollama", True, 1, None)))


@pytest.mark.parametrize(
    ("host", "keys_needed", "word"),
    [
        ("127.0.0.1", False, "none needed on this machine until you make one: tierway keys create"),
        ("::1", False, "none needed on this machine until you make one"),
        ("0.0.0.0", False, "none needed by ANYBODY who reaches this address"),
        ("10.0.0.5", False, "none needed by ANYBODY who reaches this address"),
        ("0.0.0.0", True, "every request needs a key"),
    ],
)
def test_the_banner_says_who_may_come_in(host: str, keys_needed: bool, word: str) -> None:
    """Somebody who opened the gateway to the network must not read that it is open on this machine alone."""
    text = said(host=host, keys_needed=keys_needed)
    assert f"keys         {word}" in text
    assert ("listening on 0.0.0.0" in text.splitlines()[0]) == (host == "0.0.0.0")


def test_the_banner_says_loudly_that_nothing_is_real() -> None:
    text = said(simulated=True)
    assert "NO REAL MODEL ANSWERS" in text and "OLLAMA_BASE_URL" in text


@pytest.mark.parametrize(("models", "line"), [(0, "auto\n"), (6, "m5\n"), (9, "m5 and 3 more (GET http://")])
def test_the_banner_shows_only_so_many_models(models: int, line: str) -> None:
    assert line in said(models=models)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "[::1]"),
        ("10.0.0.5", "10.0.0.5"),
        ("localhost", "localhost"),
    ],
)
def test_the_line_to_try_can_be_pasted(host: str, shown: str) -> None:
    """Every shell understands it, and the body is JSON."""
    for keys_needed in (False, True):
        words = shlex.split(said(host=host, keys_needed=keys_needed).splitlines()[-1])
        assert words[:2] == ["curl", f"http://{shown}:8080/v1/chat/completions"]
        assert words[-1] == '{"model": "auto", "messages": [{"role": "user", "content": "Hello!"}]}'
        assert ("authorization: Bearer YOUR_KEY" in words) == keys_needed
