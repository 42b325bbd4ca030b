"""Asks a provider of OpenFeature what the flags are: flagd, LaunchDarkly, or any other service that has one. Imported
only where one is named, because the SDK is an extra.

Flags are called `tierway_<name>` there. A boolean is on or off; a text like "10%" is the share of sessions that it is
on for, which is drawn here.
"""

from __future__ import annotations

import importlib
import logging
import uuid
from collections.abc import Sequence
from typing import Any, Final

from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.provider import FeatureProvider
from openfeature.provider.no_op_provider import NoOpProvider

from app.config.features import parse_flag
from app.gateway.flag_service import Service, ServiceUnusable, Told, Who

PREFIX: Final = "tierway_"
DEAD: Final = (ErrorCode.PROVIDER_NOT_READY, ErrorCode.PROVIDER_FATAL, ErrorCode.GENERAL)
"""Errors that are not about one flag: nothing else is asked then."""
WORDS_MAX: Final = 200
ANONYMOUS: Final = "anonymous"
"""Whom a service may draw for where there is no key: many refuse to say anything of nobody."""
EXAMPLE: Final = "openfeature.contrib.provider.flagd:FlagdProvider"


def service_of(provider: str) -> Service:
    """The service of a provider, or of what makes one, by its place: `module:name`. Raises `ServiceUnusable`."""
    domain = f"tierway-{uuid.uuid4().hex}"  # so that no other gateway of this process has the same
    logging.getLogger("openfeature").setLevel(logging.CRITICAL)  # a stack trace for every flag of every round
    api.set_provider(_provider(provider), domain)
    client = api.get_client(domain)
    return Service(lambda who, names: _ask(client, who, names), lambda: api.set_provider(NoOpProvider(), domain))


def _provider(place: str) -> FeatureProvider:
    module, _, name = place.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        made = found() if callable(found) else found
    except Exception as error:  # noqa: BLE001 - it is code of others, and whoever starts the gateway must know
        words = f"{type(error).__name__}: {error}"[:WORDS_MAX]
        raise ServiceUnusable(f"TIERWAY_FLAG_PROVIDER={place} gives no provider: {words}") from None
    if not hasattr(made, "resolve_boolean_details"):
        raise ServiceUnusable(f"TIERWAY_FLAG_PROVIDER={place} is no provider of OpenFeature; name one, like {EXAMPLE}")
    provider: FeatureProvider = made
    return provider


def _ask(client: OpenFeatureClient, who: Who, names: Sequence[str]) -> Told:
    attributes = {name: value for name, value in who._asdict().items() if value is not None}
    context = EvaluationContext(who.key_id or ANONYMOUS, attributes)
    shares: dict[str, float | None] = {}
    first: str | None = None
    for name in names:
        share, error = _share(client, PREFIX + name.lower(), context)
        if error in DEAD:
            return Told(shares, f"{error}", dead=True)
        if error is None or error == ErrorCode.FLAG_NOT_FOUND:
            shares[name] = share
        else:
            first = first or f"{PREFIX}{name.lower()}: {error}"
    return Told(shares, first)


def _share(client: OpenFeatureClient, key: str, context: EvaluationContext) -> tuple[float | None, ErrorCode | None]:
    found = client.get_boolean_details(key, False, context)
    if found.error_code != ErrorCode.TYPE_MISMATCH:
        return (None if found.error_code else float(found.value)), found.error_code
    said = client.get_string_details(key, "", context)
    share = None if said.error_code else parse_flag(said.value)
    return share, said.error_code or (ErrorCode.PARSE_ERROR if share is None else None)
