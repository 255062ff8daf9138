"""Arguments: the body of a request as what litellm is called with.

Only the parameters of OpenAI's API become arguments. litellm takes its own by the same door (api_base, mock_response, callbacks,
a path to credentials, …), so what else a client sent goes into the body alone, and only to a provider that speaks OpenAI's dialect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CHAT = _words(
    "messages functions function_call temperature top_p n stream stop max_tokens max_completion_tokens modalities prediction audio "
    "presence_penalty frequency_penalty logit_bias user response_format seed tools tool_choice parallel_tool_calls logprobs "
    "top_logprobs reasoning_effort verbosity safety_identifier service_tier store prompt_cache_key thinking web_search_options"
)
EMBEDDING = _words("input dimensions encoding_format user")
KNOWN = {"/chat/completions": CHAT, "/embeddings": EMBEDDING}  # by path; no other is served
# Left out where a provider has nothing like it: no answer is wrong without it. Any other is refused by name.
HINTS = _words("user seed store service_tier prompt_cache_key safety_identifier verbosity")
# The same for what asks for what happens anyway.
NEUTRAL: dict[str, Any] = {
    "n": 1,
    "logprobs": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "parallel_tool_calls": True,
}
# Whose credentials are no single key: AWS's and Google's own chains find them. All others get the key of experts.yaml or none.
CLOUDS = _words("bedrock sagemaker sagemaker_chat vertex_ai vertex_ai_beta")
NO_KEY = "none"  # without a key litellm would look for one in the environment
OURS = ("model", "stream_options")  # set here, whatever the client said


@dataclass(frozen=True)
class Provider:
    """`openai`: it speaks OpenAI's dialect; `knows`: the parameters of chat that it has."""

    name: str
    openai: bool
    knows: frozenset[str]


def arguments_for(
    path: str, body: Mapping[str, Any], provider: Provider, model: str, base_url: str | None, api_key: str | None
) -> dict[str, Any]:
    """What litellm is called with for a request at `path`, one of KNOWN."""
    arguments = {name: value for name, value in body.items() if name in KNOWN[path] and value is not None}
    if path == "/chat/completions":
        arguments = {n: v for n, v in arguments.items() if n in provider.knows or not _needless(n, v)}
    if body.get("stream"):
        arguments["stream_options"] = {"include_usage": True}
    others = {name: value for name, value in body.items() if name not in KNOWN[path] and name not in OURS}
    if others and provider.openai:
        arguments["extra_body"] = others
    arguments["model"] = model
    if base_url is not None:
        arguments["api_base"] = base_url
    if api_key is not None or provider.name not in CLOUDS:
        arguments["api_key"] = api_key or NO_KEY
    return arguments


def _needless(name: str, value: Any) -> bool:
    return name in HINTS or (name in NEUTRAL and value == NEUTRAL[name])
