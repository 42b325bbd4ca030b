"""What the operator, the flags, rollouts and the past decide reaches the plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from app.config.schema import Overrides, Routing
from app.config.settings import FlagSettings
from app.core.caller import ANONYMOUS, Caller
from app.core.card import Ability, Card
from app.core.errors import GatewayError, Unavailable
from app.core.messages import Message
from app.core.plan import Plan
from app.core.request import EmbeddingRequest, Request
from app.core.shares import is_in_share
from app.core.verdict import Verdict
from app.flags import Flags
from app.gateway.conversations import Conversations
from app.gateway.local_watch import LocalWatch
from app.gateway.planning import Planned, Planning
from app.gateway.reading import Reading
from app.gateway.recent import RecentScores
from app.routing.classifier import Understood
from app.routing.correction import Counts
from app.routing.emergency import GONE
from app.routing.features import Facts
from app.routing.lexical import Words
from app.routing.registry import Registry
from app.routing.rollouts import Running, assign
from app.routing.signals import QUIET
from tests.core.nouns import card, chat, paid, terms
from tests.gateway.talks import CALL, LOOP, RESULT, SECOND_TURN, thought, user

QWEN, BACKUP = card("gpu/qwen"), card("gpu/backup")
OPUS = paid("claude/opus", fallback=("gpu/backup",))
REGISTRY = Registry([OPUS, QWEN, BACKUP])
START = Flags.start(FlagSettings())


def well(each: Card) -> str | None:
    return None


class Desk:
    """A planning, with all it stands on within reach."""

    def __init__(
        self,
        *running: Running,
        flags: Flags = START,
        demoted: Any = well,
        scores: Iterable[float] = (),
        judge: bool = True,
        registry: Registry = REGISTRY,
        counts: Any = lambda models, task_type, tier: None,
        draw: float = 1.0,
        **routing: Any,
    ) -> None:
        settings = Routing.model_validate(routing)
        self.flags, self.registry = flags, registry
        self.scores = list(scores)
        self.assigned: list[tuple[str, bool]] = []
        self.seconds: list[float] = []
        self.reachable = True
        self.recent = RecentScores(settings.target_local)
        self.running = running
        self.planning = Planning(
            settings,
            lambda: self.flags,
            replace(QUIET, demoted=demoted),
            Reading(self if self.scores and judge else None, None, lambda seconds: None, self._on_error),
            self._assign,
            Conversations(),
            LocalWatch(lambda name: True, lambda: None, lambda: self.reachable),
            self.recent,
            self.seconds.append,
            counts,
            lambda: draw,
        )

    def understand(self, words: Words, vector: Any = None) -> Understood:
        return Understood(0.0, 0.0, 1.0, 0, 1.0, ())

    def verdict(self, understood: Understood, facts: Facts) -> Verdict:
        return Verdict(self.scores.pop(0) if len(self.scores) > 1 else self.scores[0], 0.9, "code", "v1")

    def _on_error(self, where: str, error: BaseException) -> None:
        raise error

    def _assign(self, unit: str, *, chosen: bool = False) -> Any:
        self.assigned.append((unit, chosen))
        return assign(self.running, unit, chosen=chosen)

    def __call__(self, request: Request | EmbeddingRequest | None = None, caller: Caller = ANONYMOUS) -> Planned:
        return self.planning(request or chat(), caller, self.registry)

    def plan(self, request: Request | EmbeddingRequest | None = None, caller: Caller = ANONYMOUS) -> Plan:
        return self(request, caller).plan

    def ids(self, request: Request | EmbeddingRequest | None = None, caller: Caller = ANONYMOUS) -> list[str]:
        return [candidate.card.id for candidate in self.plan(request, caller).candidates]


def planned(
    request: Request | EmbeddingRequest | None = None,
    *,
    flags: Flags = START,
    caller: Caller = ANONYMOUS,
    demoted: Any = well,
    **routing: Any,
) -> list[str]:
    return Desk(flags=flags, demoted=demoted, **routing).ids(request, caller)


# --- operators and flags --------------------------------------------------------------------------------------------


def flagged(**shares: float) -> Flags:
    return replace(START, shares={**START.shares, **shares})


def test_nothing_said_is_everything_allowed() -> None:
    assert planned() == ["gpu/qwen", "gpu/backup", "claude/opus"]


def test_what_the_flags_were_is_told() -> None:
    """Who asks why a request went elsewhere than its neighbour must find the flag that was only half on."""
    asked = Desk(flags=flagged(CLOUD_FALLBACK=0.0))().flags
    assert asked["MULTI_MODEL_ROUTER"] and asked["LOCAL_MODELS"] and not asked["CLOUD_FALLBACK"]


def test_a_plan_is_made_by_one_configuration() -> None:
    """What an operator changes counts for the next request, and the record says by which configuration it went."""
    desk = Desk()
    assert desk().version == ""
    desk.planning.configure(Routing(cloud="never", target_local=0.5), "v2")
    made = desk()
    assert made.version == "v2" and desk.planning.recent.share == 0.5
    assert all(candidate.card.local for candidate in made.plan.candidates)


def test_the_chains_of_the_file_reach_the_plan() -> None:
    able = frozenset({Ability.CHAT, Ability.TOOLS})
    registry = Registry([replace(each, abilities=able) for each in REGISTRY.cards])
    desk = Desk(registry=registry, fallback={"abilities": {"tools": ["claude/opus"]}})
    assert desk.ids(chat("auto", Ability.TOOLS)) == ["gpu/qwen", "claude/opus", "gpu/backup"]
    assert desk.ids(chat("auto")) == ["gpu/qwen", "gpu/backup", "claude/opus"]


def test_the_cloud_is_used_only_by_name_when_it_is_off() -> None:
    """By flag or in the file; a bill that comes all the same is the operator's worst surprise."""
    ways: list[dict[str, Any]] = [{"flags": flagged(CLOUD_FALLBACK=0.0)}, {"cloud": "never"}]
    for how in ways:
        assert planned(**how) == ["gpu/qwen", "gpu/backup"]
        assert planned(chat("claude/opus"), **how) == ["claude/opus", "gpu/backup"]


def test_local_models_are_used_only_by_name_when_they_are_off() -> None:
    off = flagged(LOCAL_MODELS=0.0)
    assert planned(flags=off) == ["claude/opus"]
    assert planned(chat("claude/opus"), flags=off) == ["claude/opus"], "what stands in was not asked for by name"
    assert planned(chat("gpu/qwen"), flags=off) == ["gpu/qwen"]


def test_with_both_off_there_is_nothing() -> None:
    with pytest.raises(Unavailable):
        planned(flags=flagged(LOCAL_MODELS=0.0, CLOUD_FALLBACK=0.0))


def test_without_the_router_auto_is_the_default_model() -> None:
    off = flagged(MULTI_MODEL_ROUTER=0.0)
    assert planned(flags=off, default_model="claude/opus") == ["claude/opus", "gpu/backup"]
    assert planned(flags=off) == ["gpu/qwen"]


@pytest.mark.parametrize("model", ["auto", "claude/opus"])
def test_with_fallback_off_nobody_else_is_tried(model: str) -> None:
    """Not even for a model asked by name that is failing: the answer would not be its own."""
    off: dict[str, Any] = {"fallback": {"on": False}}
    sick = {"gpu/qwen", "claude/opus"}

    def demoted(each: Card) -> str | None:
        return "failing lately" if each.id in sick else None

    assert planned(chat(model), **off) == ["gpu/qwen" if model == "auto" else model]
    assert planned(chat(model), demoted=demoted, **off) == ["gpu/backup" if model == "auto" else model]


def test_the_strategy_is_the_files() -> None:
    """Also the one that never leaves local upstreams."""
    assert planned(strategy="privacy") == ["gpu/qwen", "gpu/backup"]


def test_a_share_is_the_same_for_a_session_then_a_key_then_a_request() -> None:
    """A conversation must not change its model from turn to turn because a flag is at half."""
    half = flagged(CLOUD_FALLBACK=0.5)
    for number in range(20):
        on = is_in_share("CLOUD_FALLBACK", f"unit-{number}", 0.5)
        by_session = chat(terms=terms(request_id="other", session=f"unit-{number}"))
        by_request = chat(terms=terms(request_id=f"unit-{number}"))
        assert ("claude/opus" in planned(by_session, caller=Caller(key_id="key-1"), flags=half)) is on
        assert ("claude/opus" in planned(caller=Caller(key_id=f"unit-{number}"), flags=half)) is on
        assert ("claude/opus" in planned(by_request, flags=half)) is on


def test_a_flag_may_be_another_for_an_agent_or_a_key() -> None:
    """One agent that spends too much is taken off the cloud, and nobody else."""
    overrides = Overrides.model_validate({"agent": {"greedy": {"cloud_fallback": False}}, "key": {}, "tenant": {}})
    flags = replace(START, overrides=overrides)
    assert planned(chat(terms=terms(agent="greedy")), flags=flags) == ["gpu/qwen", "gpu/backup"]
    assert "claude/opus" in planned(chat(terms=terms(agent="modest")), flags=flags)


def test_the_flags_of_the_moment_count() -> None:
    """A rollback takes effect with the next request, without a restart."""
    desk = Desk(flags=flagged(LOCAL_MODELS=0.0))
    assert len(desk.ids()) == 1
    desk.flags = START
    assert len(desk.ids()) == 3


def test_who_is_sick_is_asked_for_every_request() -> None:
    made = planned(demoted=lambda each: "throttled" if each is QWEN else None)
    assert made == ["gpu/backup", "claude/opus", "gpu/qwen"]


def test_errors_of_the_plan_are_the_clients() -> None:
    with pytest.raises(GatewayError, match="does not exist"):
        planned(chat("gpu/none"))


# --- what is asked --------------------------------------------------------------------------------------------------

SMALL, LARGE = card("gpu/small", complexity=(0.0, 0.4)), paid("claude/large", complexity=(0.4, 1.0))
TIERS = Registry([SMALL, LARGE])


def test_hard_requests_go_to_the_strong_and_easy_ones_stay() -> None:
    assert Desk(scores=[0.1], registry=TIERS).ids()[0] == "gpu/small"
    desk = Desk(scores=[0.8], registry=TIERS)
    made = desk()
    assert made.plan.candidates[0].card is LARGE
    assert (made.plan.score, made.plan.tier, made.read.verdict) == (0.8, "very_complex", made.plan.verdict)


def test_what_was_asked_for_by_name_is_not_read() -> None:
    """It would cost time and change nothing; and it must not move the threshold of others."""
    desk = Desk(scores=[0.1], target_local=0.5)
    assert desk(chat("gpu/qwen")).read.verdict is None
    assert desk.recent.threshold(1.0) is None


def test_a_share_stays_local_by_what_came_lately() -> None:
    scores = [number / 100 for number in range(100)]
    desk = Desk(scores=[*scores, 0.45], registry=TIERS, target_local=0.5)
    for _ in scores:
        desk()
    assert desk.plan().candidates[0].reason == "easy enough to stay local", "beyond its range, and below the threshold"


def test_what_local_models_did_here_corrects_the_score() -> None:
    """A classifier that was trained elsewhere learns that this installation's small model cannot debug."""
    asked: list[tuple[tuple[str, ...], str, str]] = []

    def counts(models: Iterable[str], task_type: str, tier: str) -> Counts | None:
        asked.append((tuple(models), task_type, tier))
        return bad if task_type == "code" else None

    bad: Counts | None = None
    desk = Desk(scores=[0.3], registry=TIERS, counts=counts)
    before = desk()
    bad = Counts(0.0, 200.0)
    after = desk()
    assert asked == [(("gpu/small",), "code", "moderate")] * 2
    assert before.plan.score == 0.3
    assert after.plan.score is not None and after.plan.score > 0.6
    assert (before.plan.candidates[0].card, after.plan.candidates[0].card) == (SMALL, LARGE)
    assert after.read.verdict is not None and after.read.verdict.score == 0.3


def test_every_plan_is_timed_also_one_that_fails() -> None:
    desk = Desk()
    desk()
    with pytest.raises(GatewayError):
        desk(chat("gpu/none"))
    assert len(desk.seconds) == 2 and min(desk.seconds) >= 0


# --- what was before ------------------------------------------------------------------------------------------------


def second(session: str | None = None, *messages: Any) -> Request:
    return chat(messages=messages or SECOND_TURN, terms=terms(session=session), input_bytes=4_000)


def test_a_conversation_keeps_the_model_that_answered_it() -> None:
    """Its cache has the history. Another conversation is nothing to it, nor is a first turn."""
    desk = Desk()
    first = desk(chat(messages=SECOND_TURN[:1]))
    assert first.plan.candidates[0].card is QWEN
    desk.planning.answered(first, "gpu/backup")
    assert desk.ids(second())[0] == "gpu/backup"
    assert desk.plan(second()).candidates[0].reason == "keeps the conversation's model"
    assert desk.ids(chat(messages=SECOND_TURN[:1]))[0] == "gpu/qwen"
    assert desk.ids(second("another"))[0] == "gpu/qwen"
    assert desk.ids(second(), Caller(key_id="another"))[0] == "gpu/qwen"


def test_a_tool_loop_never_changes_its_model() -> None:
    """Thirty turns of an agent, whatever their scores: the model that called a tool reads its result."""
    desk = Desk(scores=[0.1, *[0.1, 0.9] * 14, 0.9], registry=TIERS)
    messages: tuple[Message, ...] = LOOP[:1]
    served = set()
    for _ in range(30):
        made = desk(chat(messages=messages, input_bytes=4_000))
        served.add(made.plan.candidates[0].card.id)
        desk.planning.answered(made, made.plan.candidates[0].card.id)
        messages = (*messages, CALL, RESULT)
    assert served == {"gpu/small"}
    assert desk.ids(chat(messages=(*messages, CALL, RESULT, user("Now prove it.")), input_bytes=4_000))[0] == (
        "claude/large"
    ), "a new ask is a new choice"


def test_chance_has_a_say_only_where_the_strategy_gives_it_one() -> None:
    lucky = Desk(scores=[0.1], draw=0.0, strategy="adaptive").plan()
    assert lucky.probability < 1 and lucky.candidates[0].reason == "explored"
    assert Desk(scores=[0.1], draw=0.0).plan().probability == 1.0


def test_paid_models_are_used_in_an_emergency_alone() -> None:
    desk = Desk(cloud="emergency")
    assert desk.ids() == ["gpu/qwen", "gpu/backup"]
    desk.reachable = False
    made = desk.plan()
    assert (made.candidates[-1].card, made.trigger) == (OPUS, GONE), (
        "local ones show by themselves whether they are back"
    )


def test_looking_at_a_plan_leaves_nothing_behind() -> None:
    """`tierway route` must not move the threshold, the rollouts' counts or the next request's chance."""
    desk = Desk(scores=[0.1], draw=0.0, strategy="adaptive", target_local=0.5)
    for _ in range(60):
        made = desk.planning.peek(chat(), ANONYMOUS, REGISTRY)
    assert made.probability < 1 and made.candidates[0].reason != "explored"
    assert desk.recent.threshold(0.5) is None
    assert desk.seconds == []


# --- rollouts -------------------------------------------------------------------------------------------------------

NEW = Running("new", 1.0, model="gpu/backup")
DARK = Running("dark", 0.5, shadow=True, model="gpu/backup")


def test_a_treated_request_goes_to_the_rollouts_model_and_says_so() -> None:
    made = Desk(NEW).plan()
    assert [each.card.id for each in made.candidates] == ["gpu/backup", "gpu/qwen", "claude/opus"]
    assert (made.arm, made.candidates[0].reason) == ("new:treatment", "rollout new")


def test_the_others_are_its_control() -> None:
    made = Desk(replace(NEW, share=0.0)).plan()
    assert (made.candidates[0].card, made.arm) == (QWEN, "new:control")


def test_a_rollout_goes_on_without_fallbacks() -> None:
    """Who allows no stand-ins still wants to try a model, or to compare with one."""
    off: dict[str, Any] = {"fallback": {"on": False}}
    made = Desk(NEW, **off).plan()
    assert [each.card.id for each in made.candidates] == ["gpu/backup"]
    assert made.arm == "new:treatment"
    assert [left.model for left in made.excluded] == ["gpu/qwen", "claude/opus"]
    dark = Desk(DARK, **off).plan()
    assert ([each.card.id for each in dark.candidates], dark.arm) == (["gpu/qwen"], "dark:control")


def test_a_rollout_does_not_move_what_is_bound() -> None:
    """The model of a tool loop, or who signed the thinking in the history; nor what was asked for by name."""
    desk = Desk(NEW)
    assert desk.plan(chat(messages=LOOP)).arm is None
    assert desk.plan(chat(messages=(user("Hi"), thought(), user("Go on")))).arm is None
    assert desk.plan(chat("gpu/qwen")).arm is None
    assert desk.plan(second()).arm == "new:treatment"


def test_a_rollout_may_try_a_strategy() -> None:
    tried = Running("best", 1.0, strategy="quality")
    desk = Desk(tried, scores=[0.1])
    assert (desk.plan().strategy, desk.plan().arm) == ("quality", "best:treatment")
    by_header, by_name = chat(terms=terms(strategy="cost")), chat("auto:cost")
    for request in (by_header, by_name):
        made = desk.plan(request)
        assert (made.strategy, made.arm) == ("cost", None), "the caller has chosen"
    assert [chosen for _, chosen in desk.assigned] == [False, False, True, True]


def test_a_rollout_may_try_a_share_that_stays_local() -> None:
    scores = [number / 100 for number in range(100)]
    desk = Desk(scores=[*scores, 0.7], registry=TIERS, target_local=0.5)
    for _ in scores:
        desk()
    assert desk.plan().candidates[0].card is LARGE
    desk.running = (Running("more local", 1.0, target_local=0.9),)
    assert desk.plan().candidates[0].card is SMALL


def test_whom_a_rollout_gets_sticks_to_the_session() -> None:
    desk = Desk(NEW)
    desk(chat(terms=terms(session="s")), Caller(key_id="k"))
    desk(chat(), Caller(key_id="k"))
    assert [unit for unit, _ in desk.assigned] == ["s", "k"]


def test_a_request_that_another_caused_is_in_no_rollout_but_the_one_that_caused_it() -> None:
    """A shadow counts for its own rollout, and is drawn into no other."""
    desk = Desk(NEW)
    assert desk.plan(chat(terms=terms(depth=1))).arm is None
    for model in ("auto", "gpu/backup"):
        shadow = chat(model, terms=terms(depth=1, arm="dark:treatment"))
        assert desk.plan(shadow).arm == "dark:treatment"
    assert desk.assigned == []
