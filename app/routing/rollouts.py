"""Named experiments on a share of the traffic: who is in which arm, what that means for a plan, and how a share moves.

Pure. An experiment sends its share elsewhere (another model, strategy or threshold), or repeats it there (`shadow`).
Who is in it is a hash of its name and of the session, else the key: the same for every replica, and a growing share
only adds members. A request is the treatment of one experiment at most, and control of all others while it is of none.
How the arms compare is told by `trial`; keeping replicas together is left to the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from app.config.features import parse_percent
from app.config.schema import Rollout
from app.core.card import Card
from app.core.plan import Candidate, Plan
from app.core.shares import is_in_share
from app.routing.trial import Ruling

CONTROL: Final = "control"
TREATMENT: Final = "treatment"
NAMED: Final = "named"  # the strategy of a plan for a model that was asked for by name
COOLDOWN_SECONDS: Final = 600.0
"""For which a rollout that took a step back does not take one up again."""

Status = Literal["running", "rolled_back", "off"]


@dataclass(frozen=True, slots=True)
class Step:
    share: float
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Experiment:
    """What somebody wants: a share to one of three places, and the steps on the way to it."""

    name: str
    kind: str
    share: float
    model: str | None = None
    strategy: str | None = None
    target_local: float | None = None
    rollback: bool = True
    steps: tuple[Step, ...] = ()
    dwell: float = 600.0

    @property
    def ladder(self) -> tuple[Step, ...]:
        """The share is the last step; those not below it are passed over."""
        return (*(s for s in self.steps if s.share < self.share), Step(self.share, self.kind == "shadow"))


def experiment(name: str, rollout: Rollout) -> Experiment:
    """What the file or an operator wrote."""
    steps = tuple(
        Step(parse_percent(text.removesuffix("shadow")) or 0.0, rollout.kind == "shadow" or text.endswith("shadow"))
        for text in rollout.steps
    )
    to = rollout.to
    return Experiment(
        name=name,
        kind=rollout.kind,
        share=rollout.share,
        model=to.model,
        strategy=to.strategy,
        target_local=to.target_local,
        rollback=rollout.rollback,
        steps=steps,
        dwell=rollout.dwell,
    )


def written(wanted: Experiment) -> dict[str, Any]:
    """The experiment as the file would have it."""
    to = {"model": wanted.model, "strategy": wanted.strategy, "target_local": wanted.target_local}
    return {
        "kind": wanted.kind,
        "share": percent(wanted.share),
        "to": {name: value for name, value in to.items() if value is not None},
        "rollback": wanted.rollback,
        "steps": [percent(step.share) + (" shadow" if step.shadow else "") for step in wanted.steps],
        "dwell": wanted.dwell,
    }


def percent(share: float) -> str:
    return f"{share:.4%}".rstrip("0%").rstrip(".") + "%"


# --- who is in which arm --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """A rollout as requests meet it. Its treatment is planned with `strategy` and `target_local` (the share that should
    stay local) instead of what is configured."""

    name: str
    share: float
    shadow: bool = False
    model: str | None = None
    strategy: str | None = None
    target_local: float | None = None


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where one request belongs: the treatment of one rollout, or control of some."""

    treatment: Running | None = None
    control: tuple[Running, ...] = ()


NOWHERE: Final = Assigned()


def arm_of(rollout: Running, unit: str) -> str:
    """The unit (a session, else a key) gets the same answer from every replica, every time."""
    treated = not rollout.shadow and is_in_share(f"rollout {rollout.name}", unit, rollout.share)
    return TREATMENT if treated else CONTROL


def treated_in(arm: str | None) -> str | None:
    """The rollout whose treatment an answer in this arm was; None for any other."""
    if arm is None:
        return None
    name, _, role = arm.rpartition(":")
    return name if role == TREATMENT else None


def assign(running: Sequence[Running], unit: str, *, chosen: bool = False) -> Assigned:
    """The first rollout that wants the unit gets it. `chosen`: the caller named the strategy, so that experiments on
    strategies and thresholds are not for it."""
    if not running:
        return NOWHERE
    concerned = [one for one in running if one.model is not None or not chosen]
    treatment = next((one for one in concerned if arm_of(one, unit) == TREATMENT), None)
    return Assigned(control=tuple(concerned)) if treatment is None else Assigned(treatment)


def placed(plan: Plan, assigned: Assigned, demoted: Callable[[Card], str | None], *, movable: bool = True) -> Plan:
    """The plan with its arm, and with the treatment's model in front.

    A request that the treatment's model could not serve is in no arm, whichever it would have been in: else the arms
    would differ in more than the model. Nor is one whose model must not change now (`movable`: no tool loop, no signed
    thinking), or that asked for a model by name."""
    if assigned is NOWHERE or plan.strategy == NAMED or not movable:
        return plan
    treatment = assigned.treatment
    if treatment is None:
        names = [f"{one.name}:{CONTROL}" for one in assigned.control if _can_serve(plan, one, demoted)]
        return replace(plan, arm=",".join(names)) if names else plan
    if not _can_serve(plan, treatment, demoted):
        return plan
    candidates = plan.candidates
    if (model := treatment.model) is not None:
        first = next(candidate for candidate in candidates if _is(candidate.card, model))
        chosen = Candidate(first.card, f"rollout {treatment.name}", first.stands_in_for, first.estimate)
        candidates = (chosen, *(candidate for candidate in candidates if candidate is not first))
    return replace(plan, candidates=candidates, arm=f"{treatment.name}:{TREATMENT}")


def _can_serve(plan: Plan, rollout: Running, demoted: Callable[[Card], str | None]) -> bool:
    if (model := rollout.model) is None:
        return True
    card = next((candidate.card for candidate in plan.candidates if _is(candidate.card, model)), None)
    return card is not None and demoted(card) is None


def _is(card: Card, model: str) -> bool:
    return model in (card.id, card.name)


def shadow_of(running: Sequence[Running], arm: str | None, request_id: str) -> Running | None:
    """The rollout that wants this request repeated in its shadow, once it is answered."""
    if arm is None:
        return None
    arms = arm.split(",")
    for one in running:
        drawn = one.shadow and f"{one.name}:{CONTROL}" in arms
        if drawn and is_in_share(f"shadow {one.name}", request_id, one.share):
            return one
    return None


# --- how a share moves ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Live:
    """A rollout as it stands, the same on all replicas. `since` is when its share last changed (seconds since 1970),
    and `serial` counts those changes, so that what was measured before one never counts after it. `origin` is a digest
    of what the file said, for one that came from there."""

    experiment: Experiment
    since: float
    status: Status = "running"
    step: int = 0
    serial: int = 0
    cooled_at: float = 0.0
    reason: str = "started"
    origin: str | None = None

    @property
    def now(self) -> Step:
        return self.experiment.ladder[self.step] if self.status == "running" else Step(0.0)

    @property
    def running(self) -> Running | None:
        """None while nobody is in it."""
        step, wanted = self.now, self.experiment
        if step.share <= 0:
            return None
        return Running(wanted.name, step.share, step.shadow, wanted.model, wanted.strategy, wanted.target_local)


def started(wanted: Experiment, before: Live | None, now: float, reason: str, origin: str | None) -> Live:
    """Started, or armed again, by the file or an operator. One that is running keeps its step where the steps are the
    same; a share of nothing switches it off. Serials of a name never come twice."""
    same = before is not None and before.status == "running" and before.experiment.ladder == wanted.ladder
    return Live(
        wanted,
        before.since if before is not None and same else now,
        "running" if wanted.share > 0 else "off",
        step=before.step if before is not None and same else 0,
        serial=int(now) if before is None else before.serial + 1,
        reason=reason,
        origin=origin,
    )


def moved(live: Live, ruling: Ruling, now: float) -> Live:
    """What follows from a ruling: the same object where nothing does. A step back cools down; at the foot of the ladder
    it is the end, until somebody arms it again."""
    wanted = live.experiment
    if live.running is None or ruling.action == "hold":
        return live
    if ruling.action == "up":
        on_top = live.step + 1 >= len(wanted.ladder)
        if on_top or now < max(live.since + wanted.dwell, live.cooled_at):
            return live
        return replace(live, since=now, step=live.step + 1, serial=live.serial + 1, reason=ruling.why)
    if not wanted.rollback:
        return live
    back = replace(live, since=now, serial=live.serial + 1, cooled_at=now + COOLDOWN_SECONDS, reason=ruling.why)
    if ruling.action == "stop" or live.step == 0:
        return replace(back, status="rolled_back", step=0)
    return replace(back, step=live.step - 1)
