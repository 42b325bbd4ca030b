"""Where the server is and how to be let in, from REDIS_URL. The URL holds a password, so no message ever shows it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from app.store.errors import StoreUnusable

TLS_OF: Final[Mapping[str, bool]] = {
    "redis": False,
    "valkey": False,
    "unix": False,
    "redis+unix": False,
    "rediss": True,
    "valkeys": True,
}
TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"})
OPTIONS: Final = TLS_OPTIONS | {"db"}
FALSE: Final = frozenset({"0", "false", "no", "none"})


@dataclass(frozen=True, slots=True)
class Address:
    """A Unix socket where `path` is set, else a host and a port."""

    path: str | None = None
    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """For people; without what opens it."""
        return self.path or f"{self.host}:{self.port}"

    def greeting(self) -> tuple[tuple[str, ...], ...]:
        """The commands a new connection starts with; the last one tells whether the server is ready."""
        who = (self.username,) if self.username else ()
        auth = (("AUTH", *who, self.password),) if self.password is not None else ()
        select = (("SELECT", str(self.db)),) if self.db else ()
        return (*auth, *select, ("PING",))


def parse(url: str) -> Address:
    """Raises `StoreUnusable` for what is no URL of a store."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port = parts.port or 6379
        unix = parts.scheme.endswith("unix")
        db = int(options.get("db") or ("" if unix else parts.path.strip("/")) or 0)
    except ValueError:
        raise StoreUnusable("REDIS_URL is malformed: expected redis://[user:password@]host[:port][/db]") from None
    if parts.scheme not in TLS_OF:
        raise StoreUnusable(f"REDIS_URL must start with one of {', '.join(sorted(TLS_OF))}://")
    if unknown := sorted(options.keys() - OPTIONS):
        raise StoreUnusable(f"REDIS_URL has an unknown option {unknown[0]!r}; known are {', '.join(sorted(OPTIONS))}")
    if (unix and not parts.path) or db < 0:
        raise StoreUnusable("REDIS_URL needs a path to a socket" if db >= 0 else "REDIS_URL: db must not be negative")
    return Address(
        path=unquote(parts.path) if unix else None,
        host=parts.hostname or "localhost",
        port=port,
        db=db,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=_tls(options) if TLS_OF[parts.scheme] else None,
    )


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if certificate := options.get("ssl_certfile"):
            context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    except OSError as error:
        raise StoreUnusable(f"REDIS_URL: its certificate files cannot be used: {error.strerror or error}") from None
    unchecked = options.get("ssl_cert_reqs", "").lower() == "none"
    if unchecked or options.get("ssl_check_hostname", "true").lower() in FALSE:
        context.check_hostname = False
    if unchecked:
        context.verify_mode = ssl.CERT_NONE
    return context
