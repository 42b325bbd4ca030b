"""Whatever comes in from clients, upstreams, files and the store ends in a value or in a documented error. What raises
anything else is a 500 for a user, a stream that just stops, or a gateway that does not start."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import time
from collections.abc import Iterator
from random import Random
from types import FrameType
from typing import Final

import orjson
import pytest
import structlog

from app.core.errors import GatewayError
from app.wire.objects import write_error
from tests.fuzz import keeping, outside, wires
from tests.fuzz.budget import SECONDS, SEED, TIMEOUT
from tests.fuzz.parser import Parser

pytestmark = [pytest.mark.timeout(TIMEOUT)]

PARSERS: Final = (*wires.PARSERS, *outside.PARSERS, *keeping.PARSERS)
CASES: Final = 25
"""Of each parser, the short way."""
STUCK_SECONDS: Final = 20.0
"""Of processor time, for one input of at most some hundred thousand bytes: it will not end."""
GROWTH_KIB: Final = 1 << 19


@pytest.fixture
def watched() -> Iterator[None]:
    """Whoever burns time on one input is stopped there. Time that the machine spends on others does not count."""

    def stuck(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the parser hangs")

    before = signal.signal(signal.SIGVTALRM, stuck)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.fixture
def silent() -> Iterator[None]:
    """A line of the log for each bad input would be all that this test keeps in memory."""
    config = structlog.get_config()
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    structlog.configure(**config)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.mark.parametrize("parser", PARSERS, ids=str)
def test_nothing_that_comes_in_breaks_the_gateway(
    parser: Parser, watched: None, silent: None, loop: asyncio.AbstractEventLoop
) -> None:
    dice = Random(f"{SEED} {parser}")
    end, done, refused = time.monotonic() + SECONDS, 0, 0
    for data in parser.corpus:
        refused += tried(parser, data, dice, loop)
    while done < CASES or time.monotonic() < end:
        data = dice.choice(parser.corpus)
        for _ in range(dice.choice((1, 1, 2, 3))):
            data = parser.mutate(dice, data, parser.corpus)
        refused += tried(parser, data, dice, loop)
        done += 1
    print(f"{parser}: {done} inputs, {refused} refused (seed {SEED})")  # noqa: T201 - what pytest -rP shows


def tried(parser: Parser, data: bytes, dice: Random, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether it was refused, with an error that a client may see."""
    before = peak_kib()
    signal.setitimer(signal.ITIMER_VIRTUAL, STUCK_SECONDS)
    try:
        waiting = parser.attempt(data, dice)
        if waiting is not None:
            loop.run_until_complete(asyncio.wait_for(waiting, 60))
        return False
    except parser.allowed as error:
        if isinstance(error, GatewayError):
            assert 400 <= error.status < 600
            orjson.loads(write_error(error))
        return True
    except BaseException as error:
        error.add_note(f"{parser}, seed {SEED}: {data!r}")
        raise
    finally:
        assert peak_kib() - before < GROWTH_KIB, f"{parser}, seed {SEED}: takes too much memory: {data[:5_000]!r}"


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
