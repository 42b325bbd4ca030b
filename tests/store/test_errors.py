from __future__ import annotations

from app.core.errors import GatewayError
from app.store.errors import StoreUnusable


def test_it_is_no_error_of_a_request() -> None:
    """Its message names folders and settings, so it must never be rendered to a client as a gateway error is."""
    assert not issubclass(StoreUnusable, GatewayError)
