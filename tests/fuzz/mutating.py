"""Makes new inputs out of real ones: bytes that are nearly right reach further into a parser than noise does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import yaml

MOST_BYTES: Final = 262_144
DEEP: Final = 120
LARGE: Final = 16_384
"""Of what is copied: copies of copies grow without end."""

VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30),
    *(0.5, -0.0, 1e308, 5e-324),
    *(float("nan"), float("inf"), "", " ", "\n", "\x00", "\ud800", "é", "😀", "null", "0", "-1", "1e999", "x" * 5_000),
    *("user", "assistant", "system", "tool", "text", "image_url", "tool_use", "tool_result"),
    *("function", "stop", "auto"),
    *("data:image/png;base64,iVBOR", "http://127.0.0.1:1/x", "{", '{"a":', "[" * 200, "tw-" + "A" * 43, "%s%n{}{0}"),
    *([], {}, [[]], [{}], [None], {"": None}, {"type": "text", "text": "x"}, {"type": "object", "properties": {}}),
)
PIECES: Final = (
    *(b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n\r\n"),
    *(b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u0000", b"\\ud800"),
    *(b",", b":", b": ", b"-", b".", b"e", b"null", b"true"),
    *(b"0", b"-1", b"99999999999999999999", b"1e400", b"NaN", b"Infinity"),
    *(b"data:", b"data: [DONE]\n\n", b"event: error\n"),
    *(b"{" * 300, b"[" * 300, b'{"a":' * 200, b"a" * 4_096),
    *(b"&a [*a, *a]", b"!!python/object:os.system", b"<<: *a", b"\t"),
)

Mutate = Callable[[Random, bytes, Sequence[bytes]], bytes]


def in_bytes(dice: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Some bytes of it become others, go, or come twice; or it goes on as another input does."""
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        a, b = sorted(dice.randrange(len(made) + 1) for _ in range(2))
        b = min(b, a + dice.choice((1, 4, 64, 4_096)))
        match dice.randrange(7):
            case 0:
                made[a:b] = b""
            case 1:
                made[a:a] = made[a:b]
            case 2:
                made[a:a] = dice.choice(PIECES)
            case 3:
                made[a:b] = dice.choice(PIECES)
            case 4 if a < len(made):
                made[a] ^= 1 << dice.randrange(8)
            case 5:
                other = dice.choice(corpus)
                made[a:] = other[dice.randrange(len(other) + 1) :]
            case _:
                made[b:] = b""
    return bytes(made[:MOST_BYTES])


def in_json(dice: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Still JSON, of another shape; what is none is taken as bytes."""
    try:
        return _dumped(dice, _reshaped(dice, json.loads(data)))
    except (ValueError, RecursionError):
        return in_bytes(dice, data, corpus)


def in_lines(dice: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """The JSON in some lines has another shape; lines go, come twice, or change places."""
    lines = data.splitlines(keepends=True) or [b""]
    for _ in range(dice.choice((1, 1, 2, 3))):
        at, other = dice.randrange(len(lines)), dice.randrange(len(lines))
        match dice.randrange(8):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(at, lines[other])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                body = lines[at].rstrip(b"\r\n")
                head, rest = (b"data: ", body[6:]) if body.startswith(b"data: ") else (b"", body)
                lines[at] = head + in_json(dice, rest, corpus) + lines[at][len(body) :]
    return b"".join(lines)[:MOST_BYTES]


def in_yaml(dice: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Still YAML, of another shape."""
    try:
        value = yaml.safe_load(data)
        return yaml.safe_dump(_reshaped(dice, value), allow_unicode=dice.random() < 0.5).encode("utf-8", "replace")
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return in_bytes(dice, data, corpus)


def pieces(dice: Random, data: bytes) -> list[bytes]:
    """The same bytes as a network might bring them."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 1, 3, 20))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _dumped(dice: Random, value: Any) -> bytes:
    """As ASCII with escapes, lone surrogates included, or as UTF-8."""
    ascii_only = dice.random() < 0.5
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")[:MOST_BYTES]


def _reshaped(dice: Random, value: Any) -> Any:
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        places = _places(value)
        if not places:
            return copy.deepcopy(dice.choice(VALUES))
        container, key = dice.choice(places)
        match dice.randrange(8):
            case 0:
                del container[key]
            case 1:
                container[key] = [container[key]]
            case 2:
                container[key] = {"type": container[key]}
            case 3:
                other, name = dice.choice(places)
                if len(again := json.dumps(other[name])) <= LARGE:
                    container[key] = json.loads(again)
            case 4 if isinstance(container, dict):
                container[dice.choice(("", "type", "content", "\ud800", "error", "usage"))] = container.pop(key)
            case 5 if isinstance(container, list):
                times = dice.choice((1, 3, 300))
                if len(again := json.dumps(container[key])) * times <= LARGE:
                    container[key:key] = [json.loads(again) for _ in range(times)]
            case 6:
                for _ in range(dice.choice((3, DEEP))):
                    container[key] = [container[key]]
            case _:
                container[key] = copy.deepcopy(dice.choice(VALUES))
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Everywhere in it where something else could stand."""
    found: list[tuple[Any, Any]] = []
    left = [value]
    while left and len(found) < 2_000:
        node = left.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            left.append(node[key])
    return found
