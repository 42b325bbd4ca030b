from __future__ import annotations

from importlib.resources import files

import pytest

from app.store.client import Store
from app.store.scripts import load

NAMES = sorted(path.name.removesuffix(".lua") for path in files("app.store").joinpath("lua").iterdir())


@pytest.mark.parametrize("name", NAMES)
async def test_the_server_knows_a_script_by_the_hash_we_compute(store: Store, name: str) -> None:
    """With another hash every call would send the whole script again."""
    script = load(name)
    assert script.name == name
    assert await store.call("SCRIPT", "LOAD", script.source) == script.sha.encode()
