"""A target that does not work is left out with a reason, instead of spoiling the table."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from bench import replies
from bench.processes import tree
from bench.running import Failed, Running, free_port, stream_facts
from bench.targets import Target
from bench.workloads import QUICK

SERVER = (sys.executable, "-m", "bench.upstream", "mock", "--port", "{port}")
NOWHERE = {"openai": "http://127.0.0.1:9"}


def body(stream: replies.Stream, tokens: int) -> bytes:
    data = stream.start.partition(b"\r\n\r\n")[2] + stream.token * tokens + stream.end
    return b"\n".join(line for line in data.splitlines() if line.startswith(b"data:"))


def test_a_stream_is_told_by_what_it_holds() -> None:
    assert stream_facts(body(replies.chat_stream("m", 9, 3, True), 3)) == {
        "events": 7,
        "content_events": 3,
        "usage": True,
        "done": True,
    }
    assert not stream_facts(body(replies.chat_stream("m", 9, 3, False), 3))["usage"]
    assert stream_facts(b"<html>")["events"] == 0


@pytest.mark.parametrize("broken", [b"data: {", b"data: []", b'data: {"choices": [1]}', b'data: {"choices": [{}]}'])
def test_what_is_no_stream_is_a_failure(broken: bytes) -> None:
    with pytest.raises(Failed, match="cannot be read"):
        stream_facts(broken)


def test_a_command_that_ends_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    target = Target("it", (sys.executable, "-c", "import sys; sys.exit('no licence')", "{port}"))
    running = Running(target, NOWHERE, tmp_path, None)
    with pytest.raises(Failed, match="no licence"):
        running.start()
    running.stop()
    running.stop()


def test_a_gateway_that_never_answers_is_a_failure_with_its_last_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.running.START_SECONDS", 0.3)
    with pytest.raises(Failed, match="no answer within 0 s; the last was"):
        Running(Target("direct"), NOWHERE, tmp_path, None).start()


def test_a_command_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot be started"):
        Running(Target("it", ("/nowhere/at/all", "{port}")), NOWHERE, tmp_path, None).start()


def test_a_gateway_is_started_checked_held_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWAY_PORT", "1")
    root = Path(__file__).resolve().parents[2]
    target = Target("it", SERVER, environment={"PYTHONPATH": str(root)}, files={"note": "to {upstream}"})
    running = Running(target, NOWHERE, tmp_path, None)
    try:
        running.start()
        [note] = tmp_path.glob("it-*/note")
        assert note.read_text() == "to http://127.0.0.1:9"
        assert running.facts["stream"]["content_events"] == 20
        assert running.facts["start_s"] > 0 and running.facts["idle_rss_mb"] > 1
        ask = running.ask(QUICK)
        assert ask.url.startswith("http://127.0.0.1:") and ask.url.endswith("/v1") and ask.pid in tree(ask.pid or 0)
        running.freeze()
        running.thaw()
    finally:
        running.stop()
    assert ask.pid is not None
    deadline = time.monotonic() + 5
    while tree(ask.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tree(ask.pid) == []


def test_a_gateway_may_choose_its_port_itself(tmp_path: Path) -> None:
    """It writes its address to a file then."""
    code = (
        "import subprocess, sys, orjson\n"
        "server = subprocess.Popen([sys.executable, '-m', 'bench.upstream', 'mock'], stdout=subprocess.PIPE)\n"
        "open(sys.argv[1], 'w').write(orjson.loads(server.stdout.readline())['openai'])\n"
        "server.wait()\n"
    )
    root = Path(__file__).resolve().parents[2]
    target = Target("it", (sys.executable, "-c", code, "{url_file}"), environment={"PYTHONPATH": str(root)})
    running = Running(target, NOWHERE, tmp_path, None)
    try:
        running.start()
        assert running.facts["processes"] == 2
    finally:
        running.stop()


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(3)}) > 1


def test_a_gateway_starts_with_nothing_each_time(tmp_path: Path) -> None:
    """The key that was made in the run before would lock the next one out."""
    target = Target("it", ("x", "{port}"), headers=("x-run: {run}",))
    assert Running(target, NOWHERE, tmp_path, None).headers != Running(target, NOWHERE, tmp_path, None).headers
