"""Without these a store that lost its books could not be given them back, or the disk would fill up with proofs."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.clock import ManualClock
from app.spend import journal as journals
from app.spend.entries import CORRECTED, EXPIRED, EXTENDED, RESERVED, SETTLED, Entry, encode
from app.spend.journal import EVER, GRACE_MS, KEEP_MS, Journal, Tally, entries, files_of, make_room, over_at, read, seal
from app.spend.lines import OwnedFile
from tests.spend.steps import DAY, ENDS_MS, NOW_MS, REQUEST, TOTAL, step
from tests.store.live import eventually


@contextlib.asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[Journal]:
    journal = Journal(folder, ManualClock(NOW_MS / 1000), **more)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.aclose()


def write(folder: Path, *what: Entry, name: str = "journal-0-000001") -> Path:
    """A file that a dead process left."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(map(encode, what)))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_is_noted_can_be_read_at_once_and_later(tmp_path: Path) -> None:
    noted = [step(), step(SETTLED, amount=5), step(EXPIRED, "b", 700)]
    async with opened(tmp_path / "ledger") as journal:
        for entry in noted:
            journal.note(entry)
        assert await journal.flush() and journal.healthy and journal.lost == 0
        assert [*entries(tmp_path)] == noted  # the data folder will do
    assert [*entries(tmp_path / "ledger")] == noted


async def test_an_idle_gateway_leaves_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        assert len(names(tmp_path)) == 1 and journal.gateway in names(tmp_path)[0]
    assert names(tmp_path) == []


async def test_a_full_file_is_sealed_under_the_end_of_its_periods(tmp_path: Path) -> None:
    async with opened(tmp_path, file_bytes=400) as journal:
        for number in range(6):
            journal.note(step(id=str(number), counters=(DAY,)))
            await journal.flush()
        await eventually(lambda: len([*tmp_path.glob("*.gz")]) >= 2 and len([*tmp_path.glob("*.jsonl")]) <= 1)
        assert all(f".until-{ENDS_MS}." in path.name for path in tmp_path.glob("*.gz"))
        assert {entry.lease for entry in entries(tmp_path)} == set("012345")
        mode = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert mode == {0o600}


@pytest.mark.parametrize(
    ("counters", "until"),
    [((DAY,), str(ENDS_MS)), ((DAY, REQUEST), str(NOW_MS + REQUEST.keep_ms)), ((DAY, TOTAL), "ever")],
)
async def test_evidence_of_a_limit_without_end_is_kept(tmp_path: Path, counters: Any, until: str) -> None:
    async with opened(tmp_path, file_bytes=1) as journal:
        journal.note(step(counters=counters))
        await journal.flush()
        await eventually(lambda: len([*tmp_path.glob(f"*.until-{until}.jsonl.gz")]) == 1)


async def test_what_a_dead_gateway_left_is_taken_over(tmp_path: Path) -> None:
    """Its last settlements may never have come to the store."""
    left = [step(), step(EXTENDED, held=900), step(SETTLED, amount=5), step(CORRECTED, "b", 6), step(EXPIRED, "c", 7)]
    old = step(SETTLED, "d", 1, final="recorded", at_ms=NOW_MS - 600_000)
    new = step(SETTLED, "e", 1, final="recorded", at_ms=NOW_MS - 1_000)
    path = write(tmp_path, *left, old, new)
    async with opened(tmp_path, seal_after=0.0) as journal:
        assert [*journal.left_over] == [left[2], left[3], new]
        await eventually(lambda: not path.exists())
        assert [*entries(tmp_path)] == [*left, old, new]


async def test_only_one_takes_it_over(tmp_path: Path) -> None:
    write(tmp_path, step(SETTLED, amount=5))
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        assert len(first.left_over) == 1 and second.left_over == []
    async with opened(tmp_path) as third:  # it was not sealed yet, so it is taken over again
        assert len(third.left_over) == 1


async def test_who_lives_or_ended_in_peace_leaves_nothing_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        first.note(step(SETTLED, amount=5))
        await first.flush()
        async with opened(tmp_path) as second:
            assert second.left_over == []
    async with opened(tmp_path, seal_after=0.0) as third:
        assert third.left_over == []
        await eventually(lambda: len([*tmp_path.glob("*.gz")]) == 1)
        # For a moment both files are there, which harms nobody: a lease counts once.
        await eventually(lambda: [*entries(tmp_path)] == [step(SETTLED, amount=5)])


async def test_only_the_end_of_a_long_file_is_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "TAIL_BYTES", 1_200)
    path = write(tmp_path, *(step(SETTLED, str(number), 5) for number in range(9)))
    async with opened(tmp_path) as journal:
        assert 1 <= len(journal.left_over) <= 3 and journal.left_over[-1].lease == "8"
        assert path.exists()


async def test_a_folder_that_cannot_be_written_breaks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a folder")
    async with opened(tmp_path / "file") as journal:
        assert not journal.healthy and journal.left_over == ()
        for _ in range(3):
            journal.note(step())
            assert not await journal.flush()
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


async def test_after_a_failed_write_a_new_file_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one may end in half a line."""
    real = OwnedFile.append

    def cut(file: OwnedFile, data: bytes) -> None:
        real(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    async with opened(tmp_path) as journal:
        monkeypatch.setattr(OwnedFile, "append", cut)
        journal.note(step(id="a"))
        assert not await journal.flush() and not journal.healthy
        monkeypatch.setattr(OwnedFile, "append", real)
        await eventually(lambda: journal.healthy)
        tally = Tally()
        assert [entry.lease for entry in entries(tmp_path, tally)] == ["a"]
        assert (tally.torn, tally.files, len(names(tmp_path))) == (1, 2, 2)


async def test_what_cannot_be_packed_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals, "_pack", full)
    path = write(tmp_path, step())
    async with opened(tmp_path, seal_after=0.0):
        await eventually(lambda: "could not be packed" in caplog.text)
    assert [*entries(tmp_path)] == [step()] and path.exists()


def test_sealing_takes_no_living_or_missing_file_and_drops_an_empty_one(tmp_path: Path) -> None:
    owned = OwnedFile.create(tmp_path / "journal-1-000001.jsonl")
    assert seal(owned.path) is None and owned.path.exists()
    owned.close()
    assert seal(owned.path) is None and not owned.path.exists()
    assert seal(owned.path) is None


def test_a_file_that_is_sealed_while_it_is_looked_for_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, step())
    listed = files_of(tmp_path)
    sealed = seal(path)
    assert sealed is not None and [*read(listed[0])] == [step()]
    sealed.unlink()
    assert [*read(listed[0])] == []


def packed(folder: Path, until: str, size: int = 10) -> Path:
    path = folder / f"journal-0-{len(names(folder)):06}.until-{until}.jsonl.gz"
    path.write_bytes(os.urandom(size))
    return path


def test_room_is_made_only_of_what_proves_nothing_any_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ancient = packed(tmp_path, str(NOW_MS - KEEP_MS - 1))
    over = packed(tmp_path, str(NOW_MS - GRACE_MS - 1))
    just_over = packed(tmp_path, str(NOW_MS - 5))
    kept = [just_over, packed(tmp_path, str(NOW_MS + 5)), packed(tmp_path, "ever"), packed(tmp_path, "²x")]
    make_room(tmp_path, NOW_MS)
    assert not ancient.exists() and over.exists() and "proof" not in caplog.text
    make_room(tmp_path, NOW_MS, keep_bytes=45)
    assert not over.exists() and all(path.exists() for path in kept) and "proof" not in caplog.text
    make_room(tmp_path, NOW_MS, keep_bytes=5)
    assert all(path.exists() for path in kept) and "proof" in caplog.text


def test_when_a_counter_is_over() -> None:
    assert over_at(DAY, 5) == ENDS_MS and over_at(TOTAL, 5) == EVER and over_at(REQUEST, 5) == 5 + REQUEST.keep_ms


@given(st.lists(st.sampled_from([step(), step(SETTLED, amount=5)]), max_size=5), st.binary(max_size=40), st.data())
def test_garbage_between_lines_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, noted: list[Entry], garbage: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    lines = [*map(encode, noted)]
    lines.insert(data.draw(st.integers(0, len(lines))), garbage.replace(b"\n", b"") + b"\n")
    (folder / "journal-0-000001.jsonl").write_bytes(b"".join(lines))
    tally = Tally()
    assert [*entries(folder, tally)] == noted and (tally.foreign, tally.entries) == (1, len(noted))


def test_a_packed_file_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(encode(step(id=os.urandom(8).hex())) for _ in range(300)))
    (tmp_path / "journal-0-000001.until-5.jsonl.gz").write_bytes(data[:-500])
    tally = Tally()
    assert 0 < len([*entries(tmp_path, tally)]) < 300 and tally.damaged == 1


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from app.core.clock import SystemClock
from app.spend.journal import Journal
from tests.spend.steps import step

async def main():
    journal = Journal(Path(sys.argv[1]), SystemClock())
    await journal.open()
    for number in range(200):
        journal.note(step("S", str(number), 1))
        if number % 50 == 49:
            assert await journal.flush()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(tmp_path)], timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert len([*entries(tmp_path)]) == 200
    async with opened(tmp_path) as journal:
        assert len(journal.left_over) == 200


def test_a_reservation_is_no_left_over() -> None:
    assert not step(RESERVED).is_last_word and not step(EXTENDED).is_last_word
