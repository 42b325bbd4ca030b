"""All pages: what they say to type, set, ask or look at is there, also between their blocks (test_blocks')."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Final

import click
import httpx2
import pytest
import yaml

from app.api.app import NOT_SPOKEN
from app.cli import main
from app.config.environment import VARIABLES
from app.config.features import FEATURES
from grafana.generate import DASHBOARDS
from tests.deploy.declared import ROOT, metrics, recorded, series
from tests.flows.service import over

DOCS: Final = ROOT / "docs"
PAGES: Final = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
COMMAND: Final = re.compile(r"(?:^|`|-- |bin/)tierway ((?:[a-z]+ ?)+[^`\n]*)", re.MULTILINE)
SHOWN: Final = re.compile(r"^```text\n.*?^```", re.MULTILINE | re.DOTALL)
"""What is only looked at may be wrong on purpose."""


def words_of(text: str) -> list[list[str]]:
    """Every `tierway ...` of a page, as words."""
    joined = text.replace("\\\n", " ")
    return [shlex.split(found, comments=True) for found in COMMAND.findall(joined)]


def understood(words: list[str]) -> None:
    """Fails where the command, a sub-command or an option does not exist."""
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        name = rest.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name!r} in {' '.join(words)!r}"
        command = found
    options = {"--help", *(option for each in command.params for option in each.opts)}
    for word in rest:
        assert not word.startswith("--") or word.partition("=")[0] in options, f"{word} in {' '.join(words)!r}"


@every_page
def test_its_commands_exist(page: Path) -> None:
    for words in words_of(page.read_text()):
        understood(words)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert words_of("`tierway flags set A 10%` and\ntierway keys create --name me\n") == [
        ["flags", "set", "A", "10%"],
        ["keys", "create", "--name", "me"],
    ]
    for wrong in (["flog"], ["keys", "make"], ["keys", "create", "--nome", "me"]):
        with pytest.raises(AssertionError):
            understood(wrong)


@every_page
def test_its_files_variables_and_flags_exist(page: Path) -> None:
    text = SHOWN.sub("", page.read_text())
    for path in re.findall(r"(?<![\w/.])((?:deploy|grafana|docs|bench)/[\w./*-]*\w)", text):
        assert list(ROOT.glob(path)), f"there is no {path}"
    for name in re.findall(
        r"\b(?:TIERWAY|FEATURE|OLLAMA_BASE|VLLM_BASE|ANTHROPIC_API|REDIS)_[A-Z_]*[A-Z]\b(?!_)", text
    ):
        assert name.removesuffix("_FILE") in {*VARIABLES, "REDIS_URL"}, f"there is no variable {name}"
    for name in re.findall(r"tierway flags set (\w+)|/admin/flags/([A-Z]\w+)", text):
        assert "".join(name) in FEATURES, f"there is no flag {name}"


@functools.cache
def known() -> set[str]:
    """Names that begin like ours: metrics, what rules record of them, and features as a flag service calls them."""
    return {*series(metrics()), *recorded(), *(f"tierway_{feature.lower()}" for feature in FEATURES)}


@every_page
def test_its_metrics_and_panels_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"\btierway[_:][a-z][\w:]+", text):
        assert name in known(), f"there is no {name}"
    for name in re.findall(r"[Dd]ashboard \*?\*?([A-Z][a-z]+)", text):
        assert name in {each.title.removeprefix("Tierway / ") for each in DASHBOARDS}, f"there is no dashboard {name}"
    titles = {panel.title for dashboard in DASHBOARDS for panel in dashboard.panels}
    for title in re.findall(r"\| (?:dashboard [A-Z]\w+, )?\"([^\"]+)\" \|", text):
        assert title in titles, f"there is no panel {title!r}"


async def test_its_endpoints_exist(tmp_path: Path) -> None:
    """What is typed at three in the morning must not answer 404."""
    async with over(tmp_path, ["ollama"], environ={"TIERWAY_ADMIN_KEY": "an-admin-key-that-nobody-guesses"}) as service:
        async with httpx2.AsyncClient(base_url=service.url) as client:
            paths = list((await client.get("/openapi.json")).json()["paths"])
    shapes = [re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)) for path in paths]
    for page in PAGES:
        for found in re.findall(
            r"(?<![\w/.])(/(?:admin|v1)/[\w/{}-]*\w|/(?:healthz|readyz|metrics))\b", page.read_text()
        ):
            assert found in NOT_SPOKEN or any(shape.fullmatch(found) for shape in shapes), f"{page.name}: {found}"


def test_blocks_for_other_programs_are_theirs() -> None:
    """Compose and kustomize read these two."""
    (compose,) = re.findall(r"```yaml compose\n(.*?)```", (DOCS / "docker.md").read_text(), re.DOTALL)
    assert set(yaml.safe_load(compose)["services"]) == {"gateway"}
    (images,) = re.findall(r"```yaml kustomize\n(.*?)```", (DOCS / "kubernetes.md").read_text(), re.DOTALL)
    assert [image["name"] for image in yaml.safe_load(images)["images"]] == ["tierway"]
    assert "image: tierway:" in (ROOT / "deploy" / "kubernetes" / "base" / "deployment.yaml").read_text()
