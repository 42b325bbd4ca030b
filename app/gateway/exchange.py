"""The one object a request has while it lives, and the attempt that runs. Visible only inside `gateway/`; what it was
once it is over is for `recording` to say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from app.core.caller import Caller
from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import Blame, GatewayError, InternalError, UpstreamFault
from app.core.events import Event, Finish, Start, Usage, is_content
from app.core.money import Tokens
from app.core.plan import Candidate, Plan
from app.core.record import Attempt, Served
from app.core.request import AnyRequest, Request
from app.gateway.account import Account
from app.gateway.continuation import Continuation
from app.gateway.noticing import Noticing
from app.gateway.planning import Planned
from app.gateway.sessions import Conversation

DEADLINE_SECONDS: Final = 600.0


@dataclass(slots=True)
class Running:
    """The attempt that runs, or ran last, and what has come of it; before the first it has no candidate. `read_at` is
    when something of its answer was read last; once it is `priced`, `usage` is what it came to."""

    candidate: Candidate | None
    started: float
    read_at: float
    machine_mark: float = 0.0
    prompt: Tokens | None = None
    first_content: float | None = None
    out_bytes: int = 0
    out_pieces: int = 0
    usage: Usage | None = None
    priced: bool = False
    charge_nano: int | None = None


class Exchange:
    """Collects what happens to a request; what happens to one attempt is in `running`. Times are seconds of the clock
    handed in."""

    def __init__(self, caller: Caller, request: AnyRequest, endpoint: str, clock: Clock) -> None:
        self.caller = caller
        self.request = request
        self.endpoint = endpoint
        self.clock = clock
        self.started = clock.monotonic()
        self.started_at = clock.now()
        self.ended: float | None = None
        self.deadline = request.terms.deadline or self.started + DEADLINE_SECONDS
        self.conversation: Conversation | None = None
        self.planned: Planned | None = None
        self.account = Account()
        self.queued = 0.0  # seconds in the lines of upstreams
        self.kept_out: dict[str, str] = {}  # models that it may not go to now, and the code of what says so
        self.sent = request  # as the current candidate gets it
        self.noticing = Noticing(request) if isinstance(request, Request) else None
        self.defaults: tuple[str, ...] = ()
        self.running = Running(None, self.started, self.started)
        self.attempts: list[Attempt] = []
        self.finish: str | None = None
        self.stopped: str | None = None
        self.error: GatewayError | None = None
        self.failure: GatewayError | None = None  # of the attempt before
        self._finished: set[int] = set()
        self.earlier_nano = 0  # charged for attempts that came to nothing
        self.upstream_seconds = 0.0
        self.continuation: Continuation | None = None

    @property
    def plan(self) -> Plan | None:
        return None if self.planned is None else self.planned.plan

    @property
    def candidate(self) -> Candidate | None:
        return self.running.candidate

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Who may be asked: where another goes on with an answer, those that have not begun it."""
        assert self.plan is not None
        return self.plan.candidates if self.continuation is None else self.continuation.left(self.plan.candidates)

    def asked_of(self, card: Card) -> AnyRequest:
        """The request as this model should get it, before what an operator or a limit adds to it."""
        request = self.request if self.conversation is None else self.conversation.sent_to(card)
        return request if self.continuation is None else self.continuation.asked_of(request, card)

    @property
    def task_type(self) -> str | None:
        verdict = None if self.plan is None else self.plan.verdict
        return None if verdict is None else verdict.task_type

    @property
    def streams(self) -> bool:
        return isinstance(self.request, Request) and self.request.stream

    # --- attempts ---

    def attempt_begins(self, candidate: Candidate, machine_mark: float = 0.0) -> None:
        self.earlier_nano += self.running.charge_nano or 0
        now = self.clock.monotonic()
        self.running = Running(candidate, now, now, machine_mark)

    def attempt_seconds(self) -> float:
        return self.clock.monotonic() - self.running.started

    def attempt_ends(self, error: BaseException | None, machine_seconds: float | None = None) -> None:
        """Notes how the running attempt went: well (None), with a core error, or because the caller left."""
        running = self.running
        assert running.candidate is not None
        self.failure = error if isinstance(error, GatewayError) else None
        seconds = self.attempt_seconds()
        self.upstream_seconds += seconds
        outcome, blame = _outcome(error) if self.stopped is None else ("stopped", None)
        card, leased = running.candidate.card, self.account.hold is not None
        tokens = None if running.usage is None else running.usage.tokens
        attempt = Attempt(
            card.id, card.upstream, outcome, blame, seconds, running.charge_nano, tokens, machine_seconds, leased
        )
        self.attempts.append(attempt)
        told = running.usage is not None and not running.usage.estimated
        self.account.ends(attempt, stands_in=self.stands_in_for is not None, told=told)

    def begun_by(self, event: Event) -> bool:
        """Whether the answer begins with this event of it; notes what is told before."""
        if type(event) is Start:
            self.running.prompt = event.prompt
        return is_content(event)

    def waits(self, seconds: float) -> None:
        """Notes a pause between attempts, which is not the gateway's own work."""
        self.upstream_seconds += seconds

    def queues(self, seconds: float) -> None:
        """Notes a wait for a seat."""
        self.queued += seconds
        self.waits(seconds)

    def remaining(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self.deadline - self.clock.monotonic())

    def finished(self, event: Finish) -> None:
        self.finish = event.reason
        self._finished.add(event.choice)

    def stop(self) -> list[Finish]:
        """Ends every choice that still runs, because no more may be spent on it."""
        self.stopped, self.finish = "budget", "length"
        count = self.request.n if isinstance(self.request, Request) else 1
        return [Finish("length", choice) for choice in range(count) if choice not in self._finished]

    def called_up(self, trigger: str) -> tuple[Candidate, ...]:
        """Lets the plan's reserve follow in an emergency; who that is."""
        assert self.planned is not None
        before = len(self.planned.plan.candidates)
        self.planned = self.planned._replace(plan=self.planned.plan.called_up(trigger))
        return self.planned.plan.candidates[before:]

    def continues(self, said: str) -> None:
        """The answer broke off after so much; the attempt is over, and another model is to go on."""
        before, over = self.continuation, self.running
        assert over.candidate is not None
        broken = (*(() if before is None else before.broken), over.candidate.card.id)
        tokens = Tokens() if over.usage is None else over.usage.tokens
        tokens = tokens if before is None else before.tokens + tokens
        self.continuation = Continuation(said, broken, self.began, tokens, over.candidate, over.charge_nano)
        self.running = Running(over.candidate, over.started, over.read_at, charge_nano=over.charge_nano)

    def gave_up(self) -> None:
        """Nobody went on with it: it is what it was when it broke off."""
        before = self.continuation
        assert before is not None
        self.running = replace(
            self.running,
            candidate=before.candidate,
            first_content=before.began,
            usage=Usage(Tokens(), estimated=True),
            priced=True,
            charge_nano=before.charge_nano,
        )

    @property
    def began(self) -> float | None:
        """When the first content came, whoever it was of."""
        return self.running.first_content if self.continuation is None else self.continuation.began

    # --- what callers are told ---

    @property
    def stands_in_for(self) -> str | None:
        """The model that should have answered, when another does."""
        chosen = self.running.candidate
        if self.planned is None or chosen is None:
            return None
        candidates = self.planned.plan.candidates
        for other in candidates:
            if other.stands_in_for is not None:
                asked = other.stands_in_for
                break
        else:
            asked = candidates[0].card.id
        return asked if asked != chosen.card.id else None

    def served(self) -> Served:
        plan, chosen, terms = self.plan, self.running.candidate, self.request.terms
        assert plan is not None and chosen is not None
        return Served(
            request_id=terms.request_id,
            model=chosen.card.id,
            upstream=chosen.card.upstream,
            reason=chosen.reason,
            attempts=len(self.attempts) + 1,
            tier=plan.tier,
            score=plan.score,
            fallback=self.stands_in_for,
            session=terms.session,
            defaults=self.defaults,
            simulated=chosen.card.simulated,
            rates=self.account.states,
            continued_from=None if self.continuation is None else self.continuation.broken[-1],
        )

    def summed(self, usage: Usage) -> Usage:
        """The usage of the whole answer. Where several models made it, the first broke off, and nobody said its own."""
        if self.continuation is None:
            return usage
        return replace(usage, tokens=self.continuation.tokens + usage.tokens, estimated=True, details=None)

    @property
    def used(self) -> Usage | None:
        """What the whole answer used, for records and limits alike; None where nothing was."""
        usage = self.running.usage
        return None if usage is None and self.continuation is None else self.summed(usage or Usage(Tokens()))

    def ends(self, error: GatewayError | None) -> None:
        """The caller has all he will get. `error` is what ended it early."""
        self.ended = self.clock.monotonic()
        if error is not None:
            self.error = error


def _outcome(error: BaseException | None) -> tuple[str, str | None]:
    match error:
        case None:
            return "ok", None
        case UpstreamFault():
            return error.kind, error.blame
        case GatewayError():
            return error.code, error.blame
        case Exception():
            return InternalError.code, InternalError.blame
        case _:
            return "left", Blame.CALLER
