"""What a client's `model` means: every id that `/v1/models` lists must work, and a wrong one must help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.card import Ability, Card
from app.core.errors import ModelNotFound
from app.routing.registry import ALIAS_DEPTH, AUTO, REMEMBERED_MAX, STRATEGIES, Named, Registry
from tests.core.nouns import card, paid
from tests.routing.cases import CHEAP, DEAR

QWEN, LARGE, OPUS = card("gpu/org/qwen"), card("ollama/llama3"), paid("claude/claude-opus-5-5")
TWICE = card("gpu/llama3")
REGISTRY = Registry([QWEN, LARGE, OPUS])

NAMES = st.text(st.sampled_from("ab/:*[]-"), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("gpu/org/qwen", QWEN),
        ("org/qwen", QWEN),
        ("claude/claude-opus-5-5", OPUS),
        ("claude-opus-5-5", OPUS),
        ("llama3", LARGE),
    ],
)
def test_a_model_goes_by_its_id_and_by_its_bare_name(model: str, found: Card) -> None:
    """Ids contain slashes, and so do names; clients have either built in."""
    assert REGISTRY.find(model) == Named(found)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_auto_may_name_its_strategy(strategy: str) -> None:
    """`auto:privacy` that is taken for plain `auto` sends a private prompt away."""
    assert REGISTRY.find(AUTO) == Named(None)
    assert REGISTRY.find(f"auto:{strategy}") == Named(None, strategy)


@pytest.mark.parametrize("model", ["auto:", "auto:fast", "Auto", "auto:privacy:x", "auto/x", ""])
def test_nearly_auto_is_an_error(model: str) -> None:
    """A misspelt strategy must not silently become another one."""
    with pytest.raises(ModelNotFound):
        REGISTRY.find(model)


def test_a_real_model_called_auto_with_a_tag_can_be_had() -> None:
    tagged = card("ollama/auto:7b")
    assert Registry([tagged]).find("auto:7b") == Named(tagged)


def test_a_name_that_is_offered_twice_says_so() -> None:
    """Guessing one of them would answer from the wrong machine, or the dearer one."""
    with pytest.raises(ModelNotFound, match=r"say which: ollama/llama3, gpu/llama3\.") as raised:
        Registry([LARGE, TWICE]).find("llama3")
    assert (raised.value.param, raised.value.status) == ("model", 404)


def test_an_alias_settles_a_name_that_is_offered_twice() -> None:
    """This is how an operator says which of two is meant."""
    assert Registry([LARGE, TWICE], {"llama3": "gpu/llama3"}).find("llama3") == Named(TWICE)
    assert Registry([LARGE, TWICE], {"llama*": "auto"}).find("llama3") == Named(None)


def test_an_alias_to_a_name_that_is_offered_twice_says_which_there_are() -> None:
    with pytest.raises(ModelNotFound, match="'llama3' is offered more than once"):
        Registry([LARGE, TWICE], {"fast": "llama3"}).find("fast")


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("gpt-5", Named(None)),
        ("o3-mini", Named(None)),
        ("fast", Named(LARGE)),
        ("best", Named(None, "quality")),
        ("quick", Named(LARGE)),
        ("org/qwen", Named(QWEN)),
    ],
)
def test_aliases_are_patterns_and_the_first_that_matches_counts(model: str, found: Named) -> None:
    """Clients with a model name built in work without being changed; real models are never shadowed."""
    aliases = {
        "gpt-*": "auto",
        "o[1-9]*": "auto",
        "fast": "ollama/llama3",
        "best": "auto:quality",
        "quick": "fast",
        "qu*": "claude-opus-5-5",
        "org/*": "auto",
    }
    assert Registry([QWEN, LARGE, OPUS], aliases).find(model) == found


@pytest.mark.parametrize("aliases", [{"a": "a"}, {"a": "b", "b": "a"}, {"*": "a*"}, {"a*": "ab"}])
def test_aliases_in_a_circle_end(aliases: dict[str, str]) -> None:
    """A mistake in the file must not hang the gateway."""
    with pytest.raises(ModelNotFound, match="circle"):
        Registry([QWEN], aliases).find("a")


def test_a_chain_of_aliases_is_followed_as_far_as_anybody_would_write_one() -> None:
    aliases = {f"a{step}": f"a{step + 1}" for step in range(ALIAS_DEPTH)}
    last = f"a{ALIAS_DEPTH - 1}"
    assert Registry([QWEN], {**aliases, last: "org/qwen"}).find("a1") == Named(QWEN)


@pytest.mark.parametrize(
    ("model", "closest"),
    [
        ("gpu/org/qwne", "gpu/org/qwen"),
        ("llama", "llama3"),
        ("claude-opus-5", "claude-opus-5-5"),
        ("auto:costs", "auto:cost"),
    ],
)
def test_a_wrong_name_names_the_closest(model: str, closest: str) -> None:
    """Most wrong names are typing mistakes."""
    with pytest.raises(ModelNotFound, match="does not exist") as raised:
        REGISTRY.find(model)
    assert closest in raised.value.message.partition("Closest: ")[2]
    assert raised.value.message.count(closest + ",") <= 1
    assert raised.value.param == "model"


def test_a_wrong_name_may_be_close_to_an_alias_but_never_to_a_pattern() -> None:
    """`gpt-4*` is no name that anybody can ask for."""
    registry = Registry([QWEN], {"gpt-4o-mini": "auto", "gpt-4*x": "auto", "gpt-4?": "auto", "gpt-[45]": "auto"})
    with pytest.raises(ModelNotFound) as raised:
        registry.find("gpt-4o-mni")
    assert raised.value.message.endswith("Closest: gpt-4o-mini.")


def test_a_name_like_none_says_where_to_look() -> None:
    with pytest.raises(ModelNotFound, match=r"GET /v1/models lists what there is\."):
        REGISTRY.find("zzzzzzzzz")
    with pytest.raises(ModelNotFound):
        Registry(()).find("qwen")


def test_an_alias_to_a_model_that_is_gone_names_what_was_asked() -> None:
    """The client does not know the alias's target."""
    with pytest.raises(ModelNotFound, match="'fast' does not exist"):
        Registry([QWEN], {"fast": "ollama/gone"}).find("fast")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("aliases", [{}, {"x*": "x*"}])
def test_an_endless_name_is_neither_repeated_nor_compared_for_long(aliases: dict[str, str]) -> None:
    """Twenty megabytes of `model` must cost a client its time, not the gateway its own."""
    with pytest.raises(ModelNotFound) as raised:
        Registry([QWEN, LARGE, OPUS], aliases).find("x" * 20_000_000)
    assert len(raised.value.message) < 500


def test_only_full_ids_are_got() -> None:
    """Fallback lists are written in full ids; a bare name could mean another upstream tomorrow."""
    assert REGISTRY.get("gpu/org/qwen") is QWEN
    assert REGISTRY.get("org/qwen") is None
    assert REGISTRY.get("auto") is None


@given(
    st.lists(st.tuples(st.sampled_from(["gpu", "ollama"]), NAMES), unique=True, max_size=5),
    st.dictionaries(NAMES, NAMES | st.sampled_from(["auto", "auto:cost"]), max_size=4),
    NAMES,
)
def test_any_name_is_found_or_refused(ids: list[tuple[str, str]], aliases: dict[str, str], model: str) -> None:
    """Names come from clients and upstreams: none of them may end in another error, and every id finds its own."""
    cards = [card(f"{upstream}/{name}") for upstream, name in ids]
    registry = Registry(cards, aliases)
    try:
        named = registry.find(model)
    except ModelNotFound as error:
        assert error.param == "model"
    else:
        assert named.card is None or named.card in cards
    for each in cards:
        assert registry.find(each.id) == Named(each)
    assert registry.cards == tuple(cards)


# --- queries --------------------------------------------------------------------------------------------------------

TALKER = frozenset({Ability.CHAT})
EYES = TALKER | {Ability.IMAGES}
TINY, BIG = (
    card("gpu/tiny", abilities=TALKER, complexity=(0.0, 0.4)),
    card("gpu/big", abilities=EYES, complexity=(0.4, 0.9)),
)
DEAREST = paid("claude/opus", abilities=EYES, complexity=(0.6, 1.0), price=DEAR)
CHEAPER = paid("claude/haiku", abilities=EYES, complexity=(0.0, 0.4), price=CHEAP)
UNPRICED = paid("vendor/mystery", abilities=EYES, complexity=(0.0, 0.1))
MANY = Registry([UNPRICED, DEAREST, CHEAPER, BIG, TINY])


def test_the_best_and_the_cheapest_that_can_do_something() -> None:
    """Modes and embeddings ask for a model by what it must be able to do."""
    assert MANY.best(Ability.IMAGES) is DEAREST
    assert MANY.best(Ability.IMAGES, local=True) is BIG
    assert MANY.cheapest(Ability.CHAT) is TINY
    assert MANY.cheapest(Ability.IMAGES) is BIG
    assert MANY.cheapest(Ability.IMAGES, local=False) is CHEAPER
    assert [each.card for each in MANY.able(Ability.IMAGES, local=True)] == [BIG]


def test_what_nobody_can_do_nobody_is_best_at() -> None:
    assert MANY.best(Ability.AUDIO) is None
    assert MANY.cheapest(Ability.EMBEDDINGS) is None


def test_an_unknown_price_is_not_the_cheapest() -> None:
    assert Registry([UNPRICED, DEAREST]).cheapest(Ability.CHAT) is DEAREST


def test_a_stated_quality_counts_before_the_range() -> None:
    assert Registry([DEAREST, card("gpu/star", quality=0.99)]).best(Ability.CHAT) is not DEAREST


def test_a_name_in_the_configuration_may_be_that_of_a_model_that_is_away() -> None:
    assert REGISTRY.lookup("llama3") is LARGE
    assert REGISTRY.lookup("ollama/away") is None
    assert REGISTRY.lookup("auto") is None


def test_profiles_are_found_by_full_id() -> None:
    found = REGISTRY.profile("ollama/llama3")
    assert found is not None and found.card is LARGE
    assert REGISTRY.profile("llama3") is None
    assert REGISTRY.profile(None) is None


def test_what_is_remembered_is_made_once_and_bounded() -> None:
    """Keys hold what clients ask for: they must not fill the memory."""
    registry, made = Registry([QWEN]), list[int]()

    def make(number: int) -> str:
        made.append(number)
        return str(number)

    for number in (1, 2, 1):
        assert registry.remember(number, lambda number=number: make(number)) == str(number)  # type: ignore[misc]
    assert made == [1, 2]
    for number in range(REMEMBERED_MAX):
        registry.remember(("other", number), lambda: "x")
    assert registry.remember(1, lambda: make(1)) == "1"
    assert made == [1, 2, 1]
