"""Ollama's window: what does not fit is refused or goes to a larger one; it is never cut without a word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from app.simulator.behaviour import DEFAULTS, Behaviour
from app.simulator.server import simulate
from tests.flows.service import Service, gateway, upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

WINDOW = 512
LONG = "All work and no play makes Jack a dull boy. " * 200  # 2,200 tokens
[MODEL] = [model for model in DEFAULTS["ollama"].models if not model.embeds]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """`alone` and `backed` have a small window; the stand-in of the latter, and `large`, a larger one. `nearly` has a
    stand-in whose window is no larger."""
    folder = Path(tmp_path_factory.mktemp("windows"))
    names = ("alone", "backed", "nearly")
    small = Behaviour(tuple(replace(MODEL, name=name) for name in names))
    async with simulate("ollama", small) as sim, simulate("vllm") as large:
        upstreams = {"ollama": upstream(sim), "large": upstream(large)}
        notes: dict[str, Any] = {f"ollama/{name}": {"num_ctx": WINDOW} for name in names}
        notes["ollama/backed"]["fallback"] = ["ollama/alone", "large/sim-medium"]
        notes["ollama/nearly"]["fallback"] = ["ollama/alone"]
        sims = {"ollama": sim, "large": large}
        async with gateway(folder, upstreams, sims, models=notes) as running:
            yield running


async def ask(service: Service, model: str, text: str, streamed: bool) -> tuple[str, dict[str, Any]]:
    """The text of the answer, and what its body says of the gateway."""
    messages: Any = [{"role": "user", "content": text}]
    create = service.openai().chat.completions.create
    if not streamed:
        whole = await create(model=model, messages=messages)
        return whole.choices[0].message.content or "", (whole.model_extra or {})["tierway"]
    stream = await create(model=model, messages=messages, stream=True)
    chunks = [chunk async for chunk in stream]
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    return "".join(pieces), (chunks[-1].model_extra or {})["tierway"]


both_ways = pytest.mark.parametrize("streamed", [True, False])


@both_ways
@pytest.mark.parametrize("model", ["ollama/alone", "ollama/nearly"])
async def test_too_long_is_refused(service: Service, model: str, streamed: bool) -> None:
    """The user learns that the question did not fit, instead of getting an answer to half of it. A stand-in whose
    window is no larger is not even asked."""
    before = len(service.sims["ollama"].asked)
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(service, model, LONG, streamed)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert len(service.sims["ollama"].asked) == before + 1


@both_ways
async def test_too_long_goes_to_a_larger_window(service: Service, streamed: bool) -> None:
    """What does not fit here is answered by who can hold it all."""
    text, tierway = await ask(service, "ollama/backed", LONG, streamed)
    assert "[simulated medium]" in text and tierway["model"] == "large/sim-medium"
    assert tierway["attempts"] == 2, "the other small window is passed over"


@both_ways
async def test_auto_asks_the_window_that_fits_first(service: Service, streamed: bool) -> None:
    """`auto` does not waste a call on a window that is plainly too small."""
    text, tierway = await ask(service, "auto", LONG, streamed)
    assert "[simulated medium]" in text and tierway["attempts"] == 1
    text, tierway = await ask(service, "auto", "Short.", streamed)
    assert "[simulated small]" in text


@both_ways
async def test_every_call_tells_the_window(service: Service, streamed: bool) -> None:
    """Without these fields Ollama would use its own small default and cut the front of every longer chat."""
    await ask(service, "ollama/alone", "Hi", streamed)
    for call in service.sims["ollama"].asked:
        assert call.fields["options"]["num_ctx"] == WINDOW
        assert call.fields["truncate"] is False and call.fields["shift"] is False


FITS = "All work and no play makes Jack a dull boy. " * 40  # 440 tokens


async def truncations(service: Service) -> float:
    return await service.metric("tierway_truncations_total", upstream="ollama")


async def test_a_cut_prompt_goes_elsewhere(service: Service) -> None:
    """A server too old to obey cuts all the same, and only its counts tell: a whole answer is thrown away and asked of
    a larger window."""
    before = await truncations(service)
    service.sims["ollama"].fault_next("dropped_prompt")
    text, tierway = await ask(service, "ollama/backed", FITS, False)
    assert "[simulated medium]" in text and tierway["model"] == "large/sim-medium"
    assert await truncations(service) == before + 1


async def test_a_cut_prompt_with_nobody_else(service: Service) -> None:
    """Better an error than an answer to half a question that looks like one to all of it."""
    before = await truncations(service)
    service.sims["ollama"].fault_next("dropped_prompt")
    with pytest.raises(openai.InternalServerError) as caught:
        await ask(service, "ollama/alone", FITS, False)
    assert caught.value.code == "upstream_failed" and "truncated" in caught.value.message
    assert await truncations(service) == before + 1


async def test_a_cut_prompt_on_a_stream_is_said(service: Service) -> None:
    """The counts come last, when the words are out already; then the last chunk says that something was dropped."""
    before = await truncations(service)
    service.sims["ollama"].fault_next("dropped_prompt")
    text, tierway = await ask(service, "ollama/alone", FITS, True)
    assert "[simulated small]" in text and tierway["truncated"] is True
    assert await truncations(service) == before + 1
    assert service.lines()[-1]["model"] == "ollama/alone"


@both_ways
async def test_an_answer_that_hits_the_window(service: Service, streamed: bool) -> None:
    """An answer that runs into the end of the window says that it was cut."""
    create = service.openai().chat.completions.create
    messages: Any = [{"role": "user", "content": "sim:tokens=2000"}]
    reply: Any = await create(model="ollama/alone", messages=messages, stream=streamed)
    if streamed:
        finishes = [choice.finish_reason async for chunk in reply for choice in chunk.choices if choice.finish_reason]
    else:
        finishes = [choice.finish_reason for choice in reply.choices]
    assert finishes == ["length"]


async def test_embeddings_are_not_cut(tmp_path: Path) -> None:
    """A text longer than the embedder's window is refused: its vector would stand for another text."""
    async with simulate("ollama") as sim, gateway(tmp_path, {"ollama": upstream(sim)}) as service:
        create = service.openai().embeddings.create
        with pytest.raises(openai.BadRequestError) as caught:
            await create(model="ollama/sim-embed", input="word " * 4_000)
        assert caught.value.code == "context_length_exceeded"
        assert all(call.fields["truncate"] is False for call in sim.asked)
