"""Reads a configuration of LiteLLM's proxy as one of ours, and says of everything else why not and what to do.

No value of a secret gets out of here: keys become the names of variables. What the result means is the schema's;
`imported` writes it down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from app.config import litellm_terms as terms
from app.config.file import Document
from app.config.imported import Imported
from app.config.litellm_settings import SettingsReader
from app.config.loose import decimal_of, items, mapping, number, whole
from app.config.problems import Path
from app.config.values import VARIABLE_NAME, base_url

OS_ENVIRON: Final = "os.environ/"
_NAMED: Final = re.compile(OS_ENVIRON + r"([A-Za-z_][A-Za-z0-9_]{0,127})")
_WILD: Final = re.compile(r"[*?\[\]]")
_HEARD: Final = frozenset(
    {
        *("model", "api_base", "base_url", "api_key", "timeout", "stream_timeout", "max_parallel_requests", "num_ctx"),
        *("temperature", "max_tokens", "input_cost_per_token", "output_cost_per_token"),
        *("cache_read_input_token_cost", "cache_creation_input_token_cost", "custom_llm_provider"),
        *("max_input_tokens", "max_output_tokens", "litellm_provider"),
    }
)


class Server(NamedTuple):
    """One upstream to be: what it speaks, where, and with the key of which variable."""

    provider: str
    base: str | None
    key: str | None


class Deployment(NamedTuple):
    """One row of `model_list` that can be had."""

    path: Path
    group: str
    server: Server
    model: str
    said: Mapping[str, Any]

    @property
    def wild(self) -> bool:
        """Whether it is a rule for many models."""
        return _WILD.search(self.group + self.model) is not None


def read(document: Document, environ: Mapping[str, str]) -> Imported:
    """`environ` is asked for addresses that the file only names."""
    return _Reading(document, environ).all()


class _Reading:
    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._made = Imported(document.name)
        self._data = self._made.data

    def all(self) -> Imported:
        rows = [
            row
            for place, entry in enumerate(items(self._document.data.get("model_list")))
            if (row := self._deployment(("model_list", place), mapping(entry))) is not None
        ]
        upstreams = self._upstreams(rows)
        ids = {row.path: f"{upstreams[row.server]}/{row.model}" for row in rows}
        groups: dict[str, list[str]] = {}
        for row in rows:
            if not row.wild:
                groups.setdefault(row.group, []).append(ids[row.path])
        groups = {name: list(dict.fromkeys(found)) for name, found in groups.items()}
        for row in rows:
            self._model(row, ids[row.path])
        self._stand_ins(groups)
        names = SettingsReader(self._document, self._data, groups, self._note).read()
        self._aliases(groups, names)
        if not rows:
            del self._data["upstreams"]
        elif not any(row.wild for row in rows):
            self._data["only_listed_models"] = True
        self._made.variables = sorted({row.server.key for row in rows if row.server.key})
        self._made.notes.sort(key=lambda note: note.line or 0)
        return self._made

    def _note(self, path: Path, words: str) -> None:
        note = self._document.problem(path, words)
        if note not in self._made.notes:
            self._made.notes.append(note)

    def _deployment(self, path: Path, entry: Mapping[str, Any]) -> Deployment | None:
        params, info = mapping(entry.get("litellm_params")), mapping(entry.get("model_info"))
        at = (*path, "litellm_params", "model")
        group, full = entry.get("model_name"), self._resolved(params.get("model"), at)
        if not isinstance(group, str) or not group or not full:
            self._note(path, "needs a model_name and a litellm_params.model to be carried over")
            return None
        provider, model = _provider_of(full, params.get("custom_llm_provider"))
        if provider not in terms.PROVIDERS:
            known = provider in terms.FOREIGN or not provider
            self._note(at, terms.FOREIGN_ADVICE if known else "no provider of that name is known here; write openai/")
            return None
        server = self._server(path, provider, params)
        if server is None:
            return None
        self._leftovers(path, params, info)
        return Deployment(path, group, server, model, {**info, **params})

    def _leftovers(self, path: Path, params: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        for key in params:
            if key not in _HEARD:
                self._note((*path, "litellm_params", key), terms.PARAMS.get(key, "has no counterpart here"))
        for key in info:
            if key.startswith("supports_"):
                self._note((*path, "model_info", key), "abilities are asked of the upstream; else write abilities")
            elif key not in terms.INFO and key not in _HEARD:
                self._note((*path, "model_info", key), "has no counterpart here")

    def _server(self, path: Path, provider: str, params: Mapping[str, Any]) -> Server | None:
        """Where it is and with which key, or None with a note."""
        kind = terms.PROVIDERS[provider]
        name = "api_base" if "api_base" in params else "base_url"
        at, base = (*path, "litellm_params", name), None
        if params.get(name) is not None:
            base = self._address(at, params[name])
            if base is None:
                return None
            if provider == "azure":
                base = base.removesuffix("/openai") + "/openai"
                self._note(at, "Azure's v1 interface is used: its list must name your deployment; see tierway models")
        base = None if base == kind.base else base
        if base is None and kind.base is None:
            self._note((*path, "litellm_params"), "needs an api_base to be carried over")
            return None
        return Server(provider, base or kind.base, self._key(path, provider, base, params))

    def _address(self, at: Path, value: Any) -> str | None:
        text = self._resolved(value, at)
        if text is None and isinstance(value, str):  # said already
            return None
        try:
            return base_url(text or "")
        except ValueError as error:
            self._note(at, f"{error}; the model was left out")
            return None

    def _key(self, path: Path, provider: str, base: str | None, params: Mapping[str, Any]) -> str | None:
        """The variable of the key; LiteLLM's own only where its provider's own server is asked."""
        at, value, kind = (*path, "litellm_params", "api_key"), params.get("api_key"), terms.PROVIDERS[provider]
        if value is None:
            return kind.key if base is None or provider == "azure" else None
        named = _NAMED.fullmatch(value) if isinstance(value, str) else None
        name = named[1] if named else None
        if name is None:
            if str(value).strip().lower() in terms.NO_KEYS:
                return kind.key if base is None else None
            label = re.sub(r"\W+", "_", f"{kind.name or provider}_{path[1]}" if base else kind.name or provider)
            name = kind.key if kind.key and base is None else f"{label}_API_KEY".upper()
            self._note(at, f"secrets stay out of the file: set {name} where the gateway starts")
        if not VARIABLE_NAME.fullmatch(name):
            name = name.upper()
            self._note(at, f"variables are named in capital letters here: set {name}")
        return name

    def _resolved(self, value: Any, at: Path) -> str | None:
        """Text, or what the variable holds that it names: addresses and models are no secrets."""
        if not isinstance(value, str) or not value.startswith(OS_ENVIRON):
            return value if isinstance(value, str) else None
        found = self._environ.get(value.removeprefix(OS_ENVIRON))
        if found is None:
            self._note(at, "is in a variable that is not set here: import again where it is")
        return found

    def _upstreams(self, rows: list[Deployment]) -> dict[Server, str]:
        """An upstream for each server; servers with one key that offer the same to the same names are one pool."""
        offers: dict[Server, set[tuple[str, str]]] = {}
        for row in rows:
            offers.setdefault(row.server, set()).add((row.group, row.model))
        pools: dict[tuple[Any, ...], list[Server]] = {}
        for server, offered in offers.items():
            kind = terms.PROVIDERS[server.provider].kind
            pools.setdefault((kind, server.key, frozenset(offered)), []).append(server)
        names: dict[Server, str] = {}
        upstreams = self._data.setdefault("upstreams", {})
        for (kind, key, _), servers in pools.items():
            provider = servers[0].provider
            wanted = name = terms.PROVIDERS[provider].name or provider
            count = 1
            while name in upstreams:
                count += 1
                name = f"{wanted}-{count}"
            bases = list(dict.fromkeys(server.base for server in servers))
            upstreams[name] = {"kind": kind, "base_url": bases[0] if len(bases) == 1 else bases}
            if key is not None:
                upstreams[name]["api_key_env"] = key
            names.update(dict.fromkeys(servers, name))
            self._clocks(upstreams[name], [row for row in rows if row.server in servers])
        return names

    def _clocks(self, upstream: dict[str, Any], rows: list[Deployment]) -> None:
        """What is said per deployment counts per upstream: the most patient of them."""
        total = max((found for row in rows if (found := number(row.said.get("timeout"), 86_400))), default=None)
        first = max((found for row in rows if (found := number(row.said.get("stream_timeout"), 86_400))), default=None)
        made = {"total": total, "first_token": first, "idle": first}
        if kept := {key: value for key, value in made.items() if value is not None}:
            upstream["timeouts"] = kept
        if seats := [found for row in rows if (found := whole(row.said.get("max_parallel_requests")))]:
            upstream["max_concurrency"] = max(seats)

    def _model(self, row: Deployment, id: str) -> None:
        if row.wild:
            self._note(
                (*row.path, "model_name"),
                f"patterns need no rule: all that {id.partition('/')[0]} offers can be asked for as UPSTREAM/MODEL",
            )
            return
        note = self._data.setdefault("models", {}).setdefault(id, {})
        for ours, theirs in (
            ("num_ctx", "num_ctx"),
            ("context_window", "max_input_tokens"),
            ("max_output", "max_output_tokens"),
        ):
            if (found := whole(row.said.get(theirs))) is not None:
                note.setdefault(ours, found)
        if price := _price(row.said):
            note.setdefault("price", price)
        asked = {
            "temperature": number(row.said.get("temperature"), 2, least=0),
            "max_tokens": whole(row.said.get("max_tokens")) if "max_tokens" in row.said else None,
        }
        if kept := {key: value for key, value in asked.items() if value is not None}:
            self._data.setdefault("routing", {}).setdefault("defaults", {}).setdefault(id, kept)

    def _stand_ins(self, groups: Mapping[str, list[str]]) -> None:
        """The other deployments of a group stand in for its first one."""
        for group, ids in groups.items():
            if len(ids) > 1:
                self._data["models"][ids[0]].setdefault("fallback", []).extend(ids[1:])
                at = next(
                    ("model_list", place)
                    for place, entry in enumerate(items(self._document.data.get("model_list")))
                    if mapping(entry).get("model_name") == group
                )
                self._note(at, f"its deployments differ: {ids[0]} is asked first, the others stand in for it")

    def _aliases(self, groups: Mapping[str, list[str]], others: Mapping[str, str]) -> None:
        """Every name that clients use, where it can mean the same here."""
        targets = {ids[0] for ids in groups.values()}
        wanted = {**{group: ids[0] for group, ids in groups.items()}, **others}
        kept = {name: id for name, id in wanted.items() if name and name != id}
        for name in list(kept):
            if name in targets or name == "auto" or name.startswith("auto:") or _WILD.search(name):
                self._note(("model_list",), f"one of its names means something else here: ask for {kept.pop(name)}")
        if kept:
            self._data["aliases"] = kept


def _provider_of(full: str, said: Any) -> tuple[str, str]:
    """The provider and its own name of the model; '' where nobody can tell."""
    head, slash, rest = full.partition("/")
    if slash and rest and (head in terms.PROVIDERS or head in terms.FOREIGN):
        return head, rest
    if isinstance(said, str) and said:
        return said, full
    return next(
        (provider for prefix, provider in terms.BY_PREFIX if full.startswith(prefix)), head if slash else ""
    ), full


def _price(said: Mapping[str, Any]) -> dict[str, int | float] | None:
    """USD per million; only where both directions are known."""
    names = {
        "input": "input_cost_per_token",
        "output": "output_cost_per_token",
        "cache_read": "cache_read_input_token_cost",
        "cache_write": "cache_creation_input_token_cost",
    }
    found = {ours: each for ours, theirs in names.items() if (each := decimal_of(said.get(theirs))) is not None}
    if not {"input", "output"} <= found.keys():
        return None
    return {ours: _plain(each * 1_000_000) for ours, each in found.items()}


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
