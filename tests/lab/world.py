"""A world small enough to train on in a second: hard prompts prove things, easy ones greet."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import orjson

from app.core.verdict import TASKS, TIER_NAMES
from app.lab.boosting import Growth
from app.lab.fitting import Recipe

SMALL = Growth(trees=20, depth=3, rate=0.2, penalty=5.0)
RECIPE = Recipe(seed=3, level=SMALL, gain=SMALL)

HARD = "Prove that the {} theorem holds for every integer n and derive the bound."
EASY = "Hello, what is the colour of {}?"
NOUNS = ("matrix", "banana", "river", "graph", "window", "field", "apple", "kernel", "garden", "ring", "paper", "lamp")


def prompts(count: int, seed: int) -> list[tuple[str, bool]]:
    draw = random.Random(seed)
    found = []
    for number in range(count):
        hard = draw.random() < 0.5
        text = (HARD if hard else EASY).format(f"{draw.choice(NOUNS)} {draw.choice(NOUNS)} {number}")
        found.append((text, hard))
    return found


def routing(count: int = 160, suite: str = "mmlu", seed: int = 1) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for number, (prompt, hard) in enumerate(prompts(count, seed)):
        row = {
            "id": f"{suite}-{number}",
            "suite": suite,
            "prompt": prompt,
            "weak": int(not hard and draw.random() < 0.9),
            "strong": int(draw.random() < 0.9),
        }
        rows.append(row if suite != "mmlu_pro" else {**row, "solved": 3 if hard else 9, "models": 12})
    return rows


def tier(count: int = 160) -> list[dict[str, Any]]:
    return [
        {
            "id": f"tier-{number}",
            "source": "math",
            "prompt": prompt,
            "tier": TIER_NAMES[(2 if hard else 0) + number % 2],
        }
        for number, (prompt, hard) in enumerate(prompts(count, 2))
    ]


def task() -> list[dict[str, Any]]:
    return [
        {
            "id": f"task-{number}",
            "source": "written",
            "kind": "natural",
            "prompt": f"Please {name.replace('_', ' ')} the {noun} for me",
            "task": name,
        }
        for number, noun in enumerate(NOUNS)
        for name in TASKS
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    data = b"\n".join(map(orjson.dumps, rows))
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def fill(folder: Path) -> Path:
    """Writes the whole world, and what may lie beside it."""
    write(folder / "routing.jsonl.gz", [*routing(), *routing(60, "mmlu_pro", 5), *routing(40, "arc_challenge", 7)])
    write(folder / "tier.jsonl.gz", tier())
    write(folder / "task.jsonl", task())
    write(folder / "cache_pairs.jsonl", [{"id": "x", "a": "one", "b": "two", "same": True}])
    (folder / "README.md").write_text("not rows")
    return folder
