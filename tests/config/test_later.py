"""Without these an operator relies on a setting that does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config.environment import VARIABLES
from app.config.later import LATER, said_of, without_effect
from app.config.load import load
from app.config.settings import Settings
from app.config.validate import keys


def loaded(tmp_path: Path, text: str = "{}", **environ: str) -> Settings:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    return load(environ, config_path=path)


ROWS = {
    "streaming.buffer_bytes": "streams are not held back",
    "streaming.min_tokens_per_second": "slow answers are not given up",
    "FEATURE_STREAMING": "streams cannot be switched off",
}
"""As if these had no effect yet."""


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.config.later.LATER", ROWS)


def test_the_rows_name_what_there_is() -> None:
    assert {*LATER} <= {*keys(), *VARIABLES}


@pytest.mark.usefixtures("rows")
def test_a_row_counts_for_what_is_below_it() -> None:
    assert said_of("streaming.min_tokens_per_second") == ROWS["streaming.min_tokens_per_second"]
    assert said_of("streaming.ping") is None and said_of("streaming") is None


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("streaming: {buffer_bytes: 9999}", "streaming.buffer_bytes"),
        ("streaming: {min_tokens_per_second: 1}", "streaming.min_tokens_per_second"),
        ("features: {overrides: {tenant: {a: {streaming: false}}}}", "features.overrides.tenant.a.streaming"),
    ],
)
def test_what_is_set_for_nothing_is_said(tmp_path: Path, text: str, where: str) -> None:
    ((said, words),) = without_effect(loaded(tmp_path, text))
    assert said == where and words in ROWS.values()


@pytest.mark.usefixtures("rows")
def test_flags_that_switch_nothing_are_said(tmp_path: Path) -> None:
    assert [where for where, _ in without_effect(loaded(tmp_path, FEATURE_STREAMING="false"))] == ["FEATURE_STREAMING"]


@pytest.mark.usefixtures("rows")
def test_defaults_and_what_has_an_effect_are_not_complained_of(tmp_path: Path) -> None:
    """A warning for everything is read by nobody."""
    text = (
        "budget: {estimate: strict}\nsessions: {ttl_days: 30}\nstreaming: {resumable: always, ping: 5, grace: 1}\n"
        "upstreams: {gpu: {kind: vllm, base_url: 'http://h', max_concurrency: 64, cost_per_hour: 0}}\n"
        "features: {overrides: {agent: {a: {sessions: true, multi_model_router: false}}}}\n"
    )
    environ = {"FEATURE_SESSIONS": "true", "FEATURE_CLOUD_FALLBACK": "false"}
    assert without_effect(loaded(tmp_path, text, **environ)) == []
