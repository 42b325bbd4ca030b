"""What makes a store unfit to start with. What happens to one that runs is `core.errors.StoreUnavailable`."""

from __future__ import annotations


class StoreUnusable(Exception):
    """Starting makes no sense before somebody acts; the message is for that person, and holds no secret."""
