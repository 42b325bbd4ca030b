"""Money in integers: amounts in nano-dollars (1e-9 USD), prices in pico-dollars (1e-12 USD) per token."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from app.core.value import value

PICO_PER_NANO = 1_000
NANO_PER_USD = 1_000_000_000
PICO_PER_TOKEN_AT_ONE_USD_PER_MILLION = 1_000_000


@value(frozen=True, slots=True)
class Price:
    """Pico-dollars per token of each kind.

    `above` holds long-context tiers as (prompt tokens, price), in rising order: once the prompt has more tokens than
    the first number, all tokens of the request cost what the second says.
    """

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    above: tuple[tuple[int, Price], ...] = ()


FREE = Price(0, 0, 0, 0, 0)


@value(frozen=True, slots=True)
class Tokens:
    """Tokens of one answer as OpenAI counts: `prompt` includes cache reads and writes, `completion` reasoning."""

    prompt: int = 0
    completion: int = 0
    cache_read: int = 0
    cache_write: int = 0  # of which `cache_write_1h` are kept an hour
    cache_write_1h: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.cache_write_1h + other.cache_write_1h,
            self.reasoning + other.reasoning,
        )


def per_million(usd: Decimal) -> int:
    """USD per million tokens -> pico-dollars per token."""
    return int((usd * PICO_PER_TOKEN_AT_ONE_USD_PER_MILLION).to_integral_value(ROUND_HALF_UP))


def cost_nano(tokens: Tokens, price: Price) -> int:
    """What an answer costs, in nano-dollars, rounded up once at the end."""
    for above, dearer in price.above:
        if tokens.prompt > above:
            price = dearer
    if not (tokens.cache_read or tokens.cache_write or tokens.cache_write_1h):
        return -(-(tokens.prompt * price.input + tokens.completion * price.output) // PICO_PER_NANO)
    fresh = max(0, tokens.prompt - tokens.cache_read - tokens.cache_write)
    pico = (
        fresh * price.input
        + tokens.cache_read * price.cache_read
        + max(0, tokens.cache_write - tokens.cache_write_1h) * price.cache_write
        + tokens.cache_write_1h * price.cache_write_1h
        + tokens.completion * price.output
    )
    return -(-pico // PICO_PER_NANO)


def usd(nano: int) -> float:
    """Nano-dollars as a number for people and JSON. Never computed with."""
    return nano / NANO_PER_USD
