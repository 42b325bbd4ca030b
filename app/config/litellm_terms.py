"""What LiteLLM's configuration names and what we call it: providers, and what to do about settings that have no
counterpart. Tables only; `litellm` reads by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from app.config.environment import ANTHROPIC_DEFAULT, OLLAMA_DEFAULT
from app.config.schema import Kind


class Provider(NamedTuple):
    """`base`: where it is when nothing else is said. `key`: the variable that LiteLLM takes its key from by itself."""

    kind: Kind
    base: str | None = None
    key: str | None = None
    name: str | None = None
    """What its upstream is called; as LiteLLM calls it if not said."""


_COMPATIBLE: Final = Provider("openai")
PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider("openai", "https://api.openai.com", "OPENAI_API_KEY"),
    "anthropic": Provider("anthropic", ANTHROPIC_DEFAULT, "ANTHROPIC_API_KEY", "claude"),
    "ollama": Provider("ollama", OLLAMA_DEFAULT),
    "ollama_chat": Provider("ollama", OLLAMA_DEFAULT, None, "ollama"),
    "hosted_vllm": Provider("vllm", None, None, "vllm"),
    "vllm": Provider("vllm"),
    "azure": Provider("openai", None, "AZURE_API_KEY"),
    "groq": Provider("openai", "https://api.groq.com/openai", "GROQ_API_KEY"),
    "mistral": Provider("openai", "https://api.mistral.ai", "MISTRAL_API_KEY"),
    "deepseek": Provider("openai", "https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    "together_ai": Provider("openai", "https://api.together.xyz", "TOGETHERAI_API_KEY"),
    "fireworks_ai": Provider("openai", "https://api.fireworks.ai/inference", "FIREWORKS_AI_API_KEY"),
    "openrouter": Provider("openai", "https://openrouter.ai/api", "OPENROUTER_API_KEY"),
    "xai": Provider("openai", "https://api.x.ai", "XAI_API_KEY"),
    "cerebras": Provider("openai", "https://api.cerebras.ai", "CEREBRAS_API_KEY"),
    "nvidia_nim": Provider("openai", "https://integrate.api.nvidia.com", "NVIDIA_NIM_API_KEY"),
    **dict.fromkeys(
        (
            "openai_like",
            "custom_openai",
            "litellm_proxy",
            "lm_studio",
            "llamafile",
            "xinference",
            "docker_model_runner",
        ),
        _COMPATIBLE,
    ),
}
FOREIGN: Final = frozenset(
    {
        *("azure_ai", "bedrock", "bedrock_converse", "cohere", "cohere_chat", "databricks", "gemini", "huggingface"),
        *("perplexity", "replicate", "sagemaker", "sagemaker_chat", "vertex_ai", "vertex_ai_beta", "watsonx"),
    }
)
"""Known, and not spoken here."""
FOREIGN_ADVICE: Final = (
    "this provider's own protocol is not spoken here; keep LiteLLM in front of it and add that as an upstream"
    " of kind openai, or use the provider's OpenAI-compatible address as api_base with openai/"
)
BY_PREFIX: Final = (("claude", "anthropic"), ("gpt-", "openai"), ("o1", "openai"), ("o3", "openai"), ("o4", "openai"))
"""Whose a model is that is named without a provider."""
NO_KEYS: Final = frozenset({"", "none", "null", "empty", "dummy", "fake", "fake-key", "not-needed", "no-key", "ollama"})
"""What people write where no key is needed."""

_BALANCE: Final = "servers of one pool are chosen by load, other upstreams by price and health"
_KEY_LIMIT: Final = "limits are per key: tierway keys create --help; upstreams are held back by max_concurrency"
_KEYS: Final = "keys and teams are made anew: tierway keys create; see docs/keys.md"
_WATCH: Final = "/metrics, one log line per request and the dashboards are built in; see docs/monitoring.md"
PARAMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("rpm", "tpm"), _KEY_LIMIT),
    **dict.fromkeys(("weight", "order"), _BALANCE + "; for shares of the traffic see routing.rollouts"),
    **dict.fromkeys(("max_budget", "budget_duration"), "budgets are per tenant, key, agent or session; see budgets"),
    "max_retries": "retries are counted per request: routing.fallback.max_attempts",
    "api_version": "only Azure's v1 interface is used, which has no versions",
    "organization": "no such header is sent; a key of OpenAI belongs to one organisation",
    **dict.fromkeys(("extra_headers", "headers"), "only an upstream's own headers are sent, for safety"),
    "tags": "callers are told apart by agent type, key and tenant",
    "drop_params": "always: what a model cannot take is named in x-tierway-ignored",
}
INFO: Final = frozenset({"id", "mode", "base_model", "description", "db_model", "created_by", "updated_by"})
"""What is said of a model and asks for nothing."""
SETTINGS: Final[Mapping[str, str]] = {
    "general_settings.master_key": "secrets stay out of the file: set TIERWAY_ADMIN_KEY, at least 16 characters;"
    " clients get keys of their own: tierway keys create",
    **dict.fromkeys(
        ("general_settings.database_url", "general_settings.database_connection_pool_limit"),
        "no database: state is in the embedded store, or the one of REDIS_URL",
    ),
    **dict.fromkeys(("general_settings.custom_auth", "general_settings.enable_jwt_auth"), _KEYS),
    "general_settings.alerting": "set budget.webhook, and alert by deploy/prometheus/rules",
    "general_settings.alerting_threshold": "alert by deploy/prometheus/rules",
    **dict.fromkeys(
        (f"{at}.{name}" for at in ("router_settings", "litellm_settings") for name in ("redis_host", "redis_url")),
        "set REDIS_URL",
    ),
    **dict.fromkeys(
        (f"router_settings.{name}" for name in ("redis_port", "redis_password")), "part of REDIS_URL, which is secret"
    ),
    "router_settings.enable_pre_call_checks": "always: a model is only asked for what fits its window",
    "router_settings.optional_pre_call_checks": "always: a model is only asked for what fits its window",
    "router_settings.provider_budget_config": "budgets are per tenant, key, agent or session, not per provider",
    "router_settings.retry_policy": "what is worth another try is decided by whose fault it was",
    "router_settings.allowed_fails_policy": "what opens a breaker is decided by whose fault it was",
    **dict.fromkeys(
        ("litellm_settings.cache", "litellm_settings.cache_params"), "answers of models are not cached in this version"
    ),
    **dict.fromkeys(
        (
            f"litellm_settings.{name}"
            for name in ("callbacks", "success_callback", "failure_callback", "service_callback")
        ),
        _WATCH,
    ),
    **dict.fromkeys(("litellm_settings.set_verbose", "litellm_settings.json_logs"), "TIERWAY_LOG_LEVEL, _LOG_FORMAT"),
    "litellm_settings.drop_params": PARAMS["drop_params"],
    "litellm_settings.content_policy_fallbacks": "a refusal is an answer, and no reason to ask another model",
    **dict.fromkeys(
        (
            f"litellm_settings.{name}"
            for name in (
                *("default_internal_user_params", "default_key_generate_params", "upperbound_key_generate_params"),
                *("max_internal_user_budget", "internal_user_budget_duration", "default_team_settings"),
            )
        ),
        _KEYS,
    ),
    "environment_variables": "secrets stay out of the file: set these variables where the gateway starts",
    "include": "only one file is read: put what it includes into it",
    "guardrails": "content is not filtered here",
    "mcp_servers": "tools stay with the client",
}
