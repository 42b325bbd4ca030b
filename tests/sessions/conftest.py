from __future__ import annotations

from tests.store.live import store, valkey

__all__ = ["store", "valkey"]
