"""Who may come in: API keys for the endpoints, the admin key for `/admin`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from app.access.failures import Failures
from app.access.keys import same_secret
from app.core.caller import ANONYMOUS, Caller
from app.core.clock import Clock, SystemClock
from app.core.errors import InvalidApiKey, NotFound


class Ring(Protocol):
    """The snapshot of all keys."""

    @property
    def any_created(self) -> bool: ...

    def authenticate(self, secret: str) -> Caller: ...


class Door:
    """`open_at_first`: as long as no key was ever created, nobody needs one (on loopback, or where the operator
    allowed it).

    `peer` is the address at the other end. After too many failures it is no longer heard: an API key that is right
    still lets in, because it cannot be guessed and others may share the address; the admin key is not even looked at.
    Failures at either do not shut the other, and who sends no key does not guess."""

    def __init__(
        self,
        ring: Callable[[], Ring],
        *,
        admin_key: str | None,
        open_at_first: bool,
        clock: Clock | None = None,
    ) -> None:
        self._ring = ring
        self._admin_key = admin_key
        self._open_at_first = open_at_first
        clock = clock or SystemClock()
        self._callers, self._admins = Failures(clock), Failures(clock)

    @property
    def open(self) -> bool:
        """Whether requests need no key at the moment."""
        return self._open_at_first and not self._ring().any_created

    def caller(self, headers: Mapping[bytes, bytes], peer: str = "") -> Caller:
        """Raises `InvalidApiKey`, or `RateLimited` where too many came before."""
        return self._let_in(headers, peer, self._callers)

    def viewer(self, headers: Mapping[bytes, bytes], peer: str = "") -> Caller:
        """Who may see what there is: every caller, and the operator with the admin key. Raises as `caller` does."""
        return self._let_in(headers, peer, self._admins, operators=True)

    def _let_in(
        self, headers: Mapping[bytes, bytes], peer: str, failures: Failures, *, operators: bool = False
    ) -> Caller:
        ring = self._ring()
        if self._open_at_first and not ring.any_created:
            return ANONYMOUS
        secret = bearer(headers)
        try:
            if secret is None:
                raise InvalidApiKey("An API key is needed: send it as 'Authorization: Bearer KEY'.")
            return ring.authenticate(secret)
        except InvalidApiKey:
            failures.check(peer)
            if operators and self._is_admin(secret):
                return ANONYMOUS
            if secret is not None:
                failures.failed(peer)
            raise

    def admin(self, headers: Mapping[bytes, bytes], peer: str = "") -> None:
        """Raises `NotFound` where there is no admin key, `InvalidApiKey` where it is not this one, `RateLimited` where
        too many came before."""
        if self._admin_key is None:
            raise NotFound(
                "The admin endpoints are off: start the gateway with TIERWAY_ADMIN_KEY, 16 characters at least."
            )
        self._admins.check(peer)
        secret = bearer(headers)
        if not self._is_admin(secret):
            if secret is not None:
                self._admins.failed(peer)
            raise InvalidApiKey("This needs the admin key: send it as 'Authorization: Bearer KEY'.")

    def _is_admin(self, secret: str | None) -> bool:
        return self._admin_key is not None and secret is not None and same_secret(secret, self._admin_key)


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The key a client sent, as OpenAI's or as Anthropic's clients do."""
    scheme, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and (secret := secret.strip()):
        return secret
    return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None
