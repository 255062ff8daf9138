"""experts.yaml: the experts, the domains and how to choose. Read whole, every error at once, each with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from router.crosschecks import cross_checks
from router.errors import ConfigError, Problem
from router.layers import Layers
from router.laying import EXTENDS, Laid
from router.prices import ASSUMED_TOKENS_PER_SECOND, DEAREST, PER_MILLION, AnyPrice, Baseline, Energy, GpuPrice, Price
from router.sources import Sources, laid, read_and_laid
from router.upstream import Part, Upstream
from router.validation import nearest, validated
from router.values import Language, Name, Seconds, Usd
from router.vocabulary import ADDED_PREFIX as ADDED_PREFIX
from router.vocabulary import BUILT_IN_DOMAINS as BUILT_IN_DOMAINS
from router.vocabulary import LEAST_EXAMPLES as LEAST_EXAMPLES
from router.vocabulary import PARTS as PARTS
from router.vocabulary import POLICY_GROUP as POLICY_GROUP
from router.vocabulary import RESERVED_IDS as RESERVED_IDS
from router.vocabulary import VIRTUAL_MODELS as VIRTUAL_MODELS

NOT_WRITTEN = frozenset({"digest", "sources"})  # fields of ExpertsFile that are no keys of the file
ENGINE_CAPABILITIES = frozenset({"logprobs", "n"})  # of every vLLM and llama.cpp, and so not to be declared
LITELLM_ENDPOINTS = frozenset({"chat", "embeddings"})  # what litellm puts into every provider's words without loss
LISTED_QUALITY = 0.9  # of an expert for a domain that it names without a figure
OTHER_QUALITY = 0.4  # for a domain that it does not name
FALLBACK_OTHER_QUALITY = 0.6  # the same for the fallback expert


def _qualities(value: Any) -> Any:
    if isinstance(value, list):
        return {str(domain): LISTED_QUALITY for domain in value}
    return value


Capability = Literal["tools", "json_schema", "vision", "audio", "logprobs", "n", "state"]
Endpoint = Literal["chat", "completions", "embeddings", "responses", "messages"]
CAPABILITIES: tuple[str, ...] = get_args(Capability)
ENDPOINTS: tuple[str, ...] = get_args(Endpoint)
Quality = Annotated[float, Field(ge=0, le=1)]


class Domain(Part):
    """What a prompt may be about. A domain of one's own needs examples; those of a built-in one join its corpus."""

    description: str = ""
    examples: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _no_empty_example(self) -> Domain:
        if any(not example.strip() for example in self.examples):
            raise ValueError("an example is empty")
        return self


class Timeouts(Part):
    """Seconds. `first_byte` and `idle` bound a stream; an answer in one piece is bound by `total` alone."""

    connect: Seconds = 2.0
    first_byte: Seconds = 60.0
    idle: Seconds = 30.0
    total: Seconds = 600.0


class Queue(Part):
    """Requests that wait while every replica has as many as `max_in_flight` allows: at most `length`, `wait` seconds each."""

    length: Annotated[int, Field(ge=0)] = 100
    wait: Seconds = 10.0


class Defaults(Part):
    """Used where the request says nothing."""

    system: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None


class Expert(Part):
    """One servable model. `domains` maps a domain to the quality of its answers there, 0 to 1.

    `languages` makes it a specialist: for text in one of them it counts as better than its domains say (see roster.py),
    and text in other languages goes to others. An expert without them takes every language.

    `max_in_flight` bounds the requests of each replica; those beyond it wait in the `queue`. `affinity` says what brings a
    request back to the replica that has its beginning in its cache. `hedge` is when a second replica is asked as well:
    seconds without a first token, or p95 for its own 95th percentile. A `heartbeat` is the seconds after which a stream
    that is still silent gets a comment. `endpoints` are asked of the server where they are not declared. `capabilities`
    are what it can do beside what its engine always can (`state`: it keeps responses, for previous_response_id), `lacks`
    what it cannot though its engine could; of a server that knows max_tokens alone, or a model whose template has no role
    developer, those are put into the words that it knows.

    Workers that are launched sleep when they had nothing to do for `sleep_after`. A request for an expert that sleeps waits
    for it where it is expected to be awake within `wake_within`; else a fallback that is awake answers, while it wakes.
    """

    model: Name
    domains: Annotated[dict[str, Quality], BeforeValidator(_qualities), Field(min_length=1)]
    upstream: Upstream
    timeouts: Timeouts = Timeouts()
    max_in_flight: Annotated[int, Field(gt=0)] | None = None
    queue: Queue = Queue()
    affinity: Literal["prefix", "session", "none"] = "prefix"
    hedge: Literal["p95"] | Seconds | None = None
    heartbeat: Seconds | None = None
    sleep_after: Seconds | None = None
    wake_within: Seconds = 30.0
    endpoints: frozenset[Endpoint] | None = None
    defaults: Defaults = Defaults()
    price: AnyPrice | None = None
    energy: Energy | None = None
    context_window: Annotated[int, Field(gt=0)] | None = None
    capabilities: frozenset[Capability] = frozenset()
    lacks: frozenset[Capability | Literal["max_completion_tokens", "developer"]] = frozenset()
    languages: frozenset[Language] = frozenset()
    fallbacks: tuple[str, ...] = ()

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


class RouterOptions(Part):
    confidence_floor: Annotated[float, Field(ge=0, le=1)] = 0.55
    fallback: str | None = None
    # A name that PARTS knows or a package adds; with a / in it, a sentence-transformers model of the hub or of a folder.
    encoder: str = "moe-minilm"
    # The encoder of the cheap stage before it, empty for none. Were it a transformer, every decision would wait for a thread.
    static: str = "moe-static"
    head: str = "linear"
    calibrator: str = "temperature"
    cpu_hour: Usd = 0.04  # USD for an hour of one core, which is what classifying costs
    # The macro-F1 over old domains that a router may lose to the one before it, when it is trained anew while that serves.
    retrain_margin: Annotated[float, Field(ge=0, le=1)] = 0.02


class ExpertsFile(Part):
    """A whole experts.yaml, checked. `sources` is what it was read from, `digest` names their content."""

    version: Literal[1]
    experts: dict[str, Expert]
    router: RouterOptions = RouterOptions()
    baseline: str | Baseline | None = None
    aliases: dict[str, str] = Field(default={})
    domains: dict[str, Domain] = Field(default={})
    digest: str = ""
    sources: Sources | None = Field(default=None, repr=False, exclude=True)

    @property
    def fallback(self) -> str:
        """The expert that answers when the router is unsure: the one named, else the first that serves general, else the first."""
        general = (e for e, expert in self.experts.items() if "general" in expert.domains)
        return self.router.fallback or next(general, next(iter(self.experts)))

    @property
    def baseline_name(self) -> str | None:
        return self.baseline.name if isinstance(self.baseline, Baseline) else self.baseline

    @property
    def domain_names(self) -> tuple[str, ...]:
        """The labels of the classifier: the built-in ones, whoever serves them, then those that the file adds."""
        named = {*self.domains, *(d for expert in self.experts.values() for d in expert.domains)}
        return (*BUILT_IN_DOMAINS, *sorted(named.difference(BUILT_IN_DOMAINS)))

    def quality(self, expert: str, domain: str) -> float:
        """The quality of `expert` in `domain`, 0 to 1."""
        other = FALLBACK_OTHER_QUALITY if expert == self.fallback else OTHER_QUALITY
        return self.experts[expert].domains.get(domain, other)


def load_experts(path: Path) -> ExpertsFile:
    """Read and check experts.yaml and all that it extends. Raises ConfigError with every problem found."""
    sources, found = read_and_laid(path)
    return _checked(sources, found)


def parse_experts(text: str, name: str = "experts.yaml") -> ExpertsFile:
    """Check the text of an experts.yaml that stands alone; `name` stands in the errors. Raises ConfigError."""
    return parse_sources(Sources(Path(name), {Path(name).name: text}))


def parse_sources(sources: Sources) -> ExpertsFile:
    """Check what was read. Raises ConfigError with every problem found."""
    return _checked(sources, laid(sources))


def _checked(sources: Sources, found: Laid) -> ExpertsFile:
    layers = found.layers
    problems = layers.duplicates()
    parts = _read_parts(layers, problems)
    problems += cross_checks(
        layers, parts["aliases"], {name: domain.examples for name, domain in parts["domains"].items()}
    )
    told = [p for p in problems if not _follows(p, found)] + found.problems
    if told:
        raise ConfigError(told, sources.texts)
    return ExpertsFile.model_construct(**parts, digest=sources.digest, sources=sources)


def _follows(problem: Problem, found: Laid) -> bool:
    """Whether it is but what a reference that leads nowhere does to its value."""
    keys = [".".join(str(step) for step in path) for path in found.failed]
    return any(problem.key == key or problem.key.startswith(f"{key}.") for key in keys)


def _read_parts(file: Layers, problems: list[Problem]) -> dict[str, Any]:
    """Each section by itself, so that a wrong expert hides no error in the others. Wrong parts are left out."""
    data: Mapping[str, Any] = file.data
    known = [*(field for field in ExpertsFile.model_fields if field not in NOT_WRITTEN), EXTENDS]
    unknown = [key for key in data if key not in known]
    problems += [file.problem((key,), f"unknown key{nearest(str(key), known)}", at_key=True) for key in unknown]
    if data.get("version") != 1 or isinstance(data.get("version"), bool):
        problems.append(file.problem(("version",), "must be there and be 1: version: 1"))
    parts: dict[str, Any] = {"version": 1, "experts": {}, "domains": {}}
    for section, model in (("experts", Expert), ("domains", Domain)):
        entries = data.get(section)
        if entries is None and section == "domains":
            continue
        if not isinstance(entries, dict) or not entries:
            problems.append(file.problem((section,), f"expected one entry or more under {section}:"))
            continue
        for key, value in entries.items():
            part = validated(file, model, {} if value is None else value, (section, key), problems)
            if part is not None:
                parts[section][key] = part
    given = data.get("router")
    options = validated(file, RouterOptions, {} if given is None else given, ("router",), problems)
    parts["router"] = options or RouterOptions()
    parts["baseline"] = _baseline(file, data.get("baseline"), problems)
    aliases = data.get("aliases")
    if not isinstance(aliases, dict | None):
        problems.append(file.problem(("aliases",), "expected names and what they stand for: gpt-4o-mini: auto"))
    parts["aliases"] = {a: str(target) for a, target in aliases.items()} if isinstance(aliases, dict) else {}
    return parts


def _baseline(file: Layers, given: Any, problems: list[Problem]) -> str | Baseline | None:
    baseline: str | Baseline | None = None
    if isinstance(given, Mapping):
        baseline = validated(file, Baseline, given, ("baseline",), problems)
    elif isinstance(given, str):
        baseline = given
    elif given is not None:
        wanted = "the name of a model, such as gpt-4o, or figures: {name: ours, input: 2.5, output: 10}"
        problems.append(file.problem(("baseline",), f"expected {wanted}"))
    if DEAREST in (baseline, getattr(baseline, "name", None)):
        message = f"savings against {DEAREST}, always the dearest expert, are counted anyway; name another"
        problems.append(file.problem(("baseline",), message))
    return baseline
