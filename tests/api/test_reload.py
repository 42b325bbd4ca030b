"""The outside of a reload."""

from __future__ import annotations

from app.api.reload import reload_router
from app.gateway.reloading import FAILED, OK, Outcome
from tests.api.admins import DOOR, administered
from tests.api.site import error


async def test_a_reload_says_what_came_of_it() -> None:
    outcomes = [Outcome(OK, "v2"), Outcome(FAILED, "v2", ("tierway.yaml:1: routing: x", "and y"))]

    async def reload() -> Outcome:
        return outcomes.pop(0)

    async with administered(reload_router(DOOR, reload)) as client:
        assert (await client.post("/admin/reload")).json() == {"outcome": "ok", "config_version": "v2"}
        refused = await client.post("/admin/reload")
        assert refused.status_code == 422 and error(refused)["message"].splitlines()[1:] == [
            "tierway.yaml:1: routing: x",
            "and y",
        ]
        assert (await client.post("/admin/reload", headers={"authorization": "Bearer x"})).status_code == 401
