"""Without these a scripted misbehaviour would not be the one that its name says, on some wire or for some reply."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.errors import GatewayError
from app.core.events import Event, Finish
from app.core.request import Terms
from app.simulator.bends import is_stream
from app.simulator.faults import CATALOGUE, Fault, fault
from app.simulator.record import Call
from app.simulator.script import Break, Hang, Head, Script, Wait, body_of, head_of
from app.simulator.simulated import Simulated
from app.wire import chat, messages, ollama
from app.wire.codec import Limits, UpstreamCodec
from tests.simulator.asking import HEADERS, KINDS, PATHS, TOOLS, body, call, tools

CODECS: dict[str, UpstreamCodec] = {"ollama": ollama, "vllm": chat, "anthropic": messages, "openai": chat}
CALLS = 'call weather({"city": "a b c"}) and now'
NOT_FOR_STREAMS = {"stream_for_json"}
NOT_FOR_JSON = {"json_for_stream", "no_done", "after_done", "crlf"}
NOT_IN_ALL_JSON = {"duplicate_index", "no_index", "high_index"}
ONLY_FOR_CALLS = {"empty_arguments", "bad_arguments", "duplicate_index", "no_index", "high_index", "no_call_id"}


def played(kind: str, name: str | None, *, stream: bool, text: str = "one two three four", **how: Any) -> Script:
    """The reply of a server of that kind, with a fault."""
    sim = Simulated(kind, clock=ManualClock())
    if name is not None:
        sim.fault_next(name, **how)
    fields = body(kind, text, stream=stream, tools=tools(kind))
    script = sim.answer(call(kind, fields, **{"x-request-id": "r1"}))
    assert not sim.errors
    return script


def status_of(script: Script) -> int | None:
    head = head_of(script)
    return None if head is None else head.status


# --- every fault on every wire --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CATALOGUE if not CATALOGUE[name].refuses])
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_changes_a_reply(kind: str, name: str) -> None:
    text = CALLS if name in ONLY_FOR_CALLS else "one two three four"
    numberless = NOT_IN_ALL_JSON if kind != "ollama" else set()
    for stream, spared in ((True, NOT_FOR_STREAMS), (False, NOT_FOR_JSON | numberless)):
        if name not in spared:
            assert played(kind, name, stream=stream, text=text) != played(kind, None, stream=stream, text=text)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_takes_a_codec_by_surprise(kind: str, name: str) -> None:
    """What the codecs make of it is an answer or a core error, never a TypeError."""
    for stream in (True, False):
        outcome = read_by_codec(kind, name, stream=stream)
        assert outcome is None or isinstance(outcome, GatewayError) or any(isinstance(one, Finish) for one in outcome)


def read_by_codec(kind: str, name: str, *, stream: bool) -> GatewayError | list[Event] | None:
    """What the codec of that kind reads; None where no reply comes."""
    codec, sim = CODECS[kind], Simulated(kind)
    model = sim.behaviour.models[0].name
    card = Card(f"x/{model}", model, "x", kind, True, frozenset(Ability), context_window=4_096)
    fields = {"model": model, "messages": [{"role": "user", "content": CALLS}], "tools": TOOLS, "stream": stream}
    request = chat.read_request(orjson.dumps(fields), Terms("r", "r"), Limits())
    outgoing = codec.write_request(request, card)
    sim.fault_next(name if not CATALOGUE[name].refuses else "reset")
    script = sim.answer(Call("POST", PATHS[kind], "", {**HEADERS, **outgoing.headers}, outgoing.body))
    head = head_of(script)
    if head is None:
        return None
    if head.status != 200:
        return codec.read_error(head.status, dict(head.headers), body_of(script))
    try:
        if not stream:
            return codec.read_reply(body_of(script), request, card, outgoing)
        reader = codec.reader(request, card, outgoing)
        events = [event for step in script if isinstance(step, bytes) for event in reader.feed(step)]
        return [*events, *reader.end()]
    except GatewayError as error:
        return error


# --- single ones ----------------------------------------------------------------------------------------------------

STATUSES = {
    "bad_request": 400,
    "context": 400,
    "spend_limit": 400,
    "unauthorized": 401,
    "billing": 402,
    "forbidden": 403,
    "not_found": 404,
    "too_large": 413,
    "unprocessable": 422,
    "throttled": 429,
    "throttled_silent": 429,
    "server_error": 500,
    "text_error": 500,
    "empty_error": 500,
    "html_error": 502,
    "unavailable": 503,
    "gateway_timeout": 504,
    "overloaded": 529,
    "redirect": 307,
    "html": 200,
    "error_first": 200,
    "overloaded_first": 200,
}


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_statuses(name: str, status: int) -> None:
    assert status_of(played("openai", name, stream=True)) == status


def test_a_status_can_be_chosen() -> None:
    assert status_of(played("vllm", "server_error", stream=True, status=599)) == 599


def test_retry_after_is_said_or_not() -> None:
    def said(**how: Any) -> dict[str, str]:
        head = head_of(played("anthropic", stream=True, **how))
        assert head is not None
        return dict(head.headers)

    assert said(name="throttled")["retry-after"] == "7"
    assert said(name="throttled", retry_after="120")["retry-after"] == "120"
    assert "retry-after" not in said(name="throttled_silent")


def test_errors_are_in_the_words_of_each_server() -> None:
    errors = {kind: orjson.loads(body_of(played(kind, "server_error", stream=False))) for kind in KINDS}
    assert errors["ollama"] == {"error": "Internal server error"}
    assert errors["vllm"]["error"]["code"] == 500
    assert errors["anthropic"]["error"]["type"] == "api_error"
    assert errors["openai"]["error"]["type"] == "server_error"


@pytest.mark.parametrize("kind", KINDS)
def test_hangs_and_stalls(kind: str) -> None:
    assert played(kind, "hang", stream=True) == (Hang(),)
    head, *rest = played(kind, "hang_first", stream=True)
    assert isinstance(head, Head) and rest == [Hang()]
    stalled = played(kind, "stall", stream=True)
    assert stalled[-1] == Hang() and len(body_of(stalled)) > 0
    pings = played(kind, "pings", stream=True, size=3)
    assert pings.count(Wait(0.02)) == 3 and pings[-1] == Hang()
    assert played(kind, "slow_head", stream=True, seconds=9.0)[0] == Wait(9)


@pytest.mark.parametrize("kind", KINDS)
def test_where_it_breaks_can_be_chosen(kind: str) -> None:
    early, late = (body_of(played(kind, "cut", stream=True, at=at)) for at in (0, 3))
    assert late.startswith(early[:-20]) and len(early) < len(late)
    assert played(kind, "cut", stream=True)[-1] == Break()
    assert played(kind, "cut_reset", stream=True)[-1] == Break(reset=True)
    assert isinstance(played(kind, "cut_clean", stream=True)[-1], bytes)


@pytest.mark.parametrize("kind", KINDS)
def test_usage_can_be_missing(kind: str) -> None:
    for stream in (True, False):
        bent = body_of(played(kind, "no_usage", stream=stream))
        assert b"usage" not in bent and b"eval_count" not in bent and b"simulated" in bent


@pytest.mark.parametrize("kind", KINDS)
def test_a_json_reply_comes_where_a_stream_was_asked_for_and_the_other_way_round(kind: str) -> None:
    assert not is_stream(played(kind, "json_for_stream", stream=True))
    assert is_stream(played(kind, "stream_for_json", stream=False))


def test_lines_of_any_size() -> None:
    assert len(body_of(played("openai", "huge_line", stream=True))) > 10 * 1024 * 1024
    assert 5_000 < len(body_of(played("openai", "huge_line", stream=True, size=5_000))) < 15_000


def test_tool_calls_are_broken_as_said() -> None:
    def calls(name: str) -> list[dict[str, Any]]:
        frames = body_of(played("openai", name, stream=True, text=CALLS)).split(b"\n\n")
        values = [orjson.loads(frame[6:]) for frame in frames if frame.startswith(b"data: {")]
        deltas = [choice["delta"] for value in values for choice in value["choices"]]
        return [one for delta in deltas for one in delta.get("tool_calls", ())]

    assert {one["index"] for one in calls("duplicate_index")} == {0}
    assert {one["index"] for one in calls("high_index")} == {5, 6}
    assert not any("index" in one for one in calls("no_index"))
    assert not any("id" in one for one in calls("no_call_id"))
    assert {one["function"]["arguments"] for one in calls("empty_arguments")} == {""}


# --- naming them ----------------------------------------------------------------------------------------------------


def test_faults_are_made_from_names_texts_and_objects() -> None:
    assert fault("cut") == Fault("cut")
    assert fault("cut:at=5:seconds=0.5") == Fault("cut", at=5, seconds=0.5)
    assert fault({"name": "throttled", "retry_after": 9, "at": None}) == Fault("throttled", retry_after="9")
    assert fault(Fault("cut", at=1)) == Fault("cut", at=1)


@pytest.mark.parametrize("wrong", ["nope", "cut:at=x", "cut:when=1", {"name": None}, {}, {"name": "cut", "at": []}])
def test_what_is_no_fault_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"fault|invalid literal"):
        fault(wrong)


def test_every_fault_is_explained() -> None:
    assert len(CATALOGUE) > 45
    assert all(kind.explains for kind in CATALOGUE.values())
