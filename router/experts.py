"""experts.yaml: the experts, the domains and how to choose. Read whole, every error at once, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from router.errors import ConfigError, Problem
from router.extensions import added
from router.prices import ASSUMED_TOKENS_PER_SECOND, DEAREST, PER_MILLION, AnyPrice, Baseline, Energy, GpuPrice, Price
from router.sources import Sources, read_sources
from router.upstream import UPSTREAM_GROUP, Part, Upstream
from router.validation import nearest, validated
from router.values import Language, Name, Seconds, Usd
from router.yamlfile import YamlFile

VIRTUAL_MODELS = ("auto", "auto:cheap", "auto:best")
POLICY_GROUP = "moe_gateway.policies"  # what packages add under it are virtual models too
ADDED_PREFIX = "auto:"
# What the router is made of: the group under which packages add such parts, and the names that need no package.
PARTS = {
    "encoder": ("moe_gateway.encoders", ("moe-minilm", "moe-static", "all-MiniLM-L6-v2")),
    "head": ("moe_gateway.heads", ("linear", "kernel")),
    "calibrator": ("moe_gateway.calibrators", ("temperature", "isotonic")),
}
BUILT_IN_DOMAINS = ("code", "math", "bio", "general")
ENGINE_CAPABILITIES = frozenset({"logprobs", "n"})  # of every vLLM and llama.cpp, and so not to be declared
LITELLM_ENDPOINTS = frozenset({"chat", "embeddings"})  # what litellm puts into every provider's words without loss
LISTED_QUALITY = 0.9  # of an expert for a domain that it names without a figure
OTHER_QUALITY = 0.4  # for a domain that it does not name
FALLBACK_OTHER_QUALITY = 0.6  # the same for the fallback expert
LEAST_EXAMPLES = 5
RESERVED_IDS = ("none",)  # the label of metrics where no expert is meant


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
    """Read and check experts.yaml, and what it extends. Raises ConfigError with every problem found, an absent file included."""
    return parse_sources(read_sources(path))


def parse_experts(text: str, name: str = "experts.yaml") -> ExpertsFile:
    """Check the text of an experts.yaml that stands alone; `name` stands in the errors. Raises ConfigError."""
    return parse_sources(Sources(Path(name), {name: text}))


def parse_sources(sources: Sources) -> ExpertsFile:
    """Check what was read. Raises ConfigError with every problem found."""
    file = YamlFile.parse(sources.text, sources.name)
    if not isinstance(file.data, dict):
        raise ConfigError([file.problem((), "expected keys such as version: 1 and experts:")])
    problems = file.duplicates()
    parts = _read_parts(file, problems)
    problems += _cross_check(file, parts)
    if problems:
        raise ConfigError(problems)
    return ExpertsFile.model_construct(**parts, digest=sources.digest, sources=sources)


def _read_parts(file: YamlFile, problems: list[Problem]) -> dict[str, Any]:
    """Each section by itself, so that a wrong expert hides no error in the others. Wrong parts are left out."""
    data: Mapping[str, Any] = file.data
    known = [field for field in ExpertsFile.model_fields if field not in ("digest", "sources")]
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


def _baseline(file: YamlFile, given: Any, problems: list[Problem]) -> str | Baseline | None:
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


def _cross_check(file: YamlFile, parts: Mapping[str, Any]) -> list[Problem]:
    ids, declared = list(_section(file, "experts")), list(_section(file, "domains"))
    return [
        *_check_names(file, ids, parts["aliases"]),
        *_check_references(file, ids),
        *_check_parts(file),
        *_check_domains(file, declared, parts),
    ]


def _section(file: YamlFile, name: str) -> dict[str, Any]:
    """The raw entries of a section: what is wrong inside one hides nothing of what it refers to."""
    entries = file.data.get(name)
    return entries if isinstance(entries, dict) else {}


def _named(entry: Any, key: str) -> list[str]:
    """The names in a list, or the keys of a mapping, at `key` of a raw entry."""
    names = entry.get(key) if isinstance(entry, dict) else None
    return [str(name) for name in names] if isinstance(names, list | dict) else []


def _check_names(file: YamlFile, ids: Sequence[str], aliases: Mapping[str, str]) -> Iterator[Problem]:
    for key in ids:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", key) or key in (*VIRTUAL_MODELS, *RESERVED_IDS):
            rule = "an expert's id is 1 to 64 letters, digits, '.', '_' or '-', and not auto or none"
            yield file.problem(("experts", key), rule, at_key=True)
    targets = [*ids, *VIRTUAL_MODELS]
    if any(name.startswith(ADDED_PREFIX) for name in (*aliases, *aliases.values())):  # else nobody looks for packages
        targets += [name for name in added(POLICY_GROUP, ADDED_PREFIX) if name not in VIRTUAL_MODELS]
    for alias, target in aliases.items():
        if alias in targets:
            yield file.problem(("aliases", alias), "is the name of an expert or virtual model already", at_key=True)
        if target not in targets:
            what = "policy" if target.startswith(ADDED_PREFIX) else "expert"
            yield file.problem(("aliases", alias), f"no {what} {target!r}{nearest(target, targets)}")


def _check_references(file: YamlFile, ids: Sequence[str]) -> Iterator[Problem]:
    for key, expert in _section(file, "experts").items():
        for i, fallback in enumerate(_named(expert, "fallbacks")):
            place = ("experts", key, "fallbacks", i)
            if fallback not in ids:
                yield file.problem(place, f"no expert {fallback!r}{nearest(fallback, ids)}")
            elif fallback == key:
                yield file.problem(place, "an expert cannot be its own fallback")
        yield from _check_worker(file, key, ids)
        yield from _check_custom(file, key)
    last = _section(file, "router").get("fallback")
    if isinstance(last, str) and last not in ids:
        yield file.problem(("router", "fallback"), f"no expert {last!r}{nearest(last, ids)}")


def _check_worker(file: YamlFile, key: str, ids: Sequence[str]) -> Iterator[Problem]:
    upstream = _section(file, "experts")[key]
    upstream = upstream.get("upstream") if isinstance(upstream, dict) else None
    worker = upstream.get("worker") if isinstance(upstream, dict) else None
    if not isinstance(worker, str):
        return
    other = _section(file, "experts").get(worker)
    launches = isinstance(other, dict) and isinstance(other.get("upstream"), dict) and "launch" in other["upstream"]
    if worker not in ids:
        yield file.problem(("experts", key, "upstream", "worker"), f"no expert {worker!r}{nearest(worker, ids)}")
    elif not launches:
        yield file.problem(("experts", key, "upstream", "worker"), f"{worker} launches no worker: it has no launch")


def _check_custom(file: YamlFile, key: str) -> Iterator[Problem]:
    upstream = _section(file, "experts")[key]
    upstream = upstream.get("upstream") if isinstance(upstream, dict) else None
    name = upstream.get("custom") if isinstance(upstream, dict) else None
    if isinstance(name, str) and name not in (names := [*added(UPSTREAM_GROUP)]):
        hint = nearest(name, names) if names else "; install the package that adds it"
        yield file.problem(("experts", key, "upstream", "custom"), f"no upstream {name!r} is installed{hint}")


def _check_parts(file: YamlFile) -> Iterator[Problem]:
    options = _section(file, "router")
    for key, part in (("encoder", "encoder"), ("static", "encoder"), ("head", "head"), ("calibrator", "calibrator")):
        name, (group, known) = options.get(key), PARTS[part]
        if not isinstance(name, str) or name in known or (key, name) == ("static", ""):
            continue
        if part == "encoder" and "/" in name:
            continue  # only the hub knows, or the folder
        names = [*known, *added(group)]
        if name not in names:
            yield file.problem(("router", key), f"no {part} {name!r}{nearest(name, names)}")


def _check_domains(file: YamlFile, declared: Sequence[str], parts: Mapping[str, Any]) -> Iterator[Problem]:
    known = [*BUILT_IN_DOMAINS, *(d for d in declared if d not in BUILT_IN_DOMAINS)]
    served = set()
    for key, expert in _section(file, "experts").items():
        for domain in _named(expert, "domains"):
            served.add(domain)
            if domain not in known:
                hint = nearest(domain, known)
                yield file.problem(("experts", key, "domains", domain), f"no domain {domain!r} is declared{hint}")
    for name in declared:
        if name not in served:
            yield file.problem(("domains", name), "no expert serves this domain", at_key=True)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name) or name in RESERVED_IDS:
            yield file.problem(("domains", name), "a domain's name is 1 to 32 of a-z, 0-9, '_' and '-'", at_key=True)
    for name, domain in parts["domains"].items():
        if name not in BUILT_IN_DOMAINS and len(domain.examples) < LEAST_EXAMPLES:
            message = f"a domain of one's own needs {LEAST_EXAMPLES} example prompts or more, better 10 to 50"
            yield file.problem(("domains", name), message, at_key=True)
