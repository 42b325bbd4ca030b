from __future__ import annotations

from tests.store.live import valkey

__all__ = ["valkey"]
