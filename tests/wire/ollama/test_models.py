from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadReply
from app.wire.ollama.models import Listed, Shown, read_running, read_show, read_tags, read_version, write_show

NOTHING = Shown(None, None, None, None, None, None, None, None, None, False, False)


def show(**fields: Any) -> Shown:
    return read_show(orjson.dumps(fields))


def test_models_are_listed_with_where_they_run() -> None:
    """A cloud model behind a local server would carry private prompts out of the house."""
    body = orjson.dumps(
        {
            "models": [
                {"name": "rnj-1:latest", "modified_at": "2026-08-21T12:00:00.123456789+02:00"},
                {"name": "kimi:cloud", "remote_host": "https://ollama.com:443", "remote_model": "kimi"},
                *({"name": odd} for odd in (None, 7, "", "a\nb", "a\x7f", "x" * 513)),
                "rubbish",
            ]
        }
    )
    assert read_tags(body) == (Listed("rnj-1:latest", 1_787_306_400, False), Listed("kimi:cloud", 0, True))


def test_a_shown_model() -> None:
    licence = "  \n Apache License \n Version 2.0"
    assert show(
        parameters='stop    "x"\nnum_ctx                        8192\nnum_keep 24\ntemperature 0.6',
        license=licence,
        details={"family": "qwen3", "parameter_size": "7.6B", "format": "gguf"},
        model_info={
            "general.architecture": "qwen3",
            "general.parameter_count": 7_615_616_512,
            "qwen3.context_length": 40_960,
            "qwen3.vision.context_length": 7,
        },
        capabilities=["completion", "tools", 7],
    ) == Shown(
        context_length=40_960,
        num_ctx=8_192,
        num_keep=24,
        capabilities=frozenset({"completion", "tools"}),
        parameters=7_615_616_512,
        parameter_size="7.6B",
        family="qwen3",
        format="gguf",
        licence="Apache License",
        pools=False,
        remote=False,
    )


def test_what_is_not_said_is_unknown() -> None:
    assert show() == NOTHING
    assert show(details=[], model_info=3, parameters=7, license=[], capabilities="all") == NOTHING
    assert show(model_info={"general.license": "mit"}, license="x" * 200).licence == "mit"
    assert show(license="x" * 200).licence == "x" * 80
    assert show(details={"context_length": 512}).context_length == 512
    assert show(model_info={"general.architecture": "bert", "bert.pooling_type": 1}).pools
    assert show(remote_model="kimi").remote


@pytest.mark.parametrize("parameters", ["num_ctx 0", "num_ctx many", "num_ctx", "num_ctx 999999999999", "num_ctx_x 9"])
def test_a_modelfile_without_a_usable_window(parameters: str) -> None:
    assert show(parameters=parameters).num_ctx is None


def test_loaded_models_and_their_windows() -> None:
    body = orjson.dumps({"models": [{"name": "a", "context_length": 4096}, {"name": "b"}, {"name": None}]})
    assert read_running(body) == {"a": 4096, "b": None}
    assert read_running(b'{"models":null}') == {}


@pytest.mark.parametrize(
    ("said", "version"),
    [("0.33.2", (0, 33, 2)), ("0.12.6-rc0", (0, 12, 6)), ("0.0.0", None), ("", None), ("x.y", None), (3, None)],
)
def test_versions(said: Any, version: tuple[int, ...] | None) -> None:
    assert read_version(orjson.dumps({"version": said})) == version


def test_asking_for_a_model() -> None:
    assert orjson.loads(write_show("a:b")) == {"model": "a:b"}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"models":{}}'])
def test_nonsense_is_the_upstreams_fault(body: bytes) -> None:
    for read in (read_tags, read_running):
        with pytest.raises(BadReply):
            read(body)
    with pytest.raises(BadReply):
        read_show(body[:6])


values = st.none() | st.booleans() | st.integers(-9, 2**60) | st.text() | st.lists(st.text(max_size=3), max_size=2)
fields = st.sampled_from(
    [
        *("name", "modified_at", "remote_host", "context_length", "parameters", "license", "capabilities", "version"),
        *("details", "model_info", "general.architecture", "general.parameter_count", "family", "parameter_size"),
    ]
)


@given(st.dictionaries(fields, values | st.dictionaries(fields, values)))
def test_no_answer_breaks_the_reader(reply: dict[str, Any]) -> None:
    assert isinstance(read_show(orjson.dumps(reply)), Shown)
    assert isinstance(read_tags(orjson.dumps({"models": [reply]})), tuple)
    assert isinstance(read_running(orjson.dumps({"models": [reply]})), dict)
    read_version(orjson.dumps(reply))
