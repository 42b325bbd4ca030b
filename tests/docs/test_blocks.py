"""Whatever a page shows to be typed, saved or run is typed, loaded or run here, or held to the part of it that can be.
A block of a kind that nobody looks at fails, so that none slips by."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import yaml
from click.testing import CliRunner

from app.cli import main
from app.config.load import load
from app.simulator.server import simulate
from tests.cli.conftest import OURS
from tests.docs import shell
from tests.docs.blocks import BLOCKS, COMMANDS, ROOT, Block, Typed, blocks_of, typed
from tests.docs.erasing import erased
from tests.flows.asking import ADMIN, ADMIN_KEY
from tests.flows.service import Service, gateway, upstream

ADDRESS: Final = "http://127.0.0.1:8080"
KEYS: Final = ("ANTHROPIC", "OPENAI", "GROQ", "OTHER", "VLLM", "OPENROUTER", "MISTRAL", "DEEPSEEK", "TOGETHER")
SECRETS: Final = {f"{name}_API_KEY": "k" for name in KEYS} | {"OTHER_KEY": "k"}


# --- kinds ----------------------------------------------------------------------------------------------------------


def loads(block: Block, folder: Path) -> None:
    """A configuration of ours."""
    file = folder / "page.yaml"
    file.write_text(textwrap.dedent(block.text))
    assert load(SECRETS, config_path=file).upstreams


def points_here(block: Block, folder: Path) -> None:
    """The configuration of a client: this gateway, and models that are there."""
    found = yaml.safe_load(block.text)
    text = json.dumps(found)
    assert ":8080/v1" in text and "auto" in text
    assert set(re.findall(r'"(?:model|titleModel)": "([^"]+)"', text)) <= {"auto", "openai/auto", "tierway/static"}


def is_yaml(block: Block, folder: Path) -> None:
    """Of Compose, kustomize (test_running holds what they name) and LiteLLM (test_migration reads it)."""
    assert isinstance(yaml.safe_load(block.text), dict)


def compiles(block: Block, folder: Path) -> None:
    compile(block.text, block.where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def parses(block: Block, folder: Path) -> None:
    """By the JavaScript of this machine, where there is one; imports stay unresolved."""
    text = erased(block.text) if block.kind == "typescript" else block.text
    assert all(text.count(opened) == text.count(closed) for opened, closed in ("()", "{}", "[]"))
    if node := shutil.which("node"):
        file = folder / "page.mjs"
        file.write_text(text)
        done = subprocess.run([node, "--check", str(file)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def understood(block: Block, folder: Path) -> None:
    """What a shell reads, each command by its own parser or by what it names of this repository."""
    subprocess.run(["sh", "-n"], input=block.text, text=True, check=True, capture_output=True, timeout=60)
    commands = list(typed(block))
    assert commands
    for each in commands:
        assert each.program in shell.WAYS, f"nobody looks at {each.program!r}"
        shell.WAYS[each.program](each, folder)
        for name in each.environ:
            shell.known(name)


def is_json(block: Block, folder: Path) -> None:
    json.loads(block.text)


SHOWN: Final = {
    "README.md": "the way of a request, drawn",
    "docs/configuration.md": "what the loader says; tests/config/test_load.py",
    "docs/resuming.md": "an excerpt of a stream; tests/flows/test_resumable.py",
}
"""Pages with a block that is only looked at, and what it is."""


def is_shown(block: Block, folder: Path) -> None:
    assert block.page in SHOWN, "is there nothing to run, load or parse in it?"
    assert not re.search(r"^(?:\$ )?(?:tierway|curl|kubectl|docker|make) ", block.text, re.MULTILINE)


KINDS: Final[Mapping[str, Callable[[Block, Path], None]]] = {
    "sh": understood,
    "bash": understood,
    "python": compiles,
    "javascript": parses,
    "typescript": parses,
    "json": is_json,
    "yaml": loads,
    **dict.fromkeys(("yaml continue", "yaml aider", "yaml librechat"), points_here),
    **dict.fromkeys(("yaml compose", "yaml kustomize", "yaml litellm"), is_yaml),
    "text": is_shown,
}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_block_is_what_it_says(block: Block, tmp_path: Path) -> None:
    """Who copies it gets no error for it."""
    assert block.kind in KINDS, f"nobody looks at blocks of kind {block.kind!r}"
    KINDS[block.kind](block, tmp_path)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("fish", "tierway models\n"),
        ("", "tierway models\n"),
        ("sh", "tierway modles\n"),
        ("sh", "tierway keys create --nome me\n"),
        ("sh", "tierway keys create\n"),
        ("sh", "teirway models\n"),
        ("sh", "FEATURE_STREAMNG=false tierway serve\n"),
        ("sh", "curl --oauth2-bearer x http://127.0.0.1:8080/v1/models\n"),
        ("sh", "make rnu\n"),
        ("sh", "docker compose exec gatway tierway models\n"),
        ("sh", "docker compose exec gateway tierway modles\n"),
        ("sh", "kubectl rollout undo deployment/tireway\n"),
        ("sh", "tierway models | head\n"),
        ("sh", "tierway 'models\n"),
        ("yaml", "upstreams: {a: {kind: olama}}\n"),
        ("yaml continue", "models: [{apiBase: http://127.0.0.1:8080/v1, model: gpt}, auto]\n"),
        ("python", "client = OpenAI(\n"),
        ("javascript", "const a = {;\n"),
        ("typescript", "const a: Record<string, string> = {;\n"),
        ("json", "{'a': 1}\n"),
        ("text", "tierway models\n"),
    ],
)
def test_what_is_wrong_is_noticed(kind: str, text: str, tmp_path: Path) -> None:
    block = Block("docs/new.md", 1, kind, text)
    with pytest.raises(Exception):  # noqa: B017 - of whichever parser it is
        test_every_block_is_what_it_says(block, tmp_path)


def test_blocks_are_found_wherever_they_stand() -> None:
    page = "1. do\n\n   ```sh\n   tierway models\n   ```\n\n```text\nx\n```\n"
    assert [(each.kind, each.line) for each in blocks_of(page, "p")] == [("sh", 3), ("text", 7)]
    for wrong in ("```sh\ntierway models\n", "~~~sh\ntierway models\n~~~\n"):
        with pytest.raises(AssertionError):
            blocks_of(wrong, "p")


# --- typed to a gateway ---------------------------------------------------------------------------------------------

ELSEWHERE: Final[Mapping[str, str]] = {
    "serve": "tests/cli/test_serve.py",
    "simulate": "tests/cli/test_simulate.py",
    "check": "tests/cli/test_check.py",
    "import": "tests/docs/test_migration.py",
    "ledger": "tests/docs/test_backup.py",
    "versions": "tests/docs/test_rollback.py",
}
"""Commands that do not ask this gateway, and who runs them."""


def test_who_runs_the_rest_is_there() -> None:
    for path in ELSEWHERE.values():
        assert (ROOT / path).exists(), path


@contextlib.asynccontextmanager
async def like_a_readers(folder: Path) -> AsyncIterator[Service]:
    """A gateway as the pages suppose it: upstreams under their usual names, a price, and the limit of their example."""
    async with contextlib.AsyncExitStack() as stack:
        kinds = {"ollama": "ollama", "vllm": "vllm", "claude": "anthropic"}
        sims = {name: await stack.enter_async_context(simulate(kind)) for name, kind in kinds.items()}
        yield await stack.enter_async_context(
            gateway(
                folder,
                {name: upstream(sim) for name, sim in sims.items()},
                sims,
                environ={**ADMIN, "ANTHROPIC_API_KEY": "simulated"},
                models={"claude/claude-sim-large": {"price": {"input": 4.0, "output": 20.0}}},
                budgets=[{"scope": "agent", "match": "qe-*", "period": "day", "limit": 5.0}],
            )
        )


class Reader:
    """Types what the pages say, with what they were told before where a page leaves it to them."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._folder = folder
        self._told: dict[str, str] = {}

    def _filled(self, text: str) -> str:
        for name, value in {"$TIERWAY_ADMIN_KEY": ADMIN_KEY, ADDRESS: self._service.url, **self._told}.items():
            text = text.replace(name, value)
        return text.replace("http://127.0.0.1:11434", self._service.sims["ollama"].base_url)

    async def curl(self, command: Typed) -> None:
        """Sends what curl would send; the page must not answer with an error."""
        asked = shell.curl(command)
        headers = dict(self._filled(each).split(": ", 1) for each in asked.H)
        body = None if asked.d is None else self._filled(asked.d).encode()
        if body is not None:
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        method = asked.X or ("GET" if body is None else "POST")
        async with httpx2.AsyncClient(timeout=30) as client:
            reply = await client.request(method, self._filled(asked.url), headers=headers, content=body)
        assert reply.status_code < 400 and '"error":{' not in reply.text, f"{command.where}: {reply.text[:300]}"
        if (asked_id := reply.headers.get("x-request-id")) and "/v1/chat/completions" in asked.url:
            self._told |= {"req_...": asked_id, "decisions/X": f"decisions/{asked_id}"}
        if stream := reply.headers.get("x-tierway-stream-id"):
            self._told["STREAM_ID"] = stream

    async def tierway(self, command: Typed) -> None:
        """Runs it in this process."""
        name, *rest = map(self._filled, command.words[1:])
        store = self._folder / ("keys" if name == "keys" else "data")  # with the first key, everybody would need one
        environ: dict[str, str | None] = {each: None for each in os.environ if each.startswith(OURS)}
        environ |= {**ADMIN, "TIERWAY_PORT": str(self._service.port), "TIERWAY_DATA_DIR": str(store), **command.environ}
        invoke = functools.partial(CliRunner().invoke, main, [name, *rest], env=environ)
        result = await asyncio.to_thread(invoke)
        assert result.exit_code == 0, f"{command.where}: {' '.join(command.words)}: {result.output}"
        if key := re.search(r"key_[0-9a-f]{16}", result.output):
            self._told["key_0123456789abcdef"] = key[0]


async def test_what_is_typed_does_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every curl of every page, and every command of ours that asks a gateway, in the order of the page."""
    monkeypatch.chdir(tmp_path)
    for name, text in shell.FILES.items():
        (tmp_path / name).write_text(text)
    typed_here = 0
    async with like_a_readers(tmp_path) as service:
        reader = Reader(service, tmp_path)
        for command in COMMANDS:
            if command.program == "curl":
                await reader.curl(command)
            elif command.program == "tierway" and command.words[1] not in ELSEWHERE:
                await reader.tierway(command)
            else:
                continue
            typed_here += 1
    assert typed_here > 40


OPTIONAL: Final = {"llama_index"}
"""Clients that the tests do without; the guide says which version was tried."""
NO_GATEWAY: Final = {"docs/simulator.md": "tests/simulator/test_server.py"}
"""Pages whose Python asks no gateway, and who runs such."""


async def test_the_python_of_the_pages_runs(tmp_path: Path) -> None:
    """With the real clients, page by page, each block going on where the one before ended."""
    async with like_a_readers(tmp_path) as service:
        names: dict[str, dict[str, Any]] = {}
        for block in BLOCKS:
            imported = set(re.findall(r"^(?:from|import) (\w+)", block.text, re.MULTILINE))
            if block.kind != "python" or block.page in NO_GATEWAY:
                continue
            if any(importlib.util.find_spec(each) is None for each in imported & OPTIONAL):
                continue
            code = compile(block.text.replace(ADDRESS, service.url), block.where, "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                await asyncio.to_thread(exec, code, names.setdefault(block.page, {}))
        assert {"README.md", "docs/clients.md", "docs/resuming.md", "docs/sessions.md"} <= set(names)
        assert "You said" in str(names["docs/sessions.md"]["answer"])
