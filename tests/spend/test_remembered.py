from __future__ import annotations

import logging
from pathlib import Path

import pytest

from app.spend.entries import Entry, encode
from app.spend.remembered import TRUSTED_MS, Acknowledged, Remembered


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


def test_what_was_acknowledged_is_known_after_a_restart(tmp_path: Path) -> None:
    folder = Remembered(tmp_path / "ledger")
    first = folder.acknowledged("begun-1", 5)
    assert first.number == 0 and first.name
    folder.note(first._replace(number=7))
    assert Remembered(tmp_path / "ledger").acknowledged("begun-1", 5) == (first.name, "begun-1", 7, 5, ())
    assert Remembered(tmp_path / "ledger").acknowledged("reset-2", 5) == (first.name, "reset-2", 0, 5, ("begun-1",))
    assert Remembered(tmp_path / "ledger").acknowledged("begun-1", 5 + TRUSTED_MS).number == 0
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == ["acknowledged"]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{}",
        "[]",
        "{",
        '{"name":"","past":[]}',
        '{"name":"a","past":[1]}',
        '{"name":"a","past":[],"number":-1}',
        '{"name":"a","past":[],"number":true}',
        '{"name":"a","past":[],"other":1}',
        '{"name":1,"past":[]}',
        '{"name":"\\ud800","past":[]}',
    ],
)
def test_what_somebody_else_wrote_is_worth_nothing(tmp_path: Path, said: str) -> None:
    """It must neither stop the start nor refuse anything."""
    (tmp_path / "acknowledged").write_bytes(said.encode(errors="replace"))
    found = Remembered(tmp_path).acknowledged("begun-1", 5)
    assert (found.number, found.past, len(found.name)) == (0, (), 16)


def test_gateways_that_start_at_once_get_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each forgot what the other saw."""
    first = Remembered(tmp_path).acknowledged("", 5)
    late = Remembered(tmp_path)
    known = late._acknowledged
    answers = iter((None,))
    monkeypatch.setattr(late, "_acknowledged", lambda: next(answers, known()))
    assert late.acknowledged("", 5) == first


def test_a_disk_that_takes_nothing_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "ledger").write_text("a file where the folder should be")
    folder = Remembered(tmp_path / "ledger")
    assert len(folder.acknowledged("", 5).name) == 16
    with caplog.at_level(logging.ERROR):
        folder.note(Acknowledged("a", "b", 1))
        folder.note(Acknowledged("a", "b", 2))
    assert caplog.text.count("cannot be remembered") == 1
