"""Without these somebody gets in who must not, or nobody does."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import keys as keys_module
from app.access.failures import MOST, SECONDS
from app.access.keys import KeyRing
from app.api import auth as auth_module
from app.api.auth import Door, bearer
from app.core.caller import ANONYMOUS, Caller
from app.core.clock import ManualClock
from app.core.errors import InvalidApiKey, NotFound, RateLimited

ALICE = Caller(key_id="key_1", name="alice")


@dataclass
class Ring:
    """The keys there are. It can change, as the real one does."""

    keys: dict[str, Caller] = field(default_factory=dict)
    any_created: bool = False

    def authenticate(self, secret: str) -> Caller:
        if secret not in self.keys:
            raise InvalidApiKey("The API key is not valid.")
        return self.keys[secret]


def door(ring: Ring | None = None, *, admin_key: str | None = None, open_at_first: bool = True) -> Door:
    found = ring or Ring()
    return Door(lambda: found, admin_key=admin_key, open_at_first=open_at_first)


def auth(secret: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + secret.encode("latin-1")}


def test_nobody_needs_a_key_until_the_first_was_made() -> None:
    """A newcomer just tries; from the first key on, nobody else gets in, also when it was revoked."""
    ring = Ring()
    entrance = door(ring)
    anything: list[dict[bytes, bytes]] = [{}, auth("whatever")]
    assert entrance.open and all(entrance.caller(headers) is ANONYMOUS for headers in anything)
    ring.any_created = True
    for headers in anything:
        with pytest.raises(InvalidApiKey):
            entrance.caller(headers)
    assert door(ring).open is False


def test_beyond_loopback_a_key_is_needed_from_the_start() -> None:
    with pytest.raises(InvalidApiKey, match="Bearer KEY"):
        door(open_at_first=False).caller({})


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer s3"},
        {b"authorization": b"bearer   s3 "},
        {b"x-api-key": b"s3"},
        {b"x-api-key": b" s3 ", b"authorization": b"Basic dXNlcjpwYXNz"},
        {b"x-api-key": b"other", b"authorization": b"Bearer s3"},
        {b"x-api-key": b"s3", b"authorization": b"Bearer "},
    ],
)
def test_a_key_is_found_wherever_clients_put_it(headers: dict[bytes, bytes]) -> None:
    """OpenAI's clients, Anthropic's, and such as send both."""
    assert door(Ring({"s3": ALICE}, True)).caller(headers) is ALICE


@pytest.mark.parametrize("headers", [{}, {b"authorization": b""}, {b"authorization": b"s3"}, {b"x-api-key": b"  "}])
def test_no_key_is_none(headers: dict[bytes, bytes]) -> None:
    assert bearer(headers) is None


@given(st.binary(max_size=40))
def test_no_bytes_bring_the_door_down(secret: bytes) -> None:
    """Outside ASCII, in pieces of UTF-8, with anything else: never more than a 401."""
    entrance = door(KeyRing(ManualClock(), any_created=True), admin_key="boss")  # type: ignore[arg-type]
    for headers in ({b"authorization": b"Bearer " + secret}, {b"x-api-key": secret}):
        with pytest.raises(InvalidApiKey):
            entrance.caller(headers)
        with pytest.raises(InvalidApiKey):
            entrance.admin(headers)


def test_without_an_admin_key_there_is_nothing_to_administer() -> None:
    """Not even with an empty secret, and not even for who has a key."""
    for headers in ({}, auth(""), auth("s3")):
        with pytest.raises(NotFound, match="TIERWAY_ADMIN_KEY"):
            door(Ring({"s3": ALICE})).admin(headers)


@pytest.mark.parametrize("headers", [{}, auth("bos"), auth("bosss"), auth("BOSS"), auth("s3")])
def test_another_key_does_not_administer(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(InvalidApiKey):
        door(Ring({"s3": ALICE}), admin_key="boss").admin(headers)


def test_the_admin_key_administers() -> None:
    door(admin_key="boss").admin(auth("boss"))


def test_the_operator_sees_what_callers_see_and_is_none_of_them() -> None:
    """`tierway models` comes with the admin key; answers are for keys, so that somebody can be asked about the bill."""
    entrance = door(Ring({"s3": ALICE}, True), admin_key="boss")
    assert entrance.viewer(auth("boss")) is ANONYMOUS
    assert entrance.viewer(auth("s3")) is ALICE
    with pytest.raises(InvalidApiKey):
        entrance.viewer(auth("other"))
    with pytest.raises(InvalidApiKey):
        entrance.caller(auth("boss"))


GUESSER, OPERATOR = "192.0.2.1", "192.0.2.2"


def test_who_guesses_at_keys_is_told_to_wait_and_harms_nobody_behind_the_same_proxy() -> None:
    entrance = Door(lambda: Ring({"s3": ALICE}, True), admin_key="boss", open_at_first=True, clock=ManualClock())
    for _ in range(MOST):
        with pytest.raises(InvalidApiKey):
            entrance.caller(auth("guess"), GUESSER)
    with pytest.raises(RateLimited):
        entrance.caller(auth("guess"), GUESSER)
    assert entrance.caller(auth("s3"), GUESSER) is ALICE
    entrance.admin(auth("boss"), GUESSER)  # another lock
    with pytest.raises(InvalidApiKey):
        entrance.caller(auth("guess"), OPERATOR)


@pytest.mark.parametrize("at", ["admin", "viewer"])
def test_who_guesses_at_the_admin_key_is_not_heard_for_a_minute_even_when_right(at: str) -> None:
    """Wherever the admin key is looked at; else a slow guesser would come in by the other way."""
    clock = ManualClock()
    entrance = Door(lambda: Ring({"s3": ALICE}, True), admin_key="boss", open_at_first=True, clock=clock)
    for _ in range(MOST):
        with pytest.raises(InvalidApiKey):
            getattr(entrance, at)(auth("guess"), GUESSER)
    for look in (entrance.admin, entrance.viewer):
        with pytest.raises(RateLimited):
            look(auth("boss"), GUESSER)
    assert entrance.viewer(auth("s3"), GUESSER) is ALICE
    entrance.admin(auth("boss"), OPERATOR)
    clock.advance(SECONDS)
    entrance.admin(auth("boss"), GUESSER)


def test_who_sends_no_key_does_not_guess() -> None:
    """A probe without a key must not lock the operator out."""
    entrance = Door(lambda: Ring({}, True), admin_key="boss", open_at_first=True, clock=ManualClock())
    for _ in range(2 * MOST):
        for look in (entrance.caller, entrance.viewer, entrance.admin):
            with pytest.raises(InvalidApiKey):
                look({}, GUESSER)
    entrance.admin(auth("boss"), GUESSER)


def test_no_key_is_compared_byte_by_byte() -> None:
    """How long a refusal takes must not tell how much of a guess was right: nothing here or in `keys` compares secrets
    with `==`."""
    for module in (auth_module, keys_module):
        compared = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Compare)]
        words = {"secret", "given", "expected", "_admin_key", "digest"}
        for node in compared:
            names = {getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(node)}
            plain = [operator for operator in node.ops if isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn)]
            assert not (plain and names & words), ast.unparse(node)
    assert "hmac.compare_digest" in inspect.getsource(keys_module.same_secret)
    assert "hmac.compare_digest" in inspect.getsource(KeyRing.authenticate)
