"""Settings that an operator may change while gateways run: what they are called, what they may be, and a configuration
with them in it. Every gateway on the same store goes by a change within two seconds; it wins over the file until it is
taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from app.config.explain import plain
from app.config.load import version_of
from app.config.problems import nearest
from app.config.schema import Breaker, Routing
from app.config.settings import Settings, UpstreamSettings
from app.config.values import Count
from app.config.wording import MAPPING, worded
from app.core.errors import NotFound, Unprocessable
from app.gateway.versions import Version, Versions
from app.telemetry import logs

ROUTING: Final = ("strategy", "target_local", "max_local_latency", "default_model", "cloud")
BREAKER, CONCURRENCY = "breaker", "concurrency"
"""Per upstream, as `breaker.NAME`; without a name, of every upstream that has none of its own."""
LOG_LEVEL: Final = "log_level"
"""Of every process: it outlives configurations, so it is none of theirs (`Loudness`)."""

_COUNT: Final[TypeAdapter[int]] = TypeAdapter(Count)
_LEVEL: Final[TypeAdapter[str]] = TypeAdapter(Literal["debug", "info", "warning", "error", "critical"])


@dataclass(frozen=True, slots=True)
class Setting:
    """`configured` is what the file says; `changed`: `value` is what an operator put instead."""

    name: str
    value: Any
    configured: Any
    changed: bool


class Tuning:
    """`listener` is given every new configuration; `known` says whether a model of this name may be the default."""

    def __init__(
        self, versions: Versions, settings: Settings, known: Callable[[str], bool], listener: Callable[[Settings], None]
    ) -> None:
        self._versions = versions
        self._settings = settings
        self._known = known
        self._listener = listener

    def apply(self, version: Version) -> None:
        self._listener(tuned(self._settings, version.settings))

    def states(self, asked: Iterable[str] = ()) -> list[Setting]:
        """Every setting; of those for all upstreams the ones that were changed, or that somebody asked for."""
        changes = self._versions.current.settings
        now = tuned(self._settings, changes)
        names = [*ROUTING, LOG_LEVEL]
        names += [f"{kind}.{name}" for kind in (BREAKER, CONCURRENCY) for name in self._settings.upstreams]
        return [
            self._state(name, now, changes)
            for name in (*names, *(kind for kind in (BREAKER, CONCURRENCY) if kind in {*changes, *asked}))
        ]

    async def change(self, values: Mapping[str, Any]) -> list[Setting]:
        """All of them at once, or none; None takes a change back. Raises `NotFound`, `Unprocessable`."""
        checked = {name: self._checked(name, value) for name, value in values.items()}

        def edit(last: Version) -> Version:
            merged = {**last.settings, **checked}
            return last.model_copy(update={"settings": {k: v for k, v in merged.items() if v is not None}})

        put = {name: value for name, value in checked.items() if value is not None}
        words = ", ".join(f"{name}={orjson.dumps(plain(value)).decode()}" for name, value in put.items())
        action = "setting.put" if put else "setting.delete"
        await self._versions.change(action, ", ".join(checked), edit, words[:1_000])
        return [state for state in self.states(checked) if state.name in checked]

    def _state(self, name: str, now: Settings, changes: Mapping[str, Any]) -> Setting:
        changed = name in changes or name.partition(".")[0] in changes
        return Setting(name, _value(name, now, changes), _value(name, self._settings, {}), changed)

    def _checked(self, name: str, value: Any) -> Any:
        if value is None and name in self._versions.current.settings:
            return None  # be it about an upstream that is gone
        self._name(name)
        if value is None:
            return None
        try:
            made = _made(name, value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join((name, *map(str, first["loc"]))) if name.startswith(BREAKER) else name
            like = ', like {"failures": 2}' if (said := worded(first)) == MAPPING else ""
            raise Unprocessable(f"{where}: {said}{like}", param=name) from None
        if name == "default_model" and not self._known(made):
            raise Unprocessable(f"default_model: there is no model {made[:200]!r}.", param=name)
        return made

    def _name(self, name: str) -> None:
        names = [*ROUTING, LOG_LEVEL, BREAKER, CONCURRENCY]
        names += [f"{kind}.{upstream}" for kind in (BREAKER, CONCURRENCY) for upstream in self._settings.upstreams]
        if name not in names:
            meant = nearest(name, names)
            raise NotFound(
                f"There is no setting {name[:200]!r} that can be changed here"
                + (f"; did you mean {meant}?" if meant else f"; there are: {', '.join(names)}."),
                param="name",
            )


class Loudness:
    """What this process logs at least, as an operator wants it; as it began, once that is taken back."""

    def __init__(self) -> None:
        self._began: str | None = None

    def apply(self, version: Version) -> None:
        wanted = _level(version.settings, None)
        if wanted is None and self._began is None:
            return
        self._began = self._began or logs.level()
        logs.set_level(wanted or self._began)


def _level(changes: Mapping[str, Any], configured: str | None) -> str | None:
    wanted = changes.get(LOG_LEVEL)
    return wanted if isinstance(wanted, str) and wanted in logs.LEVELS else configured


def tuned(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The configuration with these changes. What cannot be read, or is about something that is gone, does not count."""
    readable = dict(_readable(changes.items()))
    if not readable:
        return settings
    routing = settings.routing.model_copy(update={name: readable[name] for name in ROUTING if name in readable})
    upstreams = {name: _upstream(upstream, readable) for name, upstream in settings.upstreams.items()}
    made = replace(settings, routing=routing, upstreams=MappingProxyType(upstreams))
    return replace(made, version=version_of(made))


def _upstream(settings: UpstreamSettings, changes: Mapping[str, Any]) -> UpstreamSettings:
    name = settings.name
    said = {**changes.get(BREAKER, {}), **changes.get(f"{BREAKER}.{name}", {})}
    most = changes.get(f"{CONCURRENCY}.{name}", changes.get(CONCURRENCY))
    breaker = settings.breaker.model_copy(update=said)
    if breaker.max_open < breaker.open:  # it was said of one of them alone
        breaker = breaker.model_copy(update={"max_open": breaker.open})
    made = replace(settings, breaker=breaker)
    return made if most is None else replace(made, max_concurrency=most, ceiling_said=True)


def _readable(changes: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    for name, value in changes:
        if name.partition(".")[0] in (*ROUTING, BREAKER, CONCURRENCY):
            try:
                yield name, _made(name, value)
            except ValidationError:
                continue  # of a release that allowed it


def _made(name: str, value: Any) -> Any:
    """The value as the schema has it. Raises `ValidationError`."""
    kind = name.partition(".")[0]
    if kind == CONCURRENCY:
        return _COUNT.validate_python(value, strict=True)
    if kind == LOG_LEVEL:
        return _LEVEL.validate_python(value)
    if kind == BREAKER:
        made = Breaker.model_validate(value)
        return {field: getattr(made, field) for field in made.model_fields_set}
    return getattr(Routing.model_validate({name: value}), name)


def _value(name: str, settings: Settings, changes: Mapping[str, Any]) -> Any:
    kind, _, upstream = name.partition(".")
    if kind in ROUTING:
        return getattr(settings.routing, kind)
    if kind == LOG_LEVEL:
        return _level(changes, settings.log_level)
    if not upstream:
        return changes.get(kind)
    found = settings.upstreams[upstream]
    return plain(found.breaker) if kind == BREAKER else found.max_concurrency
