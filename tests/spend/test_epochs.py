"""If the wrong epochs counted, a reset would not forget, or a rebuild would."""

from __future__ import annotations

import pytest

from app.spend.epochs import BEGUN, REBUILT, RESET, is_by_hand, new_epoch, that_count


def test_names_say_who_began_it() -> None:
    assert new_epoch() != new_epoch()
    assert [is_by_hand(new_epoch(kind)) for kind in (BEGUN, REBUILT, RESET)] == [False, True, True]
    assert not is_by_hand("") and not is_by_hand("something else")


@pytest.mark.parametrize(
    ("seen", "current", "count"),
    [
        ("", "begun-a", "begun-a"),
        ("begun-a", "begun-a", "begun-a"),
        ("begun-a begun-b", "begun-b", "begun-a begun-b"),
        ("begun-a rebuilt-b", "rebuilt-b", "begun-a rebuilt-b"),
        ("begun-a", "rebuilt-b", "begun-a rebuilt-b"),
        ("begun-a", "reset-b", "reset-b"),
        ("begun-a reset-b", "reset-b", "reset-b"),
        ("begun-a reset-b rebuilt-c", "rebuilt-c", "reset-b rebuilt-c"),
        ("begun-a reset-b begun-c", "begun-c", "reset-b begun-c"),
        ("reset-a reset-b begun-c", "begun-c", "reset-b begun-c"),
        ("begun-a reset-b begun-c", "begun-a", "begun-a reset-b begun-c"),
    ],
)
def test_all_since_the_last_reset_count(seen: str, current: str, count: str) -> None:
    moments = [*enumerate(seen.split())]
    assert that_count([*reversed(moments), *moments], current) == set(count.split())
