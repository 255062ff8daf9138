"""What OpenTelemetry's semantic conventions call things. Their GenAI part is not stable yet: a test compares the names with the
installed package, which serving does without."""

from __future__ import annotations

from router.experts import Expert

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
REQUEST_STREAM = "gen_ai.request.stream"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - no secret
ERROR_TYPE = "error.type"
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SERVICE_INSTANCE = "service.instance.id"

TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - no secret
OPERATION_DURATION = "gen_ai.client.operation.duration"
TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"  # noqa: S105 - no secret
TIME_PER_OUTPUT_TOKEN = "gen_ai.server.time_per_output_token"  # noqa: S105 - no secret

# The conversations of Anthropic and of OpenAI's responses are chats too.
OPERATIONS = {
    "chat.completions": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "messages.count_tokens": "count_tokens",
}
# Where the conventions know a provider by another name than litellm.
PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
VLLM, EMBEDDED = "vllm", "llama_cpp"  # of which the conventions know nothing


def route(endpoint: str) -> str:
    """The path of an endpoint."""
    return "/v1/" + endpoint.replace(".", "/")


def provider(expert: Expert) -> str:
    """Who runs the model, as the expert's upstream says."""
    upstream = expert.upstream
    if upstream.litellm is not None:
        name = upstream.litellm.partition("/")[0]
        return PROVIDERS.get(name, name)
    if upstream.custom is not None:
        return upstream.custom
    return EMBEDDED if upstream.embedded is not None else VLLM
