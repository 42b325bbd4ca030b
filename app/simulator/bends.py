"""The ways in which a reply's script can be bent: cut, stalled, stuffed, its fields edited. Pure functions.

Each takes a script and gives another. Which of them a fault uses, with what, and why, is `faults`' table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from app.simulator.script import Break, Hang, Head, Script, Step, Wait, body_of, head_of, whole
from app.simulator.wires import Json, Wire

Edit = Callable[[Json], Json | None]
"""One parsed frame in, the frame instead of it out; None leaves it out."""

_TEXTS: Final = frozenset({"content", "text", "thinking", "reasoning", "reasoning_content"})


def is_stream(script: Script) -> bool:
    head = head_of(script)
    return head is not None and head.length is None


def framed(script: Script, wire: Wire) -> Script:
    """The same script with one frame per step."""
    if not is_stream(script):
        return script
    return tuple(one for step in script for one in (wire.split(step) if isinstance(step, bytes) else (step,)))


def place(script: Script, wire: Wire, at: int) -> int:
    """Where the content frame number `at` (from 0) stands in a framed script; the last one where there are fewer.
    In a JSON reply it is the body."""
    bodies = [index for index, step in enumerate(script) if isinstance(step, bytes)]
    if not is_stream(script):
        return bodies[0] if bodies else len(script)
    found = [index for index in bodies if _is(wire.has_content, script[index], wire)] or bodies
    return found[min(at, len(found) - 1)] if found else len(script)


def _is(test: Callable[[Json], bool], step: Step, wire: Wire) -> bool:
    value = wire.decode(step) if isinstance(step, bytes) else None
    return value is not None and test(value)


def _at(step: Step) -> bytes:
    assert isinstance(step, bytes)
    return step


# --- where a reply ends or stops ------------------------------------------------------------------------------------


def cut(script: Script, wire: Wire, at: int, *, end: Step | None) -> Script:
    """Ends in the middle of a frame, with `end` (None: in good order, as if that were all)."""
    script = framed(script, wire)
    where = place(script, wire, at)
    if where == len(script):
        return (*script, *([end] if end else []))
    frame = _at(script[where])
    half = frame[: len(frame) // 2]
    if end is None and not is_stream(script):
        return resized((*script[:where], half))
    return (*script[:where], half, *([end] if end else []))


def stop_at(script: Script, wire: Wire, at: int, instead: tuple[Step, ...]) -> Script:
    """Up to a content frame, then `instead`."""
    script = framed(script, wire)
    where = place(script, wire, at)
    return (*script[:where], *instead)


def until_finish(script: Script, wire: Wire) -> Script:
    """A stream without its finish and all that follows; it ends in good order."""
    script = framed(script, wire)
    if not is_stream(script):
        return edited(script, wire, lambda value: without(value, _FINISHES))
    where = next((n for n, step in enumerate(script) if _is(wire.has_finish, step, wire)), len(script))
    last = script[where : where + 1]
    # vLLM says the reason on the last content: that content stays, the reason goes.
    kept = (
        edited((Head(200, ""), *last), wire, lambda value: without(value, _FINISHES))[1:] if _says(last, wire) else ()
    )
    return (*script[:where], *kept)


def _says(steps: Script, wire: Wire) -> bool:
    return any(_is(wire.has_content, step, wire) for step in steps)


_FINISHES: Final = frozenset({"finish_reason", "done_reason", "stop_reason"})


def without_last(script: Script, wire: Wire) -> Script:
    """A stream without its last frame (`[DONE]`, `message_stop`, the line that says done)."""
    script = framed(script, wire)
    return script[:-1] if is_stream(script) else script


def inserted(script: Script, wire: Wire, at: int, frame: bytes) -> Script:
    """One more frame before a content frame; a JSON reply becomes that frame alone."""
    script = framed(script, wire)
    where = place(script, wire, at)
    if not is_stream(script):
        return resized((*script[:where], frame))
    return (*script[:where], frame, *script[where:])


def emptied(script: Script) -> Script:
    """The head alone, and a body of no bytes."""
    return resized(tuple(step for step in script if isinstance(step, Head)))


def dripped(script: Script, size: int, seconds: float) -> Script:
    """The same bytes, a few at a time."""

    def drops() -> Iterator[Step]:
        for step in script:
            if not isinstance(step, bytes):
                yield step
                continue
            for begin in range(0, len(step), size):
                yield step[begin : begin + size]
                yield Wait(seconds)

    return tuple(drops())


def frozen(script: Script, pings: bytes, seconds: float, count: int) -> Script:
    """The head, some comments, and no content ever."""
    head = tuple(step for step in script if isinstance(step, Head))
    return (*head, *(step for _ in range(count) for step in (Wait(seconds), pings)), Hang())


# --- heads ----------------------------------------------------------------------------------------------------------


def typed(script: Script, content_type: str, headers: tuple[tuple[str, str], ...] = ()) -> Script:
    """Another content type (and more headers) on the same bytes."""
    return tuple(
        Head(step.status, content_type, (*step.headers, *headers), step.length) if isinstance(step, Head) else step
        for step in script
    )


def resized(script: Script) -> Script:
    """A JSON reply whose length is that of its body again."""
    body = body_of(script)
    head = head_of(script)
    if head is None or head.length is None:
        return script
    lead = [step for step in script if not isinstance(step, (bytes, Head))]
    return (*lead, *whole(head.status, body, head.content_type, head.headers))


def mapped(script: Script, change: Callable[[bytes], bytes]) -> Script:
    """Every piece of the body changed."""
    return resized(tuple(change(step) if isinstance(step, bytes) else step for step in script))


# --- fields ---------------------------------------------------------------------------------------------------------


def edited(script: Script, wire: Wire, edit: Edit) -> Script:
    """Each frame's object (or the whole JSON reply) edited."""
    if not is_stream(script):
        return mapped(script, lambda body: _edit_body(body, edit))

    def steps() -> Iterator[Step]:
        for step in framed(script, wire):
            value = wire.decode(step) if isinstance(step, bytes) else None
            changed = value if value is None else edit(value)
            if value is None:
                yield step
            elif changed is not None:
                yield wire.encode(changed)

    return tuple(steps())


def _edit_body(body: bytes, edit: Edit) -> bytes:
    value = orjson.loads(body)
    return orjson.dumps(edit(value)) if isinstance(value, dict) else body


def edited_at(script: Script, wire: Wire, at: int, edit: Edit) -> Script:
    """Only one content frame edited (in a JSON reply the body)."""
    script = framed(script, wire)
    where = place(script, wire, at)
    if not is_stream(script):
        return edited(script, wire, edit)
    changed = edited((Head(200, ""), *script[where : where + 1]), wire, edit)[1:]
    return (*script[:where], *changed, *script[where + 1 :])


def walk(value: Any, change: Callable[[str, Any], Any]) -> Any:
    """Every member of every object, innermost first, replaced by what `change(key, value)` gives."""
    if isinstance(value, dict):
        return {key: change(key, walk(inner, change)) for key, inner in value.items()}
    return [walk(inner, change) for inner in value] if isinstance(value, list) else value


def without(value: Any, keys: frozenset[str]) -> Any:
    """The value without these members, wherever they are."""
    if isinstance(value, dict):
        return {key: without(inner, keys) for key, inner in value.items() if key not in keys}
    return [without(inner, keys) for inner in value] if isinstance(value, list) else value


def with_text(value: Json, text: str) -> Json:
    """The first piece of text in it replaced."""
    done = False

    def change(key: str, old: Any) -> Any:
        nonlocal done
        if done or key not in _TEXTS or not isinstance(old, str) or not old:
            return old
        done = True
        return text

    changed: Json = walk(value, change)
    return changed


def after_done(script: Script, wire: Wire, more: bytes) -> Script:
    """Something after the end."""
    return (*framed(script, wire), more) if is_stream(script) else script


def broken(*, reset: bool) -> Script:
    """No reply at all."""
    return (Break(reset),)
