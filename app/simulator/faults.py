"""Every misbehaviour of an upstream that can be scripted, as a table: its name, what it is, and how it bends a reply.

`Fault` is one of them with its parameters. A fault acts on streams and on JSON replies alike, as far as it can.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from app.simulator import bends
from app.simulator.script import Break, Hang, Script, Wait, body_of, head_of, whole
from app.simulator.wires import Json, Problem, Wire

HTML: Final = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and its parameters: `at` which content frame (from 0), how many `seconds`, what `retry_after` and
    `status` to say, how many bytes (`size`)."""

    name: str
    at: int = 2
    seconds: float = 0.02
    retry_after: str | None = None
    status: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.name not in CATALOGUE:
            raise ValueError(f"there is no fault {self.name!r}; there are: {', '.join(sorted(CATALOGUE))}")

    @property
    def kind(self) -> Kind:
        return CATALOGUE[self.name]

    def bend(self, script: Script, wire: Wire) -> Script:
        """What becomes of a reply."""
        return self.kind.bend(script, wire, self)


@dataclass(frozen=True, slots=True)
class Kind:
    """`asks` is what is put into the request first (a JSON reply where a stream was asked for); `refuses`: the port
    stops listening instead."""

    explains: str
    bend: Callable[[Script, Wire, Fault], Script]
    asks: Mapping[str, Any] | None = None
    refuses: bool = False


def fault(value: Fault | str | Mapping[str, Any]) -> Fault:
    """A fault from its name, from `name:at=3:seconds=1`, or from an object. Raises ValueError for what is none."""
    if isinstance(value, Fault):
        return value
    if isinstance(value, str):
        name, *parameters = value.split(":")
        pairs = (parameter.partition("=") for parameter in parameters)
        value = {"name": name, **{key: text for key, _, text in pairs}}
    known = {field.name for field in fields(Fault)}
    if wrong := set(value) - known:
        raise ValueError(f"a fault has no {', '.join(sorted(map(str, wrong)))}; it has {', '.join(sorted(known))}")
    try:
        return Fault(**{key: _CASTS[key](given) for key, given in value.items() if given is not None})
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not a fault: {error}") from None


_CASTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "name": str,
    "at": int,
    "seconds": float,
    "retry_after": str,
    "status": int,
    "size": int,
}


# --- whole replies --------------------------------------------------------------------------------------------------


def _status(status: int, message: str, **more: Any) -> Callable[[Script, Wire, Fault], Script]:
    """An error in the server's own words."""

    def bend(_: Script, wire: Wire, chosen: Fault) -> Script:
        wait = chosen.retry_after or more.get("retry_after")
        headers = (("retry-after", wait),) if wait else ()
        problem = Problem(chosen.status or status, message, code=more.get("code"))
        return whole(problem.status, wire.error_body(problem), headers=headers)

    return bend


def _fixed(status: int, body: bytes, content_type: str, *headers: tuple[str, str]) -> Callable[..., Script]:
    """The same reply from every server."""
    return lambda _script, _wire, chosen: whole(chosen.status or status, body, content_type, headers)


def _gzipped(script: Script, _wire: Wire, _fault: Fault) -> Script:
    body = gzip.compress(body_of(script))
    head = head_of(script)
    assert head is not None
    return whole(head.status, body, head.content_type, (("content-encoding", "gzip"),))


# --- frames ---------------------------------------------------------------------------------------------------------


def _error_at(where: int | None, word: str | None = None) -> Callable[[Script, Wire, Fault], Script]:
    def bend(script: Script, wire: Wire, chosen: Fault) -> Script:
        status = chosen.status or (529 if word == "overloaded" else 500)
        problem = Problem(status, "Overloaded" if word else "the engine failed in the middle of this answer")
        if not bends.is_stream(script):
            return whole(200, wire.error_body(problem))
        if where == 0:
            head = head_of(script)
            assert head is not None
            return (head, wire.error_frame(problem))
        return bends.stop_at(script, wire, chosen.at, (wire.error_frame(problem),))

    return bend


def _insert(frame: Callable[[Wire, Fault], bytes]) -> Callable[[Script, Wire, Fault], Script]:
    return lambda script, wire, chosen: bends.inserted(script, wire, chosen.at, frame(wire, chosen))


def _raw(wire: Wire, data: bytes) -> bytes:
    return (b"data: " if wire.separator == b"\n\n" else b"") + data + wire.separator


def _everywhere(edit: bends.Edit) -> Callable[[Script, Wire, Fault], Script]:
    return lambda script, wire, _fault: bends.edited(script, wire, edit)


def _here(edit: Callable[[Json, Fault], Json | None]) -> Callable[[Script, Wire, Fault], Script]:
    return lambda script, wire, chosen: bends.edited_at(script, wire, chosen.at, lambda value: edit(value, chosen))


# --- fields ---------------------------------------------------------------------------------------------------------

_USAGE: Final = frozenset({"usage", "prompt_eval_count", "eval_count", "prompt_eval_duration", "eval_duration"})
_ARGUMENTS: Final = frozenset({"arguments", "partial_json", "input"})
_COUNTS: Final = frozenset({"prompt_tokens", "prompt_eval_count", "input_tokens"})


def _no_usage(value: Json) -> Json | None:
    return None if value.get("choices") == [] else bends.without(value, _USAGE)


def _dropped(value: Json) -> Json:
    return _walked(value, lambda key, old: old // 20 if key in _COUNTS and isinstance(old, int) else old)


def _cut_short(value: Json) -> Json:
    reasons = {"finish_reason": "length", "done_reason": "length", "stop_reason": "max_tokens"}
    return _walked(value, lambda key, old: reasons[key] if key in reasons and old else old)


def _empty_arguments(value: Json) -> Json:
    return _walked(value, lambda key, old: ("" if isinstance(old, str) else None) if key in _ARGUMENTS else old)


def _bad_arguments(value: Json) -> Json:
    return _walked(value, lambda key, old: f"{old}}}{{" if key in _ARGUMENTS and old != {} else old)


def _walked(value: Json, change: Callable[[str, Any], Any]) -> Json:
    changed: Json = bends.walk(value, change)
    return changed


def _calls(change: Callable[[Json], Json]) -> bends.Edit:
    """Edits each tool call: OpenAI's and Ollama's in their lists, Claude's blocks and the events about them."""

    def each(key: str, old: Any) -> Any:
        if key not in ("tool_calls", "content") or not isinstance(old, list):
            return old
        return [change(one) if key == "tool_calls" or one.get("type") == "tool_use" else one for one in old]

    return lambda value: change(value) if _tool_block(value) else _walked(value, each)


def _numbered(change: Callable[[int], int]) -> bends.Edit:
    return _calls(lambda call: _walked(call, lambda key, old: change(old) if key == "index" else old))


def _lacking(name: str) -> bends.Edit:
    return _calls(lambda call: bends.without(call, frozenset({name})))


def _tool_block(value: Json) -> bool:
    kinds = (value.get("content_block", {}).get("type"), value.get("delta", {}).get("type"))
    return "tool_use" in kinds or "input_json_delta" in kinds


def _wrong_types(value: Json, _fault: Fault) -> Json:
    """Every member has a type that nobody expects."""
    swap = {str: 7, int: "many", float: "much", dict: [], list: {"0": None}, bool: "maybe"}
    return {key: old if key == "type" else swap.get(type(old), {"null": []}) for key, old in value.items()}


def _text(text: Callable[[Fault], str]) -> Callable[[Json, Fault], Json]:
    return lambda value, chosen: bends.with_text(value, text(chosen))


_FILLER: Final = 10 * 1024 * 1024

CATALOGUE: Final[dict[str, Kind]] = {
    # the connection
    "refuse": Kind("the port refuses connections for `seconds`", lambda *_: bends.broken(reset=True), refuses=True),
    "hang_up": Kind("the connection closes without a reply", lambda *_: bends.broken(reset=False)),
    "reset": Kind("the connection is reset without a reply", lambda *_: bends.broken(reset=True)),
    # statuses
    "bad_request": Kind("400: the request is wrong", _status(400, "messages: this request is not valid")),
    "context": Kind("400: the prompt does not fit", _status(400, "prompt is too long: 250000 tokens > 200000 maximum")),
    "spend_limit": Kind(
        "400: the account's own spend limit, dressed as a bad request",
        _status(400, "You have reached your specified API usage limits.", code="enforced_spend_limit_reached"),
    ),
    "unauthorized": Kind("401: the key is wrong", _status(401, "invalid x-api-key")),
    "billing": Kind("402: the account is out of money", _status(402, "Your credit balance is too low")),
    "forbidden": Kind("403: the key may not do this", _status(403, "Your key does not have permission")),
    "not_found": Kind("404: the model is gone", _status(404, "model 'simulated' not found")),
    "too_large": Kind("413: the body is too large", _status(413, "Request exceeds the maximum size")),
    "unprocessable": Kind(
        "422 with FastAPI's `detail`",
        _fixed(422, b'{"detail":[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}', "application/json"),
    ),
    "throttled": Kind("429 with Retry-After", _status(429, "Rate limit reached", retry_after="7")),
    "throttled_silent": Kind("429 without Retry-After", _status(429, "Rate limit reached")),
    "server_error": Kind("500 in the server's own words", _status(500, "Internal server error")),
    "text_error": Kind("500 as plain text", _fixed(500, b"Internal Server Error", PLAIN)),
    "empty_error": Kind("500 without a body", _fixed(500, b"", PLAIN)),
    "html_error": Kind("502 with a proxy's HTML page", _fixed(502, HTML, "text/html")),
    "unavailable": Kind("503: loading, or the queue is full", _status(503, "server busy, please try again.")),
    "gateway_timeout": Kind("504", _status(504, "The upstream timed out")),
    "overloaded": Kind("529: overloaded", _status(529, "Overloaded")),
    "redirect": Kind("307 to elsewhere", _fixed(307, b"", PLAIN, ("location", "http://127.0.0.1:9/elsewhere"))),
    # a 200 that is none
    "html": Kind("200 with an HTML page", _fixed(200, HTML, "text/html; charset=utf-8")),
    "empty": Kind("200 with an empty body of the right type", lambda s, w, f: bends.emptied(s)),
    "wrong_type": Kind(
        "the right bytes as application/octet-stream", lambda s, w, f: bends.typed(s, "application/octet-stream")
    ),
    "json_for_stream": Kind("JSON although a stream was asked for", lambda s, w, f: s, asks={"stream": False}),
    "stream_for_json": Kind("a stream although JSON was asked for", lambda s, w, f: s, asks={"stream": True}),
    "gzip": Kind("compressed although nobody asked for it", _gzipped),
    # time
    "hang": Kind("nothing, not even a status line", lambda *_: (Hang(),)),
    "slow_head": Kind("the status line only after `seconds`", lambda s, w, f: (Wait(f.seconds), *s)),
    "hang_first": Kind("status and headers, then nothing", lambda s, w, f: bends.frozen(s, b"", 0, 0)),
    "pings": Kind(
        "comments or empty lines, never any content", lambda s, w, f: bends.frozen(s, _ping(w), f.seconds, f.size or 50)
    ),
    "stall": Kind("some content, then nothing", lambda s, w, f: bends.stop_at(s, w, f.at, (Hang(),))),
    "slow_drip": Kind("`size` bytes (48) every `seconds`", lambda s, w, f: bends.dripped(s, f.size or 48, f.seconds)),
    # ends
    "cut": Kind("the connection closes in the middle of a token", lambda s, w, f: bends.cut(s, w, f.at, end=Break())),
    "cut_reset": Kind(
        "it is reset in the middle of a token", lambda s, w, f: bends.cut(s, w, f.at, end=Break(reset=True))
    ),
    "cut_clean": Kind("a clean end in the middle of a token", lambda s, w, f: bends.cut(s, w, f.at, end=None)),
    "no_finish": Kind("a clean end without a finish reason", lambda s, w, f: bends.until_finish(s, w)),
    "no_done": Kind("no `[DONE]`, `message_stop` or last line", lambda s, w, f: bends.without_last(s, w)),
    "after_done": Kind("more after the end", lambda s, w, f: bends.after_done(s, w, _raw(w, b'{"late":true}'))),
    # errors inside a 200
    "error_first": Kind("an error as the first event of a 200", _error_at(0)),
    "overloaded_first": Kind("overloaded as the first event of a 200", _error_at(0, "overloaded")),
    "error_mid": Kind("an error after some content", _error_at(None)),
    "error_string": Kind(
        "an error that is a string, after some content", _insert(lambda w, f: _raw(w, b'{"error":"boom"}'))
    ),
    # bytes
    "garbage": Kind("bytes that are no JSON", _insert(lambda w, f: _raw(w, b'{"choices": [{"delta": <<<'))),
    "not_utf8": Kind("bytes that are no UTF-8", _insert(lambda w, f: _raw(w, b'{"text": "\xff\xfe\xc3"}'))),
    "not_object": Kind("JSON, but a number", _insert(lambda w, f: _raw(w, b"42"))),
    "deep": Kind("JSON nested 100,000 deep", _insert(lambda w, f: _raw(w, b"[" * (f.size or 100_000)))),
    "huge_line": Kind("one line of `size` bytes (10 MB)", _here(_text(lambda f: "x" * (f.size or _FILLER)))),
    "crlf": Kind(
        "CR LF at the ends of lines (harmless)", lambda s, w, f: bends.mapped(s, lambda b: b.replace(b"\n", b"\r\n"))
    ),
    # fields
    "wrong_types": Kind("an event whose members all have wrong types", _here(_wrong_types)),
    "no_usage": Kind("no usage, no token counts", _everywhere(_no_usage)),
    "dropped_prompt": Kind("counts that say most of the prompt was dropped", _everywhere(_dropped)),
    "cut_short": Kind("the answer ended at a token limit nobody set", _everywhere(_cut_short)),
    "empty_arguments": Kind("tool calls with empty arguments", _everywhere(_empty_arguments)),
    "bad_arguments": Kind("tool calls whose arguments are no JSON", _everywhere(_bad_arguments)),
    "duplicate_index": Kind("several tool calls, all with index 0", _everywhere(_numbered(lambda _: 0))),
    "no_index": Kind("tool calls without an index", _everywhere(_lacking("index"))),
    "high_index": Kind("tool calls counted from 5", _everywhere(_numbered(lambda old: old + 5))),
    "no_call_id": Kind("tool calls without an id", _everywhere(_lacking("id"))),
    "control_text": Kind(
        "control characters and lone line separators", _here(_text(lambda f: "\x00\x1b[31m\u2028\r\n\ufeff"))
    ),
}


def _ping(wire: Wire) -> bytes:
    return b": ping\n\n" if wire.separator == b"\n\n" else b"\n"
