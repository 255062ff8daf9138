"""Expert: one servable model, as an entry of experts.yaml says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from router.prices import ASSUMED_TOKENS_PER_SECOND, PER_MILLION, AnyPrice, Energy, GpuPrice, Price
from router.upstream import Part, Upstream
from router.values import Language, Name, Seconds, about

ENGINE_CAPABILITIES = frozenset({"logprobs", "n"})  # of every vLLM and llama.cpp, and so not to be declared
LITELLM_ENDPOINTS = frozenset({"chat", "embeddings"})  # what litellm puts into every provider's words without loss
LISTED_QUALITY = 0.9  # of an expert for a domain that it names without a figure


def _qualities(value: Any) -> Any:
    if isinstance(value, list):
        return {str(domain): LISTED_QUALITY for domain in value}
    return value


def _hedge(value: Any) -> Any:
    """Of a union Pydantic would tell what is wrong with a value as each of its kinds: here it is one."""
    if value is None or value == "p95":
        return value
    try:
        return _SECONDS.validate_python(value)
    except ValidationError:
        raise ValueError("expected p95, or a duration such as 500ms or 2s") from None


_SECONDS = TypeAdapter(Seconds)
Capability = Literal["tools", "json_schema", "vision", "audio", "logprobs", "n", "state"]
Endpoint = Literal["chat", "completions", "embeddings", "responses", "messages"]
CAPABILITIES: tuple[str, ...] = get_args(Capability)
ENDPOINTS: tuple[str, ...] = get_args(Endpoint)
Lack = Literal[Capability, "max_completion_tokens", "developer"]
Quality = Annotated[float, Field(ge=0, le=1)]


class Timeouts(Part):
    """Seconds. `first_byte` and `idle` bound a stream; an answer in one piece is bound by `total` alone."""

    connect: Annotated[Seconds, about("How long connecting to the server may take.", "2s", "500ms")] = 2.0
    first_byte: Annotated[Seconds, about("How long a stream may take until its first byte.", "60s")] = 60.0
    idle: Annotated[Seconds, about("How long a stream may be silent between two pieces.", "30s")] = 30.0
    total: Annotated[Seconds, about("How long a whole answer may take.", "10m", "1h")] = 600.0


class Queue(Part):
    """Requests that wait while every replica has as many as `max_in_flight` allows: at most `length`, `wait` seconds each."""

    length: Annotated[int, Field(ge=0), about("How many requests may wait at once; the next one is refused.", 100)] = (
        100
    )
    wait: Annotated[Seconds, about("How long each may wait, before it goes to a fallback.", "10s")] = 10.0


class Defaults(Part):
    """Used where the request says nothing."""

    system: Annotated[str | None, about("A system prompt.", "You are a careful programmer.")] = None
    temperature: Annotated[
        Annotated[float, Field(ge=0, le=2)] | None, about("How much chance there is in an answer.", 0.2)
    ] = None
    top_p: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None, about("The share of likely tokens that it is drawn from.", 0.95)
    ] = None
    max_tokens: Annotated[Annotated[int, Field(gt=0)] | None, about("How long an answer may be, in tokens.", 512)] = (
        None
    )


class Expert(Part):
    """One servable model. `domains` maps a domain to the quality of its answers there, 0 to 1.

    Workers that are launched sleep when they had nothing to do for `sleep_after`. A request for an expert that sleeps waits
    for it where it is expected to be awake within `wake_within`; else a fallback that is awake answers, while it wakes.
    """

    model: Annotated[
        Name,
        about("What its server calls the model, usually its name on the hub.", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
    ]
    domains: Annotated[
        dict[str, Quality],
        BeforeValidator(_qualities),
        Field(min_length=1),
        about(
            f"How good its answers are in each domain, 0 to 1; a plain list means {LISTED_QUALITY} for each.",
            {"code": 0.9, "math": 0.5},
            ["general"],
        ),
    ]
    upstream: Annotated[Upstream, about("Where it answers.", {"vllm": ["http://10.0.0.5:8000/v1"]})]
    timeouts: Annotated[Timeouts, about("How long is waited for it.", {"first_byte": "60s", "total": "10m"})] = (
        Timeouts()
    )
    max_in_flight: Annotated[
        Annotated[int, Field(gt=0)] | None,
        about("How many requests each replica is given at once; those beyond it wait in the queue.", 64),
    ] = None
    queue: Annotated[
        Queue, about("Who waits while every replica has as much as it may have.", {"length": 200, "wait": "60s"})
    ] = Queue()
    affinity: Annotated[
        Literal["prefix", "session", "none"],
        about(
            "What brings a request back to the replica that has its beginning in its cache: what it begins with, the session that "
            "it names, or nothing.",
            "prefix",
        ),
    ] = "prefix"
    hedge: Annotated[
        Literal["p95"] | Seconds | None,
        BeforeValidator(_hedge),
        about(
            "When a second replica is asked as well: after so long without a first token, or after its own 95th percentile.",
            "p95",
            "2s",
        ),
    ] = None
    heartbeat: Annotated[
        Seconds | None,
        about(
            "After how long a stream that is still silent gets a comment, which keeps proxies from ending it.", "15s"
        ),
    ] = None
    sleep_after: Annotated[
        Seconds | None,
        about("After how long without work the workers that it launches sleep; never, where it is not said.", "10m"),
    ] = None
    wake_within: Annotated[
        Seconds, about("How long a request waits for it to wake up, where a fallback is awake.", "30s")
    ] = 30.0
    endpoints: Annotated[
        frozenset[Endpoint] | None,
        about("The endpoints that it serves; its server is asked where this is not said.", ["chat", "completions"]),
    ] = None
    defaults: Annotated[
        Defaults,
        about(
            "What counts where the request says nothing.",
            {"system": "You are a careful programmer.", "temperature": 0.2},
        ),
    ] = Defaults()
    price: Annotated[
        AnyPrice | None,
        about(
            "What it costs: USD per million tokens, or for an hour of a GPU.",
            {"input": 0.15, "output": 0.60},
            {"gpu_hour": 2.5},
        ),
    ] = None
    energy: Annotated[Energy | None, about("What each of its replicas draws.", {"watts": 700, "idle_watts": 90})] = None
    context_window: Annotated[
        Annotated[int, Field(gt=0)] | None,
        about("How many tokens it reads and writes together; longer prompts go to others.", 32768),
    ] = None
    capabilities: Annotated[
        frozenset[Capability],
        about(
            "What it can do beside what its engine always can. state: it keeps responses, for previous_response_id.",
            ["tools", "json_schema"],
        ),
    ] = frozenset()
    lacks: Annotated[
        frozenset[Lack],
        about(
            "What it cannot do though its engine could; requests are put into other words for max_completion_tokens and the role "
            "developer.",
            ["n"],
        ),
    ] = frozenset()
    languages: Annotated[
        frozenset[Language],
        about(
            "Makes it a specialist of these languages, two letters each: it is preferred for text in them, and text in others goes "
            "to others.",
            ["ja"],
        ),
    ] = frozenset()
    fallbacks: Annotated[
        tuple[str, ...], about("Who answers in its place when it cannot, in this order.", ["general"])
    ] = ()

    @model_validator(mode="after")
    def _only_what_litellm_carries(self) -> Expert:
        if self.upstream.litellm and self.endpoints and not self.endpoints <= LITELLM_ENDPOINTS:
            raise ValueError("endpoints of litellm's experts are chat and embeddings; messages are translated to chat")
        return self

    @model_validator(mode="after")
    def _only_workers_sleep(self) -> Expert:
        if self.sleep_after is not None and self.upstream.launch is None:
            raise ValueError("sleep_after is for workers that the gateway launches: upstream: {launch: …}")
        return self

    @property
    def upstream_model(self) -> str:
        """What its server calls it."""
        return self.upstream.adapter.name if self.upstream.adapter else self.model

    @property
    def able(self) -> frozenset[str]:
        """What it can do: what is declared, and what its engine always can."""
        always = frozenset() if self.upstream.litellm or self.upstream.custom else ENGINE_CAPABILITIES
        return (self.capabilities | always) - self.lacks

    @property
    def token_price(self) -> Price | None:
        """What its tokens cost; None where that is not known, or it is paid by the hour."""
        return self.price if isinstance(self.price, Price) else None

    @property
    def gpu_price(self) -> GpuPrice | None:
        return self.price if isinstance(self.price, GpuPrice) else None

    @property
    def replica_hour(self) -> float:
        """USD for an hour of each of its replicas; 0 where it is not paid by the hour."""
        return self.price.gpu_hour * self._gpus(self.price) if isinstance(self.price, GpuPrice) else 0.0

    def _gpus(self, price: GpuPrice) -> float:
        """Of each replica; a part of one where more replicas are launched than there are GPUs for them."""
        launch = self.upstream.launch
        return price.gpus or (len(launch.gpus) / launch.replicas if launch and launch.gpus else 1)

    @property
    def blended(self) -> float | None:
        """One figure to compare experts by, USD per million tokens; None where no price is known. One that is paid by the hour
        is taken to answer ASSUMED_TOKENS_PER_SECOND."""
        if isinstance(self.price, GpuPrice):
            return self.replica_hour / 3600 / ASSUMED_TOKENS_PER_SECOND * PER_MILLION
        return self.price.blended if self.price else None

    @property
    def stand_in(self) -> bool:
        """Whether the small embedded model answers in place of a real specialist."""
        return self.upstream.embedded is not None
