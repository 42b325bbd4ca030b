"""What becomes of a command that a page says to type, by its program. Those of ours are parsed by the command itself;
those that need what no test has (a cluster, a daemon, root) are held to what they name of this repository."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click
import yaml

from app.cli import main
from app.config.environment import VARIABLES
from app.store import layout
from bench.compare import parser as bench_parser
from tests.docs.blocks import ROOT, Typed

OF_OTHERS: Final = frozenset(
    {
        *("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY"),  # of clients
        *("OPENAI_API_BASE_URL", "ENABLE_OLLAMA_API"),  # of Open WebUI
        "FLAGD_HOST",
    }
)
"""Variables that are not ours."""
FOLDERS: Final = ("/mnt/gateway-1", "/mnt/gateway-2")
"""What a page calls the data folders of two machines."""
NUMBER: Final = "N"
"""What a page leaves to its reader: the number of a version."""
FILES: Final = {"new-prices.yaml": "models: {claude/claude-opus-5-5: {price: {input: 5, output: 25}}}\n"}
"""What a page supposes its reader to have written."""


def tierway(words: Sequence[str], folder: Path) -> None:
    """Parses it as the command would, with an empty folder for each that a page makes up."""
    command: click.Command = main
    for name, text in FILES.items():
        (folder / name).write_text(text)
    filled = {NUMBER: "1", **dict.fromkeys(FOLDERS, str(folder)), **{name: str(folder / name) for name in FILES}}
    rest = [filled.get(word, word) for word in words]
    while isinstance(command, click.Group):
        assert rest, f"{command.name} wants a sub-command"
        name = rest.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name!r}"
        command = found
    command.make_context(command.name, rest)


def nested(typed: Typed, folder: Path) -> None:
    """`... -- tierway keys create`, `... exec gateway tierway ...`: ours, run by somebody else."""
    for before, (index, word) in zip(typed.words, enumerate(typed.words[1:], 1), strict=False):
        if word.endswith(".venv/bin/tierway") or (word == "tierway" and before in ("gateway", "--")):
            tierway(typed.words[index + 1 :], folder)
            return


def make(typed: Typed, folder: Path) -> None:
    targets = [word for word in typed.words[1:] if not word.startswith(("-", "/"))]
    text = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in text for target in targets), targets


def docker(typed: Typed, folder: Path) -> None:
    """No daemon: services, images and variables are those of the files."""
    if typed.words[1] == "compose":
        services = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
        verb, *rest = typed.words[2:]
        assert verb in ("up", "exec", "build", "pull", "stop", "start", "run", "cp"), verb
        named = [word for word in rest if not word.startswith("-")]
        assert not named or named[0].partition(":")[0] in services, named
    else:
        assert typed.words[1] in ("build", "run", "push"), typed.words
        assert typed.words[1] == "run" or (ROOT / "Dockerfile").exists()
        for each in typed.named("--env"):
            known(each.partition("=")[0])
    nested(typed, folder)


def kubectl(typed: Typed, folder: Path) -> None:
    """No cluster: what it names is in the manifests."""
    manifests = "\n---\n".join(each.read_text() for each in (ROOT / "deploy/kubernetes").rglob("*.yaml"))
    found = [each for each in yaml.safe_load_all(manifests) if each]
    names = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in found if "metadata" in each}
    assert typed.words[1] in ("apply", "create", "exec", "port-forward", "rollout", "set", "delete"), typed.words
    for word in typed.words[2:]:
        kind, _, name = word.partition("/")
        assert kind not in ("deployment", "service") or f"{kind}/{name}" in names, f"there is no {word}"
    for each in typed.named("-k"):
        assert (ROOT / each / "kustomization.yaml").exists(), each
    for each in typed.named("--namespace"):
        assert f"namespace/{each}" in names, each
    if typed.words[1:3] == ("set", "env"):
        known(typed.words[-3 if "--namespace" in typed.words else -1].partition("=")[0])
    for word in typed.words:
        if word.startswith("--from-file="):
            assert word.removeprefix("--from-file=").partition("=")[0] in manifests, word
    nested(typed, folder)


def systemd(typed: Typed, folder: Path) -> None:
    units = {word for word in typed.words[1:] if word.startswith("tierway")}
    assert units <= {"tierway"} and (ROOT / "deploy/systemd/tierway.service").exists()
    nested(typed, folder)


def install(typed: Typed, folder: Path) -> None:
    """Root's: what it takes out of the checkout is there."""
    for word in typed.words[1:]:
        if word.startswith("/opt/tierway/"):
            assert (ROOT / word.removeprefix("/opt/tierway/")).exists(), word


def redis(typed: Typed, folder: Path) -> None:
    """No server of one's own: its key is ours, and the rest is between the reader and redis-cli."""
    *_, verb, argument = typed.words
    assert verb == "--rdb" or (verb == "del" and argument == layout.SUCCESS), typed.words


def python(typed: Typed, folder: Path) -> None:
    """A module of ours by its own parser; what others install is theirs."""
    assert typed.words[1] == "-m", typed.words
    if typed.words[2] == "bench.compare":
        bench_parser().parse_args(list(typed.words[3:]))
    else:
        assert typed.words[2] in ("venv", "grafana.generate", "deploy.rules"), typed.words


def curl(typed: Typed) -> argparse.Namespace:
    """What curl would make of it, for the options that pages use."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in ("-s", "-S", "-N", "-f"):
        parser.add_argument(flag, action="store_true")
    for option in ("-X", "-d", "-D"):
        parser.add_argument(option)
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("url")
    asked, unknown = parser.parse_known_args(list(typed.words[1:]))
    assert not unknown, f"{typed.where}: {unknown}"
    return asked


def sent(typed: Typed, folder: Path) -> None:
    """test_blocks sends those that go to a gateway."""
    assert curl(typed).url.startswith("http://127.0.0.1:"), typed.words


def known(name: str) -> None:
    if name.startswith("OTEL_"):
        assert f"`{name}`" in (ROOT / "docs/tracing.md").read_text(), f"no page says what {name} is"
        return
    assert name in VARIABLES or name in OF_OTHERS or name.endswith("_API_KEY"), f"there is no variable {name}"


def nothing(typed: Typed, folder: Path) -> None:
    """Nothing of ours is in it."""


WAYS: Final[Mapping[str, Callable[[Typed, Path], None]]] = {
    "tierway": lambda typed, folder: tierway(typed.words[1:], folder),
    "curl": sent,
    "make": make,
    "docker": docker,
    "kubectl": kubectl,
    **dict.fromkeys(("systemctl", "journalctl", "systemd-run"), systemd),
    "install": install,
    "redis-cli": redis,
    **dict.fromkeys(("python", "python3"), python),
    "export": nothing,  # its variables are looked at as those of every command
    **dict.fromkeys(("tar", "mv", "mkdir"), nothing),  # test_backup runs those that matter
    **dict.fromkeys(("git", "cd", "pip", "npm", "apt-get", "openssl"), nothing),  # of the reader's machine
    **dict.fromkeys(("aider", "ollama", "vllm"), nothing),  # programs of others
}
"""A program that is not here fails its page: whoever adds one says what holds of it."""
