"""Every key of the configuration file, with its type, its default and what it means.

These models are the reference: unknown keys are errors, nothing is converted silently, nothing changes afterwards.
What depends on more than one place in the file is checked in `checks`, what depends on the environment in `resolve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.config.values import (
    Bytes,
    Count,
    FlagName,
    FlagValue,
    Fraction,
    Glob,
    Levels,
    Many,
    PlainName,
    Pool,
    Range,
    Seconds,
    Share,
    Steps,
    Table,
    Text,
    TimeZone,
    UpstreamName,
    Usd,
    VariableName,
    Wait,
    Webhook,
    empty,
    wrong,
)
from app.core.card import Ability
from app.core.money import NANO_PER_USD

Kind = Literal["ollama", "vllm", "anthropic", "openai"]
Strategy = Literal["cost", "quality", "privacy", "adaptive"]
Scope = Literal["global", "tenant", "key", "agent", "session"]
Period = Literal["day", "month", "total"]


class Part(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self  # nothing in it can change


class Timeouts(Part):
    connect: Seconds = 5.0
    """Seconds until a connection is made."""
    first_token: Seconds = 60.0
    """Seconds from the request to the first content of the answer."""
    cold_start: Seconds = 300.0
    """The same for a model that must be loaded first."""
    idle: Seconds = 60.0
    """Seconds between two events of an answer."""
    total: Seconds = 600.0
    """Seconds for the whole answer."""


class Breaker(Part):
    failures: Count = 5
    """Failures in a row that open the breaker."""
    window: Seconds = 30.0
    """Seconds over which the failure rate is measured."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of failures in the window that opens it."""
    open: Seconds = 10.0
    """Seconds it stays open at first; doubled each time."""
    max_open: Seconds = 300.0
    """The most seconds it stays open."""
    successes: Count = 2
    """Successful trials that close it again."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_open < self.open:
            raise wrong("max_open must not be less than open")
        return self


class Upstream(Part):
    kind: Kind
    """What it speaks: `ollama`, `vllm`, `anthropic`, or `openai` for any compatible server."""
    base_url: Pool | None = None
    """Its address, or several that are one pool."""
    api_key_env: VariableName | None = None
    """The environment variable that holds its key."""
    local: bool | None = None
    """Whether prompts stay in house; true for `ollama` and `vllm`."""
    max_concurrency: Count | None = None
    """Ceiling of the adaptive limit of calls at a time."""
    timeouts: Timeouts = Timeouts()
    """Its clocks, in seconds."""
    breaker: Breaker = Breaker()
    """When it is left alone for a while."""
    cost_per_hour: Usd = Decimal(0)
    """USD an hour of the machine costs: the imputed price of its answers."""

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.base_url is None and self.kind in ("vllm", "openai"):
            raise wrong(f"base_url is required for kind {self.kind}")
        return self


class PriceOverride(Part):
    input: Usd
    """USD per million input tokens."""
    output: Usd
    """USD per million output tokens."""
    cache_read: Usd | None = None
    """USD per million tokens read from a cache; `input` if not said."""
    cache_write: Usd | None = None
    """USD per million tokens written to one; 1.25 times `input` if not said."""


class Model(Part):
    complexity: Range | None = None
    """The scores (0 to 1) it is meant for."""
    abilities: Many[Annotated[Ability, Field(strict=False)]] | None = None
    """What it can do besides chat, instead of what its upstream says."""
    num_ctx: Count | None = None
    """The window to open on Ollama; its own, at most 32768, if not said."""
    context_window: Count | None = None
    """Its context window in tokens, instead of what its upstream says."""
    max_output: Count | None = None
    """The most tokens it can answer with."""
    fallback: Many[Text] = ()
    """Models that may stand in for it when it is asked for by name."""
    price: PriceOverride | None = None
    """Its price, instead of the price library's."""


class Task(Part):
    prefer: Many[Text] = ()
    """Models or modes to try first."""


class Defaults(Part):
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature."""
    max_tokens: Count | None = None
    """The most tokens of an answer."""
    system: Text | None = None
    """A system message."""


class Fallback(Part):
    on: bool = True
    """Whether another model may be tried when one fails."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """The most attempts for one request."""
    abilities: Annotated[
        Mapping[Annotated[Ability, Field(strict=False)], Many[Text]], AfterValidator(MappingProxyType)
    ] = Field(default_factory=lambda: MappingProxyType(dict[Ability, tuple[str, ...]]()))
    """Per ability: models to try next, in this order, when `auto` needs it and the first failed."""


class Target(Part):
    model: Text | None = None
    """The model that gets the share."""
    strategy: Strategy | None = None
    """The strategy that gets the share."""
    target_local: Fraction | None = None
    """The `routing.target_local` that gets the share: another threshold."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.model, self.strategy, self.target_local].count(None) != 2:
            raise wrong("needs either model or strategy or target_local")
        return self


class Rollout(Part):
    kind: Literal["canary", "ab", "shadow"]
    """`canary`, `ab` or `shadow`."""
    share: Share
    """The share of requests, like "10%"."""
    to: Target
    """Where that share goes."""
    rollback: bool = True
    """Whether it is taken back by itself when it does worse."""
    steps: Steps = ()
    """Shares on the way to `share`, like ["20% shadow", "50%"]; `true` is 20% shadow, 50%, 80%."""
    dwell: Seconds = 600.0
    """Seconds to stay on a step at least."""

    @model_validator(mode="after")
    def _shadows_are_models(self) -> Self:
        if self.to.model is None and (self.kind == "shadow" or any(step.endswith("shadow") for step in self.steps)):
            raise wrong("only a model can be a shadow")
        return self


class Routing(Part):
    strategy: Strategy = "cost"
    """How `auto` chooses."""
    default_model: Text | None = None
    """What `auto` is without the router; the first local model."""
    target_local: Fraction | None = None
    """Tune the threshold so that this share stays local."""
    cloud: Literal["normal", "emergency", "never"] = "normal"
    """When paid models may be used."""
    degrade: bool = False
    """Allow a smaller model when the right one is above 80 % of its ceiling."""
    max_local_latency: Seconds | None = None
    """Seconds to a local first token, beyond which paid models come first."""
    tasks: Table[Task] = Field(default_factory=empty)
    """Per task type: models or modes to prefer."""
    defaults: Table[Defaults] = Field(default_factory=empty)
    """Per model or task type: parameters for callers who said nothing."""
    fallback: Fallback = Fallback()
    """Whether and how often others are tried."""
    rollouts: Annotated[Mapping[PlainName, Rollout], AfterValidator(MappingProxyType)] = Field(default_factory=empty)
    """Named shares of traffic that go elsewhere."""


class BudgetRule(Part):
    scope: Scope
    """Whose spend it limits."""
    match: Glob = "*"
    """Which of them: a name or a pattern."""
    period: Period
    """`day`, `month` or `total`."""
    limit: Usd
    """USD."""
    shared: bool = False
    """One limit for all that match, instead of one for each."""
    time_zone: TimeZone | None = None
    """Where its days and months begin; `budget.time_zone` if not said."""

    @model_validator(mode="after")
    def _global_is_one(self) -> Self:
        if self.scope == "global" and self.match != "*":
            raise wrong("the global scope has no match")
        return self

    @property
    def id(self) -> str:
        return f"{self.scope}:{self.match}:{self.period}"

    @property
    def limit_nano(self) -> int:
        """The limit in nano-dollars; a fraction of one counts as nothing, so that spend never passes what was said."""
        return int(self.limit * NANO_PER_USD)


class BudgetPolicy(Part):
    estimate: Literal["strict", "calibrated"] = "strict"
    """Reserve the most an answer can cost, or a high quantile of what it usually costs."""
    on_crash: Literal["full", "release"] = "full"
    """What a hold becomes whose gateway died."""
    time_zone: TimeZone = "UTC"
    """Where days and months begin."""
    alert_at: Levels = (0.8, 1.0)
    """Shares of a limit at which to alert."""
    webhook: Webhook | None = None
    """Where to post alerts."""
    lower_max_tokens: bool = False
    """Shorten answers to what is left, instead of refusing."""


class Sessions(Part):
    ttl_days: Annotated[int, Field(ge=1, le=3_650)] = 30
    """Days a session is kept after its last turn."""
    max_bytes: Bytes = 4_194_304
    """The most bytes of one session's history."""


class Streaming(Part):
    send_timeout: Seconds = 30.0
    """Seconds a client may take to read what was sent."""
    buffer_bytes: Bytes = 262_144
    """The most bytes held for one stream; less than 65536 counts as that."""
    commit_after: Wait = 15.0
    """Seconds without content after which the headers go out."""
    ping: Seconds = 15.0
    """Seconds between keep-alive comments while waiting."""
    resumable: Literal["opt-in", "always", "never"] = "opt-in"
    """Which streams can be resumed."""
    orphan_seconds: Wait = 60.0
    """Seconds a resumable stream runs on without its client."""
    min_tokens_per_second: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """Slower streams than this are given up; 0 is no limit."""
    grace: Wait = 300.0
    """Seconds that running streams get when the gateway stops."""


class Limits(Part):
    body_bytes: Bytes = 20_971_520
    """The most bytes of a request's body."""
    messages: Count = 2_048
    """The most messages of a request."""
    tools: Count = 256
    """The most tools of a request."""
    depth: Annotated[int, Field(ge=8, le=200)] = 64
    """The deepest nesting of a request's JSON."""
    in_flight: Count = 2_000
    """The most requests at a time; more are refused with 503."""
    queue_seconds: Wait = 30.0
    """The most seconds a request waits for a place at an upstream."""
    lag_seconds: Seconds = 0.1
    """Requests are refused while the event loop is later than this, and stays so."""
    memory_bytes: Bytes | None = None
    """Requests are refused while a process takes more memory; 85 % of what there is if not said."""


FlagValues = Annotated[Mapping[FlagName, FlagValue], AfterValidator(MappingProxyType)]


class Overrides(Part):
    agent: Table[FlagValues] = Field(default_factory=empty)
    """Flags per agent type."""
    key: Table[FlagValues] = Field(default_factory=empty)
    """Flags per key, by its name or id."""
    tenant: Table[FlagValues] = Field(default_factory=empty)
    """Flags per tenant."""


class Features(Part):
    overrides: Overrides = Overrides()
    """Flag values for some callers only."""


class FileSettings(Part):
    """The whole file. `upstreams` None means that the file does not say, so that the environment does."""

    upstreams: Annotated[Mapping[UpstreamName, Upstream], AfterValidator(MappingProxyType)] | None = None
    """Servers by name; the environment's if not said."""
    models: Table[Model] = Field(default_factory=empty)
    """Notes on models, by full id."""
    only_listed_models: bool = False
    """Whether `models` is also the list of what may be used."""
    aliases: Annotated[Mapping[Glob, Text], AfterValidator(MappingProxyType)] = Field(default_factory=empty)
    """Other names, or patterns of names, for a model."""
    routing: Routing = Routing()
    """How `auto` chooses."""
    budgets: Many[BudgetRule] = ()
    """Limits on spend."""
    budget: BudgetPolicy = BudgetPolicy()
    """How spend is reserved, counted and reported."""
    sessions: Sessions = Sessions()
    """What is kept of conversations."""
    streaming: Streaming = Streaming()
    """How streams are sent."""
    limits: Limits = Limits()
    """Bounds on what a client may send."""
    features: Features = Features()
    """Feature flags for some callers."""
