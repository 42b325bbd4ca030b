"""The environment variables, each with its reader and default, and the search for misspelt ones.

An empty variable counts as unset, as Docker Compose writes it. A secret may also be in a file that `<NAME>_FILE` names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.config.features import FEATURES, parse_flag
from app.config.problems import Problem, nearest
from app.config.values import base_url

WHERE: Final = "environment"
MAX_SECRET_BYTES: Final = 65_536
OLLAMA_DEFAULT: Final = "http://127.0.0.1:11434"
ANTHROPIC_DEFAULT: Final = "https://api.anthropic.com"

ADMIN_KEY_MIN: Final = 16
ADMIN_KEY_VARIETY: Final = 6
"""Fewer different characters are a pattern."""
WELL_KNOWN: Final = (
    *("correcthorsebatterystaple", "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnop", "qwertyuiop", "asdfghjkl"),
    *("administrator", "placeholder", "password", "replace", "tierway", "litellm", "default", "zxcvbnm", "example"),
    *("change", "qwerty", "secret", "master", "letmein", "admin", "please", "super", "very", "this", "here", "test"),
    *("root", "token", "your", "key", "api", "top", "the", "my", "me", "sk", "tw"),
)
"""Words of examples and of lists, the longest first: a key of nothing else is no key, whatever digits go with it."""

_FEATURE = "FEATURE_"
_PREFIXES = ("TIERWAY_", _FEATURE)
_KUBERNETES = re.compile(
    r"(TIERWAY|FEATURE)_(SERVICE_.*|PORT_.*|(\w+_)?SERVICE_(HOST|PORT)(_\w+)?|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")


def _text(text: str) -> str:
    if re.search(r"\s", text):
        raise ValueError("must not hold blanks")
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return read


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return read


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError("must be a path")
    return Path(text)


def _redis_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        target = parts.path if parts.scheme == "unix" else parts.hostname
        _ = parts.port
    except ValueError:
        target = None
    if not target or parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must be a URL like redis://host:6379/0, rediss://host or unix:///path")
    return text


def _urls(text: str) -> tuple[str, ...]:
    urls = tuple(base_url(each) for each in text.split(",") if each.strip())
    if not urls or len(set(urls)) < len(urls):
        raise ValueError("must be different URLs, separated by commas")
    return urls


def _place(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text, re.ASCII):
        raise ValueError("must be like openfeature.contrib.provider.flagd:FlagdProvider")
    return text


def _flag(text: str) -> float:
    share = parse_flag(text)
    if share is None:
        raise ValueError("must be true, false or a percentage, like 10%")
    return share


def _admin_key(text: str) -> str:
    letters = re.sub(r"[^a-z]", "", text.lower())
    for word in WELL_KNOWN:
        letters = letters.replace(word, "")
    if len(text) < ADMIN_KEY_MIN or len(set(text)) < ADMIN_KEY_VARIETY or not letters:
        raise ValueError(
            f"must be at least {ADMIN_KEY_MIN} characters that nobody can guess; make one: openssl rand -base64 32"
        )
    return text


class Variable(NamedTuple):
    """One variable: how it is read (raises ValueError, whose text goes to people), its default, what it is."""

    read: Callable[[str], Any]
    default: Any
    about: str
    secret: bool = False


VARIABLES: Final[Mapping[str, Variable]] = {
    "TIERWAY_CONFIG": Variable(_path, None, "The YAML file."),
    "TIERWAY_HOST": Variable(_text, "127.0.0.1", "The address to listen on."),
    "TIERWAY_PORT": Variable(_whole(0, 65_535), 8080, "The port to listen on; 0 takes a free one."),
    "TIERWAY_WORKERS": Variable(_whole(1, 256), 1, "How many processes serve."),
    "TIERWAY_ADMIN_KEY": Variable(
        _admin_key,
        None,
        "The key of the admin endpoints, of at least 16 characters; without it they answer 404.",
        secret=True,
    ),
    "TIERWAY_DATA_DIR": Variable(
        _path,
        None,
        "The folder of the embedded state; by default `$XDG_STATE_HOME/tierway` or `~/.local/state/tierway`.",
    ),
    "TIERWAY_LOG_LEVEL": Variable(
        _one_of("debug", "info", "warning", "error", "critical"), "info", "The least level that is logged."
    ),
    "TIERWAY_LOG_FORMAT": Variable(
        _one_of("json", "console"), None, "`json` or `console`; by default `console` on a terminal, else `json`."
    ),
    "TIERWAY_ALLOW_ANONYMOUS": Variable(_boolean, False, "Serve beyond loopback without any key."),
    "TIERWAY_FLAG_PROVIDER": Variable(
        _place, None, "The OpenFeature provider to ask for [flags](flags.md#a-flag-service), as `module:name`."
    ),
    "REDIS_URL": Variable(_redis_url, None, "The shared store; by default an embedded one.", secret=True),
    "OLLAMA_BASE_URL": Variable(_urls, (OLLAMA_DEFAULT,), "Ollama; this default is tried even when nothing is set."),
    "VLLM_BASE_URL": Variable(_urls, None, "vLLM; several, separated by commas, are one pool."),
    "ANTHROPIC_API_KEY": Variable(str, None, "Claude is used when this is set.", secret=True),
    "ANTHROPIC_BASE_URL": Variable(_urls, (ANTHROPIC_DEFAULT,), "Where Claude is."),
    "OPENAI_COMPATIBLE_BASE_URL": Variable(_urls, None, "Any other server that speaks OpenAI's API."),
    "OPENAI_COMPATIBLE_API_KEY": Variable(str, None, "Its key, if it needs one.", secret=True),
    "FEATURE_LOCK": Variable(_boolean, False, "The flags named in the environment cannot be changed at run time."),
    **{
        _FEATURE + name: Variable(_flag, float(feature.default), f"Start value; off: {feature.off_means}.")
        for name, feature in FEATURES.items()
    },
}
"""Every variable we read, but for those that `api_key_env` names and OpenTelemetry's own."""


class Environment:
    """Reads variables, remembers what was wrong with them and where secrets came from."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[Problem] = []

    def names(self, name: str) -> bool:
        """Whether the variable is set to something."""
        return self._raw(name) is not None

    def value(self, name: str) -> Any:
        """The variable's value, else its default; also its default when it is wrong, which is then a problem."""
        variable, raw = VARIABLES[name], self._raw(name)
        if raw is None:
            return variable.default
        try:
            return variable.read(raw.strip())
        except ValueError as error:
            self._wrong(name, str(error))
            return variable.default

    def secret(self, name: str) -> tuple[SecretStr, str] | None:
        """A secret and the variable it came from: `NAME`, or `NAME_FILE`, which names a file that holds it."""
        raw, path, source = self._raw(name), self._raw(name + "_FILE"), name
        if path is not None:
            source = name + "_FILE"
            if raw is not None:
                self._wrong(source, f"{name} is set as well; set one of them")
            raw = self._read(source, path)
        if raw is None:
            return None
        text = raw.strip()
        if name in VARIABLES:
            try:
                VARIABLES[name].read(text)
            except ValueError as error:
                self._wrong(source, str(error))
        if not text.isprintable() or not text.isascii():
            self._wrong(source, "must be one line of plain ASCII text")
        return SecretStr(text), source

    def check_names(self, also: Iterable[str]) -> None:
        """Reports variables that look like ours and are not. `also` are secrets that the file names."""
        secrets = {name for name, variable in VARIABLES.items() if variable.secret} | set(also)
        valid = {*VARIABLES, *secrets, *(name + "_FILE" for name in secrets)}
        for name in sorted(self._environ):
            if name.startswith(_PREFIXES) and name not in valid and not self._is_kubernetes(name):
                self._wrong(name, "unknown variable", _nearest_variable(name, valid))

    def _is_kubernetes(self, name: str) -> bool:
        """Whether Kubernetes made the variable for a Service whose name begins like ours."""
        value = self._environ.get(name, "")
        return bool(_KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and _KUBERNETES_PORT.match(value)))

    def _raw(self, name: str) -> str | None:
        raw = self._environ.get(name)
        if raw is None or not raw.strip() or (name.startswith(_PREFIXES) and self._is_kubernetes(name)):
            return None
        return raw

    def _read(self, source: str, path: str) -> str | None:
        try:
            with Path(path.strip()).open("rb") as file:
                raw = file.read(MAX_SECRET_BYTES + 1)
            text = raw.decode()
        except (OSError, ValueError):
            self._wrong(source, "names a file that cannot be read")
            return None
        if not text.strip() or len(raw) > MAX_SECRET_BYTES:
            self._wrong(source, "names a file that does not hold a secret")
            return None
        return text

    def _wrong(self, name: str, message: str, meant: str | None = None) -> None:
        self.problems.append(Problem(WHERE, None, name, message, meant))


def _nearest_variable(name: str, valid: Iterable[str]) -> str | None:
    """By what follows the prefix, which all have in common; the other prefix counts only when nothing fits."""
    for prefix in sorted(_PREFIXES, key=name.startswith, reverse=True):
        suffixes = [each.removeprefix(prefix) for each in valid if each.startswith(prefix)]
        if suffix := nearest(name.partition("_")[2], suffixes):
            return prefix + suffix
    return None


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """A per-user folder for state; an account without a home keeps it where services do."""
    for variable, below in (("XDG_STATE_HOME", ""), ("HOME", ".local/state")):
        base = Path(environ.get(variable) or "")
        if base.is_absolute() and base != Path("/"):
            return base / below / "tierway"
    return Path("/var/lib/tierway")
