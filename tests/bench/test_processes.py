"""What is read from /proc: a child that is forgotten would make a gateway look cheaper than it is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import (
    TICK,
    CpuMeter,
    OtherLoad,
    connections_to,
    core_busy,
    descriptors,
    on_core,
    pss,
    rss,
    send,
    stat_fields,
    threads,
    tree,
    without_stores,
)

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process and its child."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        yield parent.pid, int(parent.stdout.readline())
        send([parent.pid], signal.SIGCONT)


def test_children_are_part_of_the_tree(family: tuple[int, int]) -> None:
    """The embedded store is a child of the gateway, and counts."""
    parent, child = family
    assert tree(parent) == [parent, child]
    assert rss([parent, child]) > rss([parent]) > 1_000_000
    assert 0 < pss([parent, child]) <= rss([parent, child])


def test_a_process_that_is_gone_counts_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    assert tree(gone.pid) == []
    assert rss([gone.pid]) == pss([gone.pid]) == CpuMeter([gone.pid]).seconds() == 0
    send([gone.pid], signal.SIGCONT)


def test_a_stopped_process_stands_still(family: tuple[int, int]) -> None:
    """Only the gateway that is measured may run."""
    send(family, signal.SIGSTOP)
    stat = Path(f"/proc/{family[1]}/stat")
    deadline = time.monotonic() + 5
    while stat_fields(stat.read_bytes())[0] != b"T" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stat_fields(stat.read_bytes())[0] == b"T"
    send(family, signal.SIGCONT)


def test_cpu_time_that_is_used_is_seen() -> None:
    meter = CpuMeter([os.getpid()])
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.05 < meter.seconds() < 5


def test_names_with_brackets_do_not_shift_the_fields() -> None:
    assert stat_fields(b"12 (a) b (c)) S 7 8") == [b"S", b"7", b"8"]


def test_waiting_is_not_load() -> None:
    stat = b"cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 400 500 4 5 6 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n"
    assert core_busy(stat, 0) == 21 / TICK
    assert core_busy(stat, 1) == 0


def test_nothing_is_told_of_a_core_that_is_not_ours() -> None:
    assert OtherLoad(None, os.getpid()).share() == 0
    assert OtherLoad(0, None).share() == 0
    assert OtherLoad(min(os.sched_getaffinity(0)), os.getpid()).share() >= 0


def test_what_is_started_on_a_core_stays_there() -> None:
    """A gateway that wanders to the core of the load is measured with it."""
    before = os.sched_getaffinity(0)
    core = max(before)
    ask = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    with on_core(core):
        assert subprocess.run(ask, capture_output=True, check=True).stdout.split() == [str(core).encode()]
    with on_core(None):
        assert os.sched_getaffinity(0) == before


def test_the_server_of_a_store_is_not_the_gateways_own(tmp_path: Path) -> None:
    server = tmp_path / "valkey-server"
    shutil.copy("/bin/sleep", server)
    with subprocess.Popen([server, "60"]) as store:
        try:
            deadline = time.monotonic() + 10  # a process gets its name a moment after it began
            while len(without_stores([os.getpid(), store.pid])) > 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert without_stores([os.getpid(), store.pid]) == [os.getpid()]
        finally:
            store.kill()


def test_threads_descriptors_and_connections_are_counted() -> None:
    """What leaks is seen in these."""
    own = [os.getpid()]
    before = descriptors(own)
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert connections_to(port) == 0
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert connections_to(port) == 1
            assert threads(own) >= 2
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    assert descriptors(own) >= before + 50
    for each in opened:
        os.close(each)
    waiting.set()
    thread.join()
    assert threads([0]) == descriptors([0]) == 0
