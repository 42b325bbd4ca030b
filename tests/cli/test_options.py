"""Without these a mistake in a configuration or an argument ends in a stack trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel, Field

from app.cli import main, options
from app.core.errors import StoreUnavailable
from app.store.errors import StoreUnusable
from tests.cli.conftest import Run


def every_command(command: click.Command = main, *path: str) -> list[tuple[str, ...]]:
    inner = command.commands.items() if isinstance(command, click.Group) else ()
    return [path, *(each for name, below in inner for each in every_command(below, *path, name))]


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(run: Run, path: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        result = run(*path, flag)
        assert result.exit_code == 0
        example = result.output.partition("Example:\n")[2]
        assert "tierway " in example.splitlines()[0] or "_URL=" in example.splitlines()[0]
        assert " ".join(("tierway", *path)) in example, "the example is of this command"


@pytest.mark.parametrize("path", [(), ("keys",)], ids=" ".join)
def test_lists_of_commands_are_not_cut(run: Run, path: tuple[str, ...]) -> None:
    listed = run(*path, "--help").output.partition("Commands:\n")[2].splitlines()
    assert listed and all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_examples_name_what_there_is(path: tuple[str, ...]) -> None:
    """An option in an example that does not exist is a newcomer's first error."""
    command: Any = main
    for name in path:
        command = command.commands[name]
    for line in (command.help or "").partition("Example:")[2].splitlines():
        words = line.split()
        if "tierway" not in words:
            continue
        named: Any = main
        words = words[words.index("tierway") + 1 :]
        while words and isinstance(named, click.Group):
            named = named.commands[words.pop(0)]
        known = {option for each in named.params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_who_asks_a_gateway_asks_that_of_this_environment(
    monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]
) -> None:
    """Who moved the gateway to another port need not say so to each command."""
    command: Any = main
    for name in path:
        command = command.commands[name]
    monkeypatch.setenv("TIERWAY_HOST", "0.0.0.0")
    monkeypatch.setenv("TIERWAY_PORT", "8099")
    defaults = [each.get_default(click.Context(command)) for each in command.params if "--url" in each.opts]
    assert defaults in ([], ["http://127.0.0.1:8099"])


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").output.startswith("tierway, version ")


@pytest.mark.parametrize("command", ["check", "serve", "keys list"])
def test_everything_wrong_with_a_configuration_is_said_at_once(run: Run, tmp_path: Path, command: str) -> None:
    file = tmp_path / "tierway.yaml"
    file.write_text("routting: {}\nlimits: {in_flight: many}\n")
    result = run(*command.split(), "--config", str(file), TIERWAY_PROT="1")
    assert result.exit_code == 2 and result.stdout == ""
    lines = result.stderr.splitlines()
    assert any("tierway.yaml:1" in line and "did you mean routing?" in line for line in lines)
    assert any("in_flight" in line for line in lines)
    assert any("TIERWAY_PROT" in line and "TIERWAY_PORT" in line for line in lines)


@pytest.mark.parametrize("path", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_said_to_be_that(run: Run, tmp_path: Path, path: str) -> None:
    result = run("check", "--offline", "--config", str(tmp_path / path))
    assert result.exit_code == 2 and "Traceback" not in result.output and str(tmp_path) in result.stderr


class Spec(BaseModel):
    name: str = Field(min_length=1)
    days: int = 0


def test_arguments_that_do_not_fit_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert options.checked(lambda: Spec(name="x")).name == "x"
    with pytest.raises(SystemExit) as caught:
        options.checked(lambda: Spec.model_validate({"name": "", "days": "x"}))
    said = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and [line.partition(":")[0] for line in said] == ["name", "days"]


@pytest.mark.parametrize("error", [StoreUnusable("The disk is full."), StoreUnavailable("The disk is full.")])
def test_an_expected_error_is_one_line(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    async def failing() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        options.run(failing())
    assert caught.value.code == 1 and capsys.readouterr().err == "The disk is full.\n"


def test_work_comes_to_its_result() -> None:
    async def work() -> int:
        return 5

    assert options.run(work()) == 5
