"""The kinds of value a setting can have: how each is checked, and what is said when it is wrong.

No message repeats the value, because a secret may have been pasted in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr
from pydantic_core import PydanticCustomError

from app.config.features import FEATURES, parse_flag, parse_percent
from app.config.problems import nearest

T = TypeVar("T")

VARIABLE_NAME: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED: Final = ("auto", "mode", "tierway")
STEPS: Final = ("20% shadow", "50%", "80%")


def wrong(message: str, meant: str | None = None) -> PydanticCustomError:
    """An error whose message goes to people as it is; `meant` is the nearest valid value."""
    return PydanticCustomError("tierway", "{said}", {"said": message, "nearest": meant})


def base_url(text: str) -> str:
    """A server's address as `scheme://host[:port][/path]`, without a `/v1` at its end. Raises ValueError."""
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a URL like http://host:port") from None
    odd = re.search(r"[\s\\]", text.strip()) or not text.strip().isprintable()
    if parts.scheme not in ("http", "https") or not host or odd:
        raise ValueError("must be a URL like http://host:port")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; name a variable in api_key_env")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("must not have a query or fragment")
    if re.search(r"/(chat/completions|v1/messages|api/(chat|generate))/?$", parts.path):
        raise ValueError("must end before /v1, or before /api: the address of the server, not of one endpoint")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc.lower(), path, "", ""))


def _url(text: str) -> str:
    try:
        return base_url(text)
    except ValueError as error:
        raise wrong(str(error)) from None


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else _tuple(value)


def _pool(urls: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(urls)) < len(urls):
        raise wrong("names the same server twice")
    return urls


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise wrong("must be a number")
    return Decimal(str(value))  # what was written, not the binary fraction nearest to it


def _share(value: object) -> float:
    share = parse_percent(value) if isinstance(value, str) else None
    if share is None:
        raise wrong('must be a percentage, like "10%"')
    return share


def _flag_value(value: object) -> float:
    share = parse_flag(value)
    if share is None:
        raise wrong('must be true, false or a percentage, like "10%"')
    return share


def _flag_name(text: str) -> str:
    if text.upper() not in FEATURES or text != text.lower():
        raise wrong("is not a feature flag", nearest(text, (name.lower() for name in FEATURES)))
    return text


def _upstream_name(text: str) -> str:
    if not _NAME.fullmatch(text) or text in _RESERVED:
        raise wrong(
            f"an upstream's name is made of letters, digits, '.', '_' and '-', and is not {' or '.join(_RESERVED)}"
        )
    return text


def _plain_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise wrong("a name is made of letters, digits, '.', '_' and '-'")
    return text


def _steps(value: object) -> object:
    return STEPS if value is True else () if value is False else _tuple(value)


def _step(text: str) -> str:
    if parse_percent(text.removesuffix("shadow")) is None:
        raise wrong('must be a percentage, like "50%" or "20% shadow"')
    return text


def _rising(steps: tuple[str, ...]) -> tuple[str, ...]:
    shares = [parse_percent(step.removesuffix("shadow")) or 0.0 for step in steps]
    if shares != sorted(set(shares)):
        raise wrong("must be ascending")
    return steps


def _variable_name(text: str) -> str:
    if not VARIABLE_NAME.fullmatch(text):
        raise wrong("must be the name of an environment variable in capital letters, never the secret itself")
    return text


def _glob(text: str) -> str:
    if not text or re.search(r"\[[^\]]*$", text):
        raise wrong("must be a name or a pattern with *, ? or [a-z], its brackets closed")
    return text


def _time_zone(text: str) -> str:
    if text != "UTC":
        try:
            ZoneInfo(text)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise wrong("is not a time zone, like UTC or Europe/Berlin") from None
    return text


def _webhook(value: object) -> SecretStr:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise wrong("must be a URL like https://host/path")
    return SecretStr(parts.geturl())


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise wrong("must be [lowest, highest]")
    return pair


def _ascending(levels: tuple[float, ...]) -> tuple[float, ...]:
    if list(levels) != sorted(set(levels)):
        raise wrong("must be ascending")
    return levels


def empty() -> Mapping[str, Any]:
    return MappingProxyType({})


Many = Annotated[tuple[T, ...], BeforeValidator(_tuple)]
Table = Annotated[Mapping[str, T], AfterValidator(MappingProxyType)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Wait = Annotated[float, Field(ge=0, le=86_400)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Field(ge=1_024, le=1_099_511_627_776)]
Usd = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=1_000_000_000)]
Text = Annotated[str, Field(min_length=1)]
Url = Annotated[str, AfterValidator(_url)]
Pool = Annotated[tuple[Url, ...], BeforeValidator(_one_or_many), Field(min_length=1), AfterValidator(_pool)]
Glob = Annotated[str, AfterValidator(_glob)]
PlainName = Annotated[str, AfterValidator(_plain_name)]
Steps = Annotated[tuple[Annotated[str, AfterValidator(_step)], ...], BeforeValidator(_steps), AfterValidator(_rising)]
UpstreamName = Annotated[str, AfterValidator(_upstream_name)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Webhook = Annotated[SecretStr, PlainValidator(_webhook)]
Share = Annotated[float, PlainValidator(_share)]
FlagName = Annotated[str, AfterValidator(_flag_name)]
FlagValue = Annotated[float, PlainValidator(_flag_value)]
Range = Annotated[tuple[Fraction, Fraction], BeforeValidator(_tuple), AfterValidator(_ordered)]
Levels = Annotated[
    tuple[Annotated[float, Field(gt=0, le=10)], ...], BeforeValidator(_tuple), AfterValidator(_ascending)
]
