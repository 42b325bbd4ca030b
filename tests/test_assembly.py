"""What a gateway is put together with: who it lets in at first, when it is ready, what it calls its models' state."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.assembly import is_loopback, log_error
from app.telemetry.logs import configure


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Where the log goes meanwhile."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    file = tmp_path / "log"
    with file.open("wb") as stream:
        configure("info", "json", stream)
        yield file
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


async def test_a_fault_of_ours_is_logged_with_its_place(log: Path) -> None:
    """The client was told only an id."""
    log_error("request mine", RuntimeError("a mistake"))
    assert '"where":"request mine"' in log.read_text() and "RuntimeError: a mistake" in log.read_text()
