"""experts.yaml: the experts, the domains and how to choose. Read whole, every error at once, each with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from router.crosschecks import cross_checks
from router.errors import ConfigError, Problem
from router.expert import CAPABILITIES as CAPABILITIES
from router.expert import ENDPOINTS as ENDPOINTS
from router.expert import ENGINE_CAPABILITIES as ENGINE_CAPABILITIES
from router.expert import LISTED_QUALITY as LISTED_QUALITY
from router.expert import LITELLM_ENDPOINTS as LITELLM_ENDPOINTS
from router.expert import Capability as Capability
from router.expert import Defaults as Defaults
from router.expert import Endpoint as Endpoint
from router.expert import Expert as Expert
from router.expert import Queue as Queue
from router.expert import Timeouts as Timeouts
from router.layers import Layers
from router.laying import EXTENDS, Laid
from router.prices import DEAREST, Baseline
from router.sections import Domain as Domain
from router.sections import RouterOptions as RouterOptions
from router.sources import Sources, laid, read_and_laid
from router.upstream import Part
from router.validation import nearest, validated
from router.values import about
from router.vocabulary import ADDED_PREFIX as ADDED_PREFIX
from router.vocabulary import BUILT_IN_DOMAINS as BUILT_IN_DOMAINS
from router.vocabulary import LEAST_EXAMPLES as LEAST_EXAMPLES
from router.vocabulary import PARTS as PARTS
from router.vocabulary import POLICY_GROUP as POLICY_GROUP
from router.vocabulary import RESERVED_IDS as RESERVED_IDS
from router.vocabulary import VIRTUAL_MODELS as VIRTUAL_MODELS

NOT_WRITTEN = frozenset({"digest", "sources"})  # fields of ExpertsFile that are no keys of the file
OTHER_QUALITY = 0.4  # for a domain that it does not name
FALLBACK_OTHER_QUALITY = 0.6  # the same for the fallback expert


class ExpertsFile(Part):
    """A whole experts.yaml, checked. `sources` is what it was read from, `digest` names their content."""

    version: Annotated[Literal[1], about("The version of this format.", 1)]
    experts: Annotated[
        dict[str, Expert],
        about(
            "The experts, by the names that clients and logs know them by.",
            {
                "coder": {
                    "model": "Qwen/Qwen3-Coder-30B-A3B-Instruct",
                    "domains": ["code"],
                    "upstream": {"vllm": "http://10.0.0.5:8000/v1"},
                }
            },
        ),
    ]
    router: Annotated[
        RouterOptions,
        about("How prompts are classified, and who answers when that is not sure.", {"fallback": "general"}),
    ] = RouterOptions()
    baseline: Annotated[
        str | Baseline | None,
        about(
            "What savings are counted against: a model by its name, or figures.",
            "gpt-4o",
            {"name": "ours", "input": 2.5, "output": 10},
        ),
    ] = None
    aliases: Annotated[
        dict[str, str],
        about(
            "Names that applications have hard-coded, and the expert or policy that each means.",
            {"gpt-4o-mini": "auto"},
        ),
    ] = Field(default={})
    domains: Annotated[
        dict[str, Domain],
        about(
            "Domains of one's own, and more examples for the built-in ones code, math, bio and general.",
            {"legal": {"description": "statutes, contracts, case law", "examples": "file:legal.txt"}},
        ),
    ] = Field(default={})
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
    told = [*found.unread, *found.problems, *(p for p in problems if not _follows(p, found))]
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
