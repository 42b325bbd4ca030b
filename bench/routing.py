"""What it costs to choose a model, in this process: the classification of prompts of several sizes, and the plan over
many models. No sockets, no upstream; what a whole request costs is `compare`'s affair."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from statistics import median
from typing import Final

from app.core.caller import Caller
from app.core.card import Ability, Card
from app.core.messages import Message, TextPart
from app.core.money import Price
from app.core.request import Request, Terms
from app.core.verdict import Verdict
from app.recall.embedder import load_embedder, wheel_folder
from app.routing.classifier import Classifier
from app.routing.features import asked
from app.routing.policy import plan
from app.routing.registry import Registry
from app.routing.rules import Rules
from app.routing.signals import Signals

SIZES: Final = {"200 B": 200, "1 KB": 1_000, "50 KB": 50_000}
MODELS: Final = 20
SENTENCES: Final = (
    "Write a function that merges two sorted lists and keeps the order of equal elements. ",
    "It is called for every line of a log, so it must not copy more than it has to. ",
    "Explain afterwards why the test for empty lists failed before. ",
)
Row = tuple[str, float]


def request_of(size: int) -> Request:
    text = "".join(islice(cycle(SENTENCES), size // min(map(len, SENTENCES)) + 1))[:size]
    return Request(
        model="auto",
        messages=(Message("user", (TextPart(text),)),),
        terms=Terms("bench", "bench"),
        dialect="chat",
        body={},
        needs=frozenset({Ability.CHAT}),
        input_bytes=size,
    )


def registry_of(models: int) -> Registry:
    """Half of them local, each meant for another range."""
    price = Price(1_000_000, 5_000_000, 100_000, 1_000_000, 1_000_000)
    kinds = frozenset({Ability.CHAT, Ability.TOOLS})
    return Registry(
        Card(
            *(f"up{at % 4}/model-{at}", f"model-{at}", f"up{at % 4}", "openai", at % 2 == 0, kinds),
            context_window=128_000,
            price=None if at % 2 == 0 else price,
            complexity=(0.0, (at + 1) / models),
        )
        for at in range(models)
    )


def cpu_us(work: Callable[[], object], repeat: int) -> float:
    """CPU-microseconds of one call: the median of five rounds, after a warm-up."""
    rounds = []
    for _ in range(6):
        start = time.process_time()
        for _ in range(repeat):
            work()
        rounds.append((time.process_time() - start) / repeat * 1e6)
    return median(rounds[1:])


def measured(repeat: int) -> Iterator[Row]:
    classifier, embedder = Classifier.load(), load_embedder(wheel_folder())

    def judged(request: Request) -> Verdict:
        ask = asked(request)
        return classifier.judge(ask, None if embedder is None else embedder.embed([ask.gist])[0])

    for name, size in SIZES.items():
        request = request_of(size)
        yield f"classification, {name}", cpu_us(partial(judged, request), repeat)
    short, registry, rules, signals = request_of(200), registry_of(MODELS), Rules(), Signals()
    verdict = judged(short)
    yield (
        f"plan, {MODELS} models",
        cpu_us(lambda: plan(short, Caller(), registry, rules, signals, verdict), repeat),
    )


def table(rows: Iterator[Row]) -> str:
    lines = [f"| {name} | {figure:,.0f} |" for name, figure in rows]
    return "\n".join(["| | CPU-us |", "|---|---:|", *lines])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("--repeat", type=int, default=500, help="calls in a round; there are six (default: 500)")
    print(table(measured(parser.parse_args(arguments).repeat)))


if __name__ == "__main__":
    main()
