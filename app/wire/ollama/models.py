"""What Ollama says about its models: which there are, what each is, and which are loaded.

Only what is understood is kept; a field of a wrong type counts as not said. What follows from it is the adapter's
business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.core.errors import BadReply
from app.wire.fields import usable_name
from app.wire.ollama.read import seconds

LICENCE_LENGTH: Final = 80


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of `/api/tags`. `remote`: it runs on somebody else's machine, this server only passes on."""

    name: str
    modified: int
    remote: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A model of `/api/show`. None means that the server did not say.

    `context_length` is what the model was made for; `num_ctx` and `num_keep` are what its Modelfile sets.
    """

    context_length: int | None
    num_ctx: int | None
    num_keep: int | None
    capabilities: frozenset[str] | None
    parameters: int | None
    parameter_size: str | None
    family: str | None
    format: str | None
    licence: str | None
    pools: bool  # the vectors of tokens into one: an embedding model
    remote: bool


def read_tags(body: bytes) -> tuple[Listed, ...]:
    """Entries without a usable name are passed over."""
    return tuple(
        Listed(entry["name"], seconds(entry.get("modified_at")), _remote(entry))
        for entry in _models(body)
        if usable_name(entry.get("name"))
    )


def write_show(name: str) -> bytes:
    return orjson.dumps({"model": name})


def read_show(body: bytes) -> Shown:
    reply = _object(body)
    details, info = _part(reply, "details"), _part(reply, "model_info")
    architecture = usable_name(info.get("general.architecture")) or ""
    return Shown(
        context_length=_count(info.get(f"{architecture}.context_length")) or _count(details.get("context_length")),
        num_ctx=_modelfile_number(reply.get("parameters"), "num_ctx"),
        num_keep=_modelfile_number(reply.get("parameters"), "num_keep"),
        capabilities=_words(reply.get("capabilities")),
        parameters=_count(info.get("general.parameter_count")),
        parameter_size=usable_name(details.get("parameter_size")),
        family=usable_name(details.get("family")),
        format=usable_name(details.get("format")),
        licence=usable_name(info.get("general.license")) or _first_line(reply.get("license")),
        pools=f"{architecture}.pooling_type" in info,
        remote=_remote(reply),
    )


def read_running(body: bytes) -> Mapping[str, int | None]:
    """The loaded models of `/api/ps` and the windows they were loaded with."""
    return {
        entry["name"]: _count(entry.get("context_length")) for entry in _models(body) if usable_name(entry.get("name"))
    }


def read_version(body: bytes) -> tuple[int, ...] | None:
    """`0.33.2` or `0.12.6-rc0` as numbers; None where it is no such thing (a build of one's own says 0.0.0)."""
    version = usable_name(_object(body).get("version")) or ""
    numbers = version.partition("-")[0].split(".")
    if not all(number.isascii() and number.isdigit() and len(number) < 9 for number in numbers):
        return None
    found = tuple(map(int, numbers))
    return found if any(found) else None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadReply("the upstream's answer about its models is not JSON") from None
    if not isinstance(reply, dict):
        raise BadReply("the upstream's answer about its models is not an object")
    return reply


def _models(body: bytes) -> list[Mapping[str, Any]]:
    models = _object(body).get("models")
    if models is None:
        return []  # Go writes an empty list as null
    if not isinstance(models, list):
        raise BadReply("the upstream's models are not a list")
    return [entry for entry in models if isinstance(entry, dict)]


def _part(reply: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = reply.get(name)
    return part if isinstance(part, dict) else {}


def _remote(fields: Mapping[str, Any]) -> bool:
    return bool(fields.get("remote_host") or fields.get("remote_model"))


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _words(value: Any) -> frozenset[str] | None:
    if not isinstance(value, list):
        return None
    return frozenset(word for word in value if isinstance(word, str))


def _modelfile_number(parameters: Any, name: str) -> int | None:
    """A number of the Modelfile's parameters, which come as lines of text: `num_ctx    8192`."""
    for line in parameters.splitlines() if isinstance(parameters, str) else ():
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if key == name and value.isascii() and value.isdigit() and len(value) < 9:
            return int(value) or None
    return None


def _first_line(value: Any) -> str | None:
    """A licence comes as its whole text, which begins with its name."""
    lines = value.strip().splitlines() if isinstance(value, str) else []
    return lines[0].strip()[:LICENCE_LENGTH] if lines else None
