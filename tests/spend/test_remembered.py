from __future__ import annotations

import logging
from pathlib import Path

import pytest

from app.spend.entries import Entry, encode
from app.spend.remembered import Remembered


def test_a_gateway_that_never_ran_knows_nothing(tmp_path: Path) -> None:
    assert Remembered(tmp_path / "none").read() == ""


def test_what_was_known_is_known_after_a_restart(tmp_path: Path) -> None:
    Remembered(tmp_path / "ledger").write("begun-1")
    Remembered(tmp_path / "ledger").write("reset-2")
    assert Remembered(tmp_path / "ledger").read() == "reset-2"
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == ["epoch"]


def test_the_journal_remembers_where_the_file_is_lost(tmp_path: Path) -> None:
    """Without it, an emptied store would look like a new one."""
    lines = [
        encode(Entry("R", "l", 0, 1, (), epoch, at)) for at, epoch in ((5, "begun-2"), (9, "reset-3"), (1, "begun-1"))
    ]
    (tmp_path / "journal-a-000001.jsonl").write_bytes(b"".join(lines))
    assert Remembered(tmp_path).read() == "reset-3"


def test_a_disk_that_takes_nothing_stops_no_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "ledger").write_text("a file where the folder should be")
    with caplog.at_level(logging.ERROR):
        Remembered(tmp_path / "ledger").write("begun-1")
    assert "cannot be remembered" in caplog.text
