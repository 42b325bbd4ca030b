"""What money costs is measured on the services that the gateway uses; how little, no test says."""

from __future__ import annotations

import contextlib
import sys

import pytest

from bench import money


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_row_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Else a change of the ledger's interfaces is noticed only when somebody wants to know what it costs."""
    money.main(["--connections", "4", "--rounds", "2", "--clients", "2", "--rate", "40", "--seconds", "0.5"])
    cpu, waits = (part.splitlines()[2:] for part in capsys.readouterr().out.strip().split("\n\n"))
    steps = ("admission", "settlement", "the loop itself")
    assert [cells(line)[0] for line in cpu] == [f"{step}: {case.name}" for case in money.CASES for step in steps]
    assert all(float(cells(line)[1]) > 0 for line in cpu if not cells(line)[0].startswith(steps[-1]))
    for line in waits:
        _, asked, *times, _ = cells(line)
        assert float(asked) > 0
        assert sorted(map(float, times)) == [*map(float, times)] and float(times[0]) > 0


def test_a_client_that_fails_fails_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of the others alone would look better than they are."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(money, "keeping", lambda data, always: contextlib.nullcontext())
    with pytest.raises(ChildProcessError):
        money.waits(2, 10.0, 0.1, False)
