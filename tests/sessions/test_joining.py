"""A mistake here answers to a doubled conversation, or to half of one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.sessions.joining import Joined, joined, paired, split
from tests.sessions.talk import Json, calls, result, says, system, turns, user


def whole(kept: list[Json], sent: list[Json]) -> list[Json]:
    """The conversation that a model gets."""
    place = joined(kept, sent)
    assert 0 <= place.same <= len(sent) and place.base + place.same <= len(kept)
    return kept[: place.base] + sent


def test_instructions_are_told_from_the_conversation() -> None:
    late = system("Late.")
    assert split([system(), system("x"), user("a"), late]) == ([system(), system("x")], [user("a"), late])
    assert split([user("a")]) == ([], [user("a")]) and split([system()]) == ([system()], [])


def test_the_first_turn() -> None:
    assert joined([], [user("a")]) == joined([], turns(2)) == Joined(0, 0)


def test_a_new_turn_alone_comes_behind_all() -> None:
    assert whole(turns(3), [user("new")]) == [*turns(3), user("new")]
    assert whole(turns(1), [user("ask 1")]) == [*turns(1), user("ask 1")], "also in the words it began with"
    assert whole([*turns(1), user("b"), calls("c")], [result("c")])[-2:] == [calls("c"), result("c")]


@given(st.integers(1, 6), st.integers(0, 5))
def test_the_whole_history_is_not_doubled(length: int, known: int) -> None:
    """Nor any tail of it: clients that keep only the last so many messages send such."""
    kept = turns(length)
    tail = kept[min(known, len(kept) - 1) :]
    assert whole(kept, [*tail, user("new")]) == [*kept, user("new")]


@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=8), st.data())
def test_repetitions_are_not_mistaken(words: list[str], data: st.DataObject) -> None:
    """However often the same was said, as much as possible of what was sent is found."""
    kept = [each for word in words for each in (user(word), says(word))]
    known = data.draw(st.integers(0, len(words) - 1)) * 2
    sent = [*kept[known:], user("new")]
    place = joined(kept, sent)
    assert place.same >= len(kept) - known and kept[place.base :] == sent[: place.same]


def test_a_tool_loop_in_either_way() -> None:
    kept = [user("a"), calls("c1", "c2")]
    new = [result("c1"), result("c2")]
    assert whole(kept, new) == whole(kept, [*kept, *new]) == whole(kept, [kept[-1], *new]) == [*kept, *new]


def test_an_edited_history_replaces_ours_from_there_on() -> None:
    kept = turns(3)
    edited = [*kept[:2], user("something else"), says("answer 2"), user("new")]
    assert joined(kept, edited) == Joined(0, 2) and whole(kept, edited) == edited
    again = [*kept[:4], user("ask 3, in other words")]
    assert joined(kept, again) == Joined(0, 4)
    assert joined(kept, kept[:5]) == Joined(0, 5), "the last answer is asked for anew"
    other = [user("x"), says("y"), user("z")]
    assert joined(kept, other) == Joined(0, 0) and whole(kept, other) == other


def test_the_last_answer_in_the_clients_words() -> None:
    """A client that begins with an answer goes on from ours, and does not throw away all before it."""
    mended = {**calls("c1"), "content": "I look."}
    kept = [*turns(2), user("a"), calls("c1")]
    assert whole(kept, [mended, result("c1")]) == [*kept[:-1], mended, result("c1")]


def test_words_put_into_the_mouth_of_a_model() -> None:
    begun = [user("new"), says("Sure,")]
    assert whole(turns(2), begun) == [*turns(2), *begun]
    assert whole(turns(2), [*turns(2), *begun]) == [*turns(2), *begun]
    assert whole(turns(2), turns(2)) == turns(2)
    assert whole(turns(2), [says("answer")]) == [*turns(2)[:-1], says("answer")]


def test_nothing_was_sent() -> None:
    assert whole(turns(1), []) == turns(1)


def pairs(messages: list[Json], own: int | None = None) -> list[Any]:
    return paired(messages, len(messages) if own is None else own)


def test_whole_pairs_stay() -> None:
    talk = [user("a"), calls("c1", "c2"), result("c1"), result("c2"), says("done")]
    assert pairs(talk) == talk


def test_calls_that_nobody_answered_are_left_out() -> None:
    """Every provider refuses a conversation with such calls, so that the session could never go on."""
    assert pairs([user("a"), calls("c1"), user("b")]) == [user("a"), None, user("b")]
    assert pairs([calls("c1", text="Look."), user("b")]) == [says("Look."), user("b")]
    assert pairs([calls("c1", "c2"), result("c2"), user("b")]) == [calls("c2"), result("c2"), user("b")]


def test_results_that_nobody_called_for_are_left_out() -> None:
    assert pairs([result("c0"), user("a"), result("c1"), says("b")]) == [None, user("a"), None, says("b")]
    assert pairs([calls("c1"), result("c1"), result("c9")]) == [calls("c1"), result("c1"), None]


def test_calls_of_the_old_kind_are_paired_by_their_names() -> None:
    """Claude takes no result without its call, whatever the role says: one that stayed would end the session."""
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    answer, other = ({"role": "function", "name": name, "content": "42"} for name in ("f", "g"))
    assert pairs([user("a"), call, answer, says("b")]) == [user("a"), call, answer, says("b")]
    assert pairs([answer, user("a"), answer]) == [None, user("a"), None]
    assert pairs([call, other, answer]) == [call, None, answer]
    assert pairs([call, result("f"), user("a")]) == [None, None, user("a")]
    assert pairs([{**call, "content": "Look."}, user("a")]) == [says("Look."), user("a")]
    assert pairs([calls("f"), answer]) == [None, None]


def test_what_the_client_sent_is_left_as_it_is() -> None:
    sent = [result("c9"), calls("c1"), user("b")]
    assert pairs([user("a"), *sent], own=1) == [user("a"), *sent]
    assert pairs([calls("c1"), result("c1")], own=1) == [calls("c1"), result("c1")]
