"""How a simulated server behaves: its models, how fast they are, and the limits it keeps. Data only."""

from __future__ import annotations

from dataclasses import dataclass

ABILITIES = frozenset({"tools", "thinking", "vision"})


@dataclass(frozen=True, slots=True)
class SimModel:
    """One model. `tier` is the word by which its answers say who speaks. Seconds and tokens per second are what a
    client sees; None is as fast as can be. `load` is what a cold start costs (Ollama). `abilities` are Ollama's words
    (tools, thinking, vision, embedding); `parent` makes it a LoRA adapter (vLLM)."""

    name: str
    tier: str = "small"
    parameters: str = "8.0B"
    context: int = 32_768
    max_output: int = 16_384
    abilities: frozenset[str] = ABILITIES
    first_token: float = 0.0
    tokens_per_second: float | None = None
    load: float = 0.0
    dimensions: int | None = None
    parent: str | None = None

    @property
    def embeds(self) -> bool:
        return self.dimensions is not None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One server. `num_ctx` is Ollama's own default window; `api_key` None takes any key or none (Claude: any);
    `parallel` replies are made at once and `queue` more may wait, both None for no limit."""

    models: tuple[SimModel, ...]
    num_ctx: int = 4_096
    api_key: str | None = None
    parallel: int | None = None
    queue: int | None = None

    def model(self, name: str) -> SimModel | None:
        return next((model for model in self.models if model.name == name), None)


DEFAULTS: dict[str, Behaviour] = {
    "ollama": Behaviour(
        (SimModel("sim-small"), SimModel("sim-embed", "embedder", "0.3B", 2_048, 0, frozenset(), dimensions=64))
    ),
    "vllm": Behaviour((SimModel("sim-medium", "medium", "30B", 65_536),)),
    "anthropic": Behaviour((SimModel("claude-sim-large", "large", "unknown", 1_000_000, 128_000),)),
    "openai": Behaviour((SimModel("sim-plain", "plain", "8B", 32_768),)),
}
"""What a simulated server of each kind is like when nothing else is asked for."""
