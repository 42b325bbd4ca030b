"""The fenced blocks of every page that a reader copies from: what they are, and what they say to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])
FENCE: Final = re.compile(r"^( *)```([^\n`]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ASSIGNED: Final = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True, slots=True)
class Block:
    """`kind` is what stands behind the opening fence."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Typed:
    """One command: the variables before it, and its words, the program first."""

    where: str
    environ: dict[str, str]
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0].rpartition("/")[2]

    def named(self, option: str) -> list[str]:
        """What follows each of these options."""
        return [after for word, after in zip(self.words, self.words[1:], strict=False) if word == option]


def blocks_of(text: str, page: str) -> list[Block]:
    found = [
        Block(page, text.count("\n", 0, each.start()) + 1, each[2].strip(), each[3]) for each in FENCE.finditer(text)
    ]
    fences = len(re.findall(r"^ *(?:```|~~~)", text, re.MULTILINE))
    assert fences == 2 * len(found), f"{page}: a fence is not closed, or one of another form"
    return found


def typed(block: Block) -> Iterator[Typed]:
    """Its commands, without the file that one writes to. What a shell would do beyond running them one after the other
    is not understood, and fails."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield _one(block.where, words[:end])
            words = words[end + 1 :]


def _one(where: str, words: list[str]) -> Typed:
    environ = {}
    exported = words[:1] == ["export"]
    rest = words[1:] if exported else list(words)
    while rest and ASSIGNED.match(rest[0]):
        name, _, environ[name] = rest.pop(0).partition("=")
    if rest[-2:-1] == [">"]:
        del rest[-2:]
    assert not {"|", ">", "<", ";", "&"} & set(rest), f"{where}: {' '.join(words)!r} needs a shell to be understood"
    assert bool(rest) != exported, f"{where}: {' '.join(words)!r} is no command"
    return Typed(where, environ, tuple(rest or ["export"]))


BLOCKS: Final = [block for page in PAGES for block in blocks_of(page.read_text(), str(page.relative_to(ROOT)))]
COMMANDS: Final = [command for block in BLOCKS if block.kind in ("sh", "bash") for command in typed(block)]
