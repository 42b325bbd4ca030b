"""Settings at run time: without these an operator restarts gateways to change a threshold, or breaks all of them at
once with a typing error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config.load import load
from app.config.settings import Settings
from app.core.clock import ManualClock
from app.core.errors import NotFound, Unprocessable
from app.gateway.audit import Audit
from app.gateway.tuning import Loudness, Setting, Tuning, tuned
from app.gateway.versions import Version, Versions
from app.store.client import Store

FILE = """
upstreams:
  ollama: {kind: ollama, breaker: {failures: 4, open: 20}}
  gpu.a: {kind: vllm, base_url: "http://gpu:8000", max_concurrency: 16}
routing: {target_local: 0.8}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "tierway.yaml"
    file.write_text(FILE)
    return load({}, config_path=file)


class Replica:
    def __init__(self, store: Store, settings: Settings) -> None:
        self.versions = Versions(store, Audit(store, ManualClock()), ManualClock())
        self.heard: list[Settings] = []
        self.tuning = Tuning(self.versions, settings, lambda name: name == "ollama/small", self.heard.append)
        self.versions.listeners.append(self.tuning.apply)

    @property
    def now(self) -> Settings:
        return self.heard[-1]

    def state(self, name: str) -> Setting:
        return next(each for each in self.tuning.states() if each.name == name)


async def test_changes_reach_every_gateway_whole(store: Store, settings: Settings) -> None:
    here, there = Replica(store, settings), Replica(store, settings)
    await here.tuning.change({"target_local": 0.2, "max_local_latency": 2, "breaker": {"failures": 2}})
    await there.versions.refresh()
    (now,) = there.heard
    assert (now.routing.target_local, now.routing.max_local_latency) == (0.2, 2.0)
    assert [each.breaker.failures for each in now.upstreams.values()] == [2, 2]
    assert now.upstreams["ollama"].breaker.open == 20, "what was not said stays"
    assert here.versions.current.number == 1, "one change, one version"
    assert now.version == here.now.version != settings.version
    await there.tuning.change(dict.fromkeys(("target_local", "max_local_latency", "breaker")))
    await here.versions.refresh()
    assert here.now == settings, "null takes a change back, and with all of them the configuration is what it was"


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("strategy", "quality", lambda made: made.routing.strategy),
        ("cloud", "never", lambda made: made.routing.cloud),
        ("default_model", "ollama/small", lambda made: made.routing.default_model),
        ("max_local_latency", 1.5, lambda made: made.routing.max_local_latency),
        ("concurrency.gpu.a", 3, lambda made: made.upstreams["gpu.a"].max_concurrency),
        ("concurrency", 5, lambda made: made.upstreams["gpu.a"].max_concurrency),
        ("breaker.gpu.a", {"failures": 9}, lambda made: {"failures": made.upstreams["gpu.a"].breaker.failures}),
    ],
)
async def test_each_setting(store: Store, settings: Settings, name: str, value: Any, path: Any) -> None:
    replica = Replica(store, settings)
    (state,) = await replica.tuning.change({name: value})
    assert path(replica.now) == value and state.changed
    states = await replica.tuning.change({name: None})
    assert path(replica.now) != value
    assert all(not each.changed and each.value == each.configured for each in states)


async def test_changes_are_taken_back_together_or_not_at_all(store: Store, settings: Settings) -> None:
    """One misspelt name must not leave half of a rollback behind."""
    replica = Replica(store, settings)
    await replica.tuning.change({"strategy": "quality", "breaker": {"failures": 1}})
    with pytest.raises(NotFound):
        await replica.tuning.change({"strategy": None, "braker": None})
    assert replica.now.routing.strategy == "quality"
    states = await replica.tuning.change({"strategy": None, "breaker": None})
    assert [(each.name, each.value) for each in states] == [("strategy", "cost"), ("breaker", None)]
    (last, *_) = await replica.versions.list()
    assert (last.action, last.number) == ("setting.delete", 2)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("target_local", 2, "target_local: must be at most 1"),
        ("strategy", "best", "strategy: must be one of 'cost', 'quality', 'privacy' or 'adaptive'"),
        ("breaker", 2, 'breaker: must be a mapping of keys to values, like {"failures": 2}'),
        ("breaker", {"failures": 0}, "breaker.failures: must be at least 1"),
        ("breaker", {"failure": 2}, "breaker.failure: is unknown"),
        ("concurrency", 1.5, "concurrency: must be a whole number"),
    ],
)
async def test_an_error_says_what_to_write(store: Store, settings: Settings, name: str, value: Any, said: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        await Replica(store, settings).tuning.change({name: value})
    assert caught.value.message == said


async def test_a_ceiling_that_an_operator_put_is_meant(store: Store, settings: Settings) -> None:
    """Also the number that is usual anyway: it is then the most, and no longer where the limit begins."""
    replica = Replica(store, settings)
    usual = settings.upstreams["ollama"].max_concurrency
    await replica.tuning.change({"strategy": "quality"})
    assert not replica.now.upstreams["ollama"].ceiling_said
    await replica.tuning.change({"concurrency.ollama": usual})
    assert replica.now.upstreams["ollama"].ceiling_said


async def test_the_nearer_word_counts(store: Store, settings: Settings) -> None:
    replica = Replica(store, settings)
    await replica.tuning.change({"concurrency": 5, "concurrency.ollama": 2, "breaker": {"failures": 2, "window": 9}})
    await replica.tuning.change({"breaker.ollama": {"failures": 3}})
    ollama, gpu = replica.now.upstreams.values()
    assert (ollama.max_concurrency, gpu.max_concurrency) == (2, 5)
    assert (ollama.breaker.failures, ollama.breaker.window, gpu.breaker.failures) == (3, 9, 2)
    assert replica.state("concurrency.gpu.a") == Setting("concurrency.gpu.a", 5, 16, True)
    assert replica.state("concurrency") == Setting("concurrency", 5, None, True)
    assert replica.state("strategy") == Setting("strategy", "cost", "cost", False)
    assert replica.state("breaker.ollama").value["failures"] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strategy", "cheap"),
        ("strategy", 1),
        ("target_local", 1.5),
        ("target_local", "0.2"),
        ("cloud", True),
        ("max_local_latency", 0),
        ("concurrency.ollama", 0),
        ("concurrency.ollama", "8"),
        ("breaker", 2),
        ("breaker.ollama", {"failure": 2}),
        ("breaker.ollama", {"open": 400}),
        ("default_model", "ollama/none"),
        ("default_model", []),
        ("log_level", "loud"),
        ("log_level", 7),
    ],
)
async def test_what_is_wrong_changes_nothing(store: Store, settings: Settings, name: str, value: Any) -> None:
    replica = Replica(store, settings)
    with pytest.raises(Unprocessable) as refused:
        await replica.tuning.change({"cloud": "never", name: value})
    assert refused.value.param == name and name.partition(".")[0] in refused.value.message
    await replica.versions.refresh()
    assert replica.versions.current == Version() and not replica.heard


@pytest.mark.parametrize("name", ["stategy", "breaker.olama", "concurrency.", "upstreams", "", "x" * 500])
async def test_what_cannot_be_changed_is_told(store: Store, settings: Settings, name: str) -> None:
    replica = Replica(store, settings)
    with pytest.raises(NotFound):
        await replica.tuning.change({name: 1})
    with pytest.raises(NotFound):
        await replica.tuning.change({name: None})


def test_what_is_about_something_gone_does_not_count(settings: Settings) -> None:
    """Upstreams go and come back; a release that allowed more wrote it; the file's own word counts then."""
    changes = {"breaker.gone": {"failures": 2}, "strategy": "later", "later": 1, "concurrency.ollama": -1}
    made = tuned(settings, changes)
    assert made.routing == settings.routing and made.upstreams == settings.upstreams


async def test_a_change_about_an_upstream_that_is_gone_can_be_taken_back(store: Store, settings: Settings) -> None:
    replica = Replica(store, settings)
    await replica.versions.change("x", "y", lambda last: last.model_copy(update={"settings": {"breaker.gone": {}}}))
    assert await replica.tuning.change({"breaker.gone": None}) == []
    assert replica.versions.current.settings == {}


async def test_a_breaker_stays_in_order(store: Store, settings: Settings) -> None:
    """The file says for how long it opens at first; an operator says the most alone."""
    replica = Replica(store, settings)
    await replica.tuning.change({"breaker": {"max_open": 15}})
    assert replica.now.upstreams["ollama"].breaker.max_open == 20


# --- the level of the log ---------------------------------------------------------------------------------------------


@pytest.fixture
def level() -> Iterator[None]:
    """As it was before the test, in the end."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(before)


@pytest.mark.usefixtures("level")
async def test_the_level_of_the_log_changes_and_comes_back(store: Store, settings: Settings) -> None:
    """Without it whoever looks for a fault restarts the gateway that has it."""
    replica, root = Replica(store, settings), logging.getLogger()
    replica.versions.listeners.append(Loudness().apply)
    (state,) = await replica.tuning.change({"log_level": "debug"})
    assert state == Setting("log_level", "debug", "info", True) and root.level == logging.DEBUG
    assert replica.now.version == settings.version, "it changes nothing that decides of requests"
    await replica.tuning.change({"target_local": 0.1})
    assert root.level == logging.DEBUG
    assert [each.changed for each in await replica.tuning.change({"log_level": None})] == [False]
    assert root.level == logging.WARNING, "as the process began"


@pytest.mark.usefixtures("level")
def test_a_level_that_nobody_knows_changes_nothing() -> None:
    """Of a release that allowed more."""
    loudness = Loudness()
    for wanted in ("shouting", 7, None, ["debug"]):
        loudness.apply(Version(settings={"log_level": wanted}))
        assert logging.getLogger().level == logging.WARNING
