"""Where everyday prompts go: the section of the routing guide, written by asking a real gateway over simulated models.

`python -m tests.docs.everyday` writes it into the guide again; `test_everyday` holds that it is still so.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from app.simulator.behaviour import Behaviour, SimModel
from app.simulator.server import simulate
from tests.flows.service import gateway, upstream

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "routing.md"
BEGIN, END = "<!-- everyday prompts: written by python -m tests.docs.everyday -->\n", "<!-- /everyday prompts -->"

SMALL, MEDIUM = "ollama/rnj-1", "gpu/qwen3-coder-30b-a3b"
SONNET, OPUS = "claude/claude-sonnet-5-5", "claude/claude-opus-5-5"
LOCAL, STRONG = frozenset({SMALL, MEDIUM}), frozenset({MEDIUM, SONNET, OPUS})
SERVERS: Final = {
    "ollama": ("ollama", (SimModel("rnj-1"),)),
    "gpu": ("vllm", (SimModel("qwen3-coder-30b-a3b", "medium", "30B", 65_536),)),
    "claude": (
        "anthropic",
        tuple(SimModel(name.partition("/")[2], "large", "?", 1_000_000, 128_000) for name in (SONNET, OPUS)),
    ),
}
NOTES: Final[dict[str, dict[str, Any]]] = {
    SMALL: {"complexity": [0.0, 0.4]},
    MEDIUM: {"complexity": [0.2, 0.7]},
    SONNET: {"complexity": [0.3, 0.8], "price": {"input": 2.0, "output": 10.0}},
    OPUS: {"complexity": [0.6, 1.0], "price": {"input": 4.0, "output": 20.0}},
}
"""As in the guide's example: two local models that cost nothing, and two of Claude's."""


@dataclass(frozen=True, slots=True)
class Everyday:
    """A prompt, and the models that common sense would send it to."""

    prompt: str
    fits: frozenset[str]


PROMPTS: Final = (
    Everyday("What is the capital of Portugal?", frozenset({SMALL})),
    Everyday("Convert 5 miles to kilometres.", frozenset({SMALL})),
    Everyday("Translate 'good morning' into Spanish.", frozenset({SMALL})),
    Everyday("Fix the typo in this sentence: I recieved your mesage.", frozenset({SMALL})),
    Everyday("Write a friendly two-line reminder about the team lunch on Friday.", frozenset({SMALL})),
    Everyday("How do I undo the last git commit but keep the changes?", LOCAL),
    Everyday("Summarise the difference between TCP and UDP in three sentences.", LOCAL),
    Everyday("Write a Python function that reverses a string.", LOCAL),
    Everyday("Write a regular expression that matches an IPv4 address.", LOCAL),
    Everyday("Explain what a foreign key is to somebody new to databases.", LOCAL),
    Everyday("Write unit tests for a function that parses ISO dates, including invalid input.", LOCAL),
    Everyday("Write a docstring for a function that retries an HTTP call with backoff.", LOCAL),
    Everyday("Why does my React component render twice in development?", LOCAL),
    Everyday("Turn this SQL query with three nested subselects into one with joins and explain each step.", STRONG),
    Everyday(
        "A test passes alone but fails when the suite runs in parallel, in one of ten runs. How do I find out why?",
        STRONG,
    ),
    Everyday(
        "Review this design: a cache in front of our payment API keyed by user id, filled on read and never"
        " invalidated. What can go wrong, and how would you mend it?",
        STRONG,
    ),
    Everyday(
        "Design a multi-region, multi-tenant event pipeline with exactly-once billing. Compare at least three"
        " architectures, their failure modes and their migration paths.",
        frozenset({SONNET, OPUS}),
    ),
    Everyday(
        "Prove that every bounded sequence of real numbers has a convergent subsequence, and give a counterexample"
        " for infinite-dimensional spaces with a full justification.",
        frozenset({SONNET, OPUS}),
    ),
    Everyday(
        "Implement a lock-free multi-producer multi-consumer queue in C++20, argue why each memory order is correct,"
        " and describe how you would prove the absence of the ABA problem.",
        frozenset({SONNET, OPUS}),
    ),
    Everyday(
        "Our service deadlocks once a day under load: two thread pools, a connection pool and a distributed lock are"
        " involved. Work out the possible cycles and propose a redesign that rules all of them out.",
        STRONG,
    ),
)


async def answers(prompts: Iterable[Everyday] = PROMPTS) -> list[dict[str, Any]]:
    """What `POST /v1/route`, and so `tierway route`, says to each, right after a start."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sims = {
            name: await stack.enter_async_context(simulate(kind, Behaviour(models)))
            for name, (kind, models) in SERVERS.items()
        }
        service = await stack.enter_async_context(
            gateway(
                folder,
                {name: upstream(sim) for name, sim in sims.items()},
                sims,
                environ={"ANTHROPIC_API_KEY": "simulated"},
                models=NOTES,
            )
        )
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=service.url))
        return [await _answer(client, each.prompt) for each in prompts]


async def _answer(client: httpx2.AsyncClient, prompt: str) -> dict[str, Any]:
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
    reply = await client.post("/v1/route", json=body)
    assert reply.status_code == 200, reply.text
    said: dict[str, Any] = reply.json()
    return said


def section(prompts: Sequence[Everyday], said: Sequence[dict[str, Any]]) -> str:
    """The table, with what `tierway route` prints in words below it for one of them."""
    rows = [
        f"| {each.prompt} | {_words(answer['tier'])}, {_words(answer['task_type'])} | `{answer['model']}` "
        f"| {_usd(answer)} | {answer['candidates'][0]['reason']} |"
        for each, answer in zip(prompts, said, strict=True)
    ]
    return "\n".join(["| prompt | looks | goes to | USD | because |", "|---|---|---|--:|---|", *rows, ""])


def within(guide: str) -> str:
    """The section as it stands in the guide."""
    return guide.partition(BEGIN)[2].partition(END)[0]


def replaced(guide: str, made: str) -> str:
    """The guide with this section."""
    before, begin, rest = guide.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "the guide has lost the marks between which the section stands"
    return f"{before}{begin}{made}{end}{after}"


def _words(name: str | None) -> str:
    return (name or "unknown").replace("_", " ")


def _usd(answer: dict[str, Any]) -> str:
    cost = answer["candidates"][0]["cost_usd"]
    return "unknown" if cost is None else f"{cost:.4f}" if cost else "0"


if __name__ == "__main__":
    GUIDE.write_text(replaced(GUIDE.read_text(), section(PROMPTS, asyncio.run(answers()))))
