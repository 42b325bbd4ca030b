"""Content parts of OpenAI chat messages -> core parts: text, images, sounds, files, and the markers that ask for
prompt caching. What a role may hold is `chat_messages`' business.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.core.errors import InvalidValue
from app.core.messages import MediaPart, RefusalPart, TextPart
from app.wire.fields import nonempty, one_of, optional, required

ContentPart = TextPart | MediaPart | RefusalPart

_LONG_TTL: Final = frozenset({"1h", "30m", "12h", "24h"})
_HEAD_LIMIT: Final = 512  # of a data URL, up to its comma
_ESCAPES: Final[Mapping[str, str]] = {"%2b": "+", "%2f": "/", "%3d": "=", "%0a": "", "%0d": ""}
_DETAIL: Final = frozenset({"auto", "low", "high", "original"})


def read_parts(parts: list[Any], path: str, allowed: frozenset[str]) -> list[ContentPart]:
    """The parts of a `content` array at `path`; only the `allowed` types."""
    found = []
    for index, part in enumerate(parts):
        at = f"{path}[{index}]"
        if type(part) is not dict:
            raise InvalidValue(f"'{at}' must be an object", param=at)
        kind = part.get("type")
        if type(kind) is not str or kind not in allowed:
            wanted = ", ".join(sorted(allowed))
            raise InvalidValue(f"'{at}.type' must be one of {wanted}", param=f"{at}.type")
        found.append(READERS[kind](part, at + "."))
    return found


def cache_of(fields: Mapping[str, Any], at: str) -> str | None:
    """How long to cache the prefix that ends here: `5m`, `1h`, or not at all. Reads Anthropic's `cache_control` and
    OpenAI's `prompt_cache_breakpoint`."""
    if "cache_control" not in fields and "prompt_cache_breakpoint" not in fields:
        return None
    for name in ("cache_control", "prompt_cache_breakpoint"):
        marker = optional(fields, name, dict, at)
        if marker is not None:
            ttl = optional(marker, "ttl", str, f"{at}{name}.")
            return "1h" if ttl in _LONG_TTL else "5m"
    return None


def _text(part: dict[str, Any], at: str) -> TextPart:
    return TextPart(required(part, "text", str, at), cache_of(part, at))


def _refusal(part: dict[str, Any], at: str) -> RefusalPart:
    return RefusalPart(required(part, "refusal", str, at))


def _image(part: dict[str, Any], at: str) -> MediaPart:
    image = required(part, "image_url", dict, at)
    inner = at + "image_url."
    url = nonempty(image, "url", inner)
    detail = one_of(image, "detail", _DETAIL, inner)
    cache = cache_of(part, at)
    if url[:5].lower() == "data:":
        media_type, data = data_uri(url, inner + "url")
        if media_type is None:
            raise InvalidValue(f"'{inner}url' does not say which type of image it holds", param=inner + "url")
        return MediaPart("image", media_type, data, detail=detail, cache=cache)
    if url[:8].lower().startswith(("http://", "https://")):
        return MediaPart("image", url=url, detail=detail, cache=cache)
    raise InvalidValue(f"'{inner}url' must be an http, https or data URL", param=inner + "url")


def _audio(part: dict[str, Any], at: str) -> MediaPart:
    audio = required(part, "input_audio", dict, at)
    inner = at + "input_audio."
    data, form = nonempty(audio, "data", inner), nonempty(audio, "format", inner)
    return MediaPart("audio", f"audio/{form}", data, cache=cache_of(part, at))


def _file(part: dict[str, Any], at: str) -> MediaPart:
    file = required(part, "file", dict, at)
    inner = at + "file."
    filename = optional(file, "filename", str, inner)
    file_id, data = optional(file, "file_id", str, inner), optional(file, "file_data", str, inner)
    media_type = mimetypes.guess_type(filename)[0] if filename else None
    if data and data[:5].lower() == "data:":
        said, data = data_uri(data, inner + "file_data")
        media_type = said or media_type
    if not data and not file_id:
        raise InvalidValue(f"'{at}file' needs 'file_data' or 'file_id'", param=at + "file")
    return MediaPart("file", media_type, data or None, file_id=file_id, filename=filename, cache=cache_of(part, at))


def data_uri(uri: str, path: str) -> tuple[str | None, str]:
    """Media type and base64 text of a data URI, whatever parameters it has within a short head."""
    comma = uri.find(",", 5, 5 + _HEAD_LIMIT)
    if comma < 0 or comma + 1 == len(uri):
        raise InvalidValue(f"'{path}' is a data URL without data", param=path)
    media_type, *parameters = (piece.strip().lower() for piece in uri[5:comma].split(";"))
    if "base64" not in parameters:
        raise InvalidValue(f"'{path}' must be a data URL with its data in base64", param=path)
    return media_type or None, _unescaped(uri[comma + 1 :], path)


def _unescaped(payload: str, path: str) -> str:
    # Replaced one by one: a general decoder makes an object of every percent sign, of which there may be millions.
    if "%" in payload:
        for escape, meant in _ESCAPES.items():
            payload = payload.replace(escape, meant).replace(escape.upper(), meant)
    if "%" in payload:
        raise InvalidValue(f"'{path}' holds what is not base64", param=path)
    if not payload:
        raise InvalidValue(f"'{path}' is a data URL without data", param=path)
    return payload


READERS: Final[Mapping[str, Callable[[dict[str, Any], str], ContentPart]]] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
}
