"""Without these a crash would leave files that nobody reads, or that two processes write."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.spend.lines import LONGEST_LINE, OwnedFile, Tally, lines_of, take_over


def refusing(number: int) -> Callable[[int, int], None]:
    def flock(file: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def read(path: Path, start: int = 0) -> tuple[list[bytes], Tally]:
    tally = Tally()
    return [*lines_of(path, tally, start)], tally


def test_what_was_appended_is_there(tmp_path: Path) -> None:
    file = OwnedFile.create(tmp_path / "new" / "f.jsonl")
    file.append(b"one\n")
    file.append(b"two\n")
    assert file.path.read_bytes() == b"one\ntwo\n" and file.size == 8
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600 and stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    file.clear()
    file.append(b"three\n")
    assert file.path.read_bytes() == b"three\n" and file.size == 6
    file.discard()
    assert [*file.path.parent.iterdir()] == []


def test_closing_may_leave_a_mark(tmp_path: Path) -> None:
    OwnedFile.create(tmp_path / "f.jsonl").close(".done")
    file = take_over(tmp_path / "f.done.jsonl")
    assert file is not None and [path.name for path in tmp_path.iterdir()] == ["f.done.jsonl"]
    os.close(file)
    lost = OwnedFile.create(tmp_path / "g.jsonl")
    lost.path.unlink()
    with pytest.raises(FileNotFoundError):
        lost.close(".done")


def test_a_file_has_one_owner(tmp_path: Path) -> None:
    owned = OwnedFile.create(tmp_path / "f")
    assert take_over(owned.path) is None
    owned.close()
    file = take_over(owned.path)
    assert file is not None and take_over(owned.path) is None
    os.close(file)


def test_a_file_that_is_gone_has_nothing_to_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it went between opening and locking it."""
    path = tmp_path / "f"
    assert take_over(path) is None
    path.touch()
    monkeypatch.setattr(fcntl, "flock", lambda file, how: path.unlink())
    assert take_over(path) is None


def test_a_file_system_without_locks_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    file = OwnedFile.create(tmp_path / "f")
    file.append(b"one\n")
    assert take_over(file.path) is None
    file.close()


def test_what_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError):
        OwnedFile.create(tmp_path / "f")
    assert [*tmp_path.iterdir()] == []


@given(lines=st.lists(st.binary(max_size=9).map(lambda each: each.replace(b"\n", b"."))), cut=st.integers(0, 9))
def test_whole_lines_are_read_and_a_torn_one_is_counted(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cut: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "f"
    whole = b"".join(line + b"\n" for line in lines)
    left = whole[: max(0, len(whole) - cut)]
    path.write_bytes(left)
    found, tally = read(path)
    *ended, rest = left.split(b"\n")
    assert found == [line + b"\n" for line in ended] and tally.torn == (rest != b"")


def test_a_line_without_end_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\n" + b"x" * (2 * LONGEST_LINE + 5) + b"\ntwo\n" + b"y" * LONGEST_LINE)
    found, tally = read(path)
    assert found == [b"one\n", b"two\n"] and (tally.foreign, tally.torn) == (2, 0)


def test_reading_may_begin_inside(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\ntwo\nthree\n")
    assert read(path, 5)[0] == [b"wo\n", b"three\n"]


def test_a_packed_file_reads_alike_and_may_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "f.gz"
    packed = gzip.compress(b"".join(b"%d\n" % number for number in range(5_000)))
    path.write_bytes(packed)
    found, tally = read(path)
    assert len(found) == 5_000 and tally == Tally(files=1)
    path.write_bytes(packed[:-2_000])
    found, tally = read(path)
    assert 0 < len(found) < 5_000 and tally.damaged == 1
    path.write_bytes(packed[:200] + b"\xff" * 50 + packed[250:])
    assert read(path)[1].damaged == 1
    path.write_bytes(b"no gzip")
    assert read(path) == ([], Tally(files=1, damaged=1))
