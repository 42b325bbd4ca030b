"""Who may come in: API keys for the endpoints, the admin key for `/admin`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from app.access.keys import same_secret
from app.core.caller import ANONYMOUS, Caller
from app.core.errors import InvalidApiKey, NotFound


class Ring(Protocol):
    """The snapshot of all keys."""

    @property
    def any_created(self) -> bool: ...

    def authenticate(self, secret: str) -> Caller: ...


class Door:
    """`open_at_first`: as long as no key was ever created, nobody needs one (on loopback, or where the operator
    allowed it)."""

    def __init__(self, ring: Callable[[], Ring], *, admin_key: str | None, open_at_first: bool) -> None:
        self._ring = ring
        self._admin_key = admin_key
        self._open_at_first = open_at_first

    @property
    def open(self) -> bool:
        """Whether requests need no key at the moment."""
        return self._open_at_first and not self._ring().any_created

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Raises `InvalidApiKey`."""
        if self.open:
            return ANONYMOUS
        secret = bearer(headers)
        if secret is None:
            raise InvalidApiKey("An API key is needed: send it as 'Authorization: Bearer KEY'.")
        return self._ring().authenticate(secret)

    def viewer(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Who may see what there is: every caller, and the operator with the admin key."""
        return ANONYMOUS if self._is_admin(bearer(headers)) else self.caller(headers)

    def admin(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises `NotFound` where there is no admin key, `InvalidApiKey` where it is not this one."""
        if self._admin_key is None:
            raise NotFound("The admin endpoints are off; TIERWAY_ADMIN_KEY switches them on.")
        if not self._is_admin(bearer(headers)):
            raise InvalidApiKey("This needs the admin key: send it as 'Authorization: Bearer KEY'.")

    def _is_admin(self, secret: str | None) -> bool:
        return self._admin_key is not None and secret is not None and same_secret(secret, self._admin_key)


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """The key a client sent, as OpenAI's or as Anthropic's clients do."""
    scheme, _, secret = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None
