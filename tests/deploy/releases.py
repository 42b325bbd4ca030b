"""The release before this one: where its tree is, and a gateway of any tree on one data folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Self

import httpx2
import pytest

from tests.cli.conftest import Command, environment
from tests.cli.test_serve import url_of
from tests.deploy.declared import ROOT
from tests.flows.asking import ADMIN, ADMIN_KEY

NAMED: Final = ROOT / "deploy" / "previous-release"
TREE: Final = "TIERWAY_PREVIOUS_RELEASE"
"""Names a folder with that tree, where this one was unpacked without its history."""


def commit() -> str:
    (line,) = [line for line in NAMED.read_text().splitlines() if not line.startswith("#")]
    return line


def previous(folder: Path) -> Path:
    """The tree of the previous release: a folder that was unpacked beside, else taken out of the history."""
    if beside := os.environ.get(TREE):
        assert (Path(beside) / "app" / "main.py").exists(), f"{TREE} names no tree of a release"
        return Path(beside)
    if not (ROOT / ".git").exists():
        pytest.skip(f"no history here, and {TREE} names no folder with the previous release")
    tree = folder / "previous"
    tree.mkdir()
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", commit()], capture_output=True, timeout=60, check=False)
    if packed.returncode != 0:
        pytest.skip(f"the history here does not reach back to the previous release: {packed.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=packed.stdout, timeout=60, check=True)
    return tree


class Release:
    """A gateway of one tree, as a process of its own. Callers and operators talk to every release alike."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree = tree
        variables = environment(folder / "data", TIERWAY_CONFIG=str(folder / "tierway.yaml"), TIERWAY_PORT="0", **ADMIN)
        self._env = variables | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}

    async def __aenter__(self) -> Self:
        self._command = Command.start("serve", env=self._env, cwd=self.tree)
        try:
            told = await asyncio.to_thread(self._command.until, "\n\ncurl ", 60)
        except BaseException:
            self._command.close()
            raise
        self.http = httpx2.AsyncClient(base_url=url_of(told), timeout=30)
        return self

    async def __aexit__(self, *_: object) -> None:
        """In peace, unless it was killed."""
        await self.http.aclose()
        if self._command.process.poll() is None:
            self._command.process.send_signal(signal.SIGTERM)
        try:
            assert await asyncio.to_thread(self._command.wait, 60) in (0, -signal.SIGKILL), self.told
        finally:
            await asyncio.to_thread(self._command.close)
        assert "Traceback" not in self.told, self.told

    @property
    def told(self) -> str:
        return self._command.told

    def kill(self) -> None:
        self._command.process.kill()
        self._command.wait()

    def code(self) -> Path:
        """The package that a process of this release runs."""
        line = [sys.executable, "-c", "import app.main; print(app.main.__file__)"]
        done = subprocess.run(
            line, env=self._env, cwd=self.tree, capture_output=True, text=True, timeout=60, check=True
        )
        return Path(done.stdout.strip())

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        reply = await self.http.request(method, f"/admin/{path}", json=body, headers=headers)
        assert reply.is_success, f"{path}: {reply.text}"
        return reply.json()

    async def listed(self, path: str, by: str = "id") -> dict[Any, dict[str, Any]]:
        return {each[by]: each for each in (await self.admin("GET", path))["data"]}

    @contextlib.asynccontextmanager
    async def chat(self, model: str, said: str, key: str, **headers: str) -> AsyncIterator[httpx2.Response]:
        """A reply under way."""
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": said}]}
        body |= {"stream": True} if headers.pop("stream", "") else {}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"authorization": f"Bearer {key}"}
        async with self.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply:
            yield reply

    async def ask(self, model: str, said: str, key: str, **headers: str) -> httpx2.Response:
        async with self.chat(model, said, key, **headers) as reply:
            await reply.aread()
        assert reply.status_code == 200, reply.text
        return reply

    async def get(self, path: str, key: str) -> httpx2.Response:
        return await self.http.get(path, headers={"authorization": f"Bearer {key}"})
