"""Who is asking: a key's owner, or whoever is on loopback while no key exists."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Caller:
    """`models` are the ids and patterns the key may use; empty means all. `privacy` is `any` or `local`,
    `priority` `interactive` or `batch`: what the key allows at most.
    `budgets` are (period, nano-dollars); of the others None is no limit, and `concurrency` counts running requests."""

    key_id: str | None = None
    name: str | None = None
    tenant: str | None = None
    models: tuple[str, ...] = ()
    privacy: str = "any"
    store_content: str = "session"
    retention_days: int | None = None
    priority: str = "interactive"
    budgets: tuple[tuple[str, int], ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None

    def may_use(self, *names: str) -> bool:
        """Whether one of a model's names (full id, bare name, alias) is allowed."""
        return not self.models or any(fnmatchcase(name, pattern) for name in names for pattern in self.models)


ANONYMOUS = Caller()
