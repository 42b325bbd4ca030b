"""Runs the command: in this process where nothing else matters, as a process of its own where signals, ports and
workers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.cli import main

NOWHERE = "http://127.0.0.1:1"
OURS = ("TIERWAY_", "FEATURE_", "OLLAMA_", "VLLM_", "ANTHROPIC_", "OPENAI_", "REDIS_", "PROMETHEUS_")

Run = Callable[..., Result]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Everything of this process's but for what configures a gateway; its state in this folder, and a named Ollama
    that is not there, so that nothing real is asked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {"TIERWAY_DATA_DIR": str(folder), "OLLAMA_BASE_URL": NOWHERE} | more


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("keys", "list", TIERWAY_PORT="1")`."""

    def invoke(*arguments: str, **more: str) -> Result:
        cleared = {name: None for name in os.environ if name.startswith(OURS)}
        wanted = {"TIERWAY_DATA_DIR": str(tmp_path / "data"), "OLLAMA_BASE_URL": NOWHERE, **more}
        result = CliRunner().invoke(main, arguments, env={**cleared, **wanted})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@dataclass
class Command:
    """The command as a process. `out` and `err` are what it has written so far."""

    process: subprocess.Popen[str]
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def start(cls, *arguments: str, env: Mapping[str, str], cwd: Path | None = None) -> Command:
        """`cwd`: also the tree whose code it is."""
        line = [sys.executable, "-c", "from app.cli import main; main()", *arguments]
        pipe = subprocess.PIPE
        command = cls(subprocess.Popen(line, stdout=pipe, stderr=pipe, env=dict(env), text=True, cwd=cwd))
        for stream, lines in ((command.process.stdout, command.out), (command.process.stderr, command.err)):
            assert stream is not None
            reader = threading.Thread(target=lines.extend, args=(stream,))
            reader.start()
            command.readers.append(reader)
        return command

    def until(self, text: str, seconds: float = 30) -> str:
        """Waits until it has said something; what it has said on standard output."""
        give_up = time.monotonic() + seconds
        while text not in "".join(self.out):
            assert self.process.poll() is None, self.told
            assert time.monotonic() < give_up, self.told
            time.sleep(0.02)
        return "".join(self.out)

    @property
    def told(self) -> str:
        return "".join((*self.out, *self.err))

    def end(self, number: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 20) -> int:
        status = self.process.wait(seconds)
        for reader in self.readers:
            reader.join(5)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("serve", TIERWAY_PORT="0")`."""
    started: list[Command] = []

    def begin(*arguments: str, **more: str) -> Command:
        started.append(Command.start(*arguments, env=environment(tmp_path / "data", **more)))
        return started[-1]

    yield begin
    for command in started:
        command.close()
