"""Report: an experts file looked at whole: what is wrong in it, what will bite, and the lines to show for it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.checking import choosing, examples, fallbacks, prices, upstreams, windows
from gateway.checking.findings import Finding
from gateway.checking.rule import Rule
from router.errors import ConfigError
from router.experts import ExpertsFile, load_experts
from router.layers import Layers
from router.sources import laid, read_sources

# By the codes that it says, so that all of them are known without a file.
RULES: Mapping[Rule, Sequence[str]] = {
    fallbacks.no_fallback: ["no-fallback"],
    fallbacks.fallback_circle: ["fallback-circle"],
    fallbacks.fallback_weaker: ["fallback-weaker"],
    fallbacks.fallback_beside_it: ["fallback-beside-it"],
    prices.prices: ["unpriced", "price-without-effect", "baseline-unknown"],
    windows.context_too_large: ["context-too-large"],
    choosing.equal_experts: ["equal-experts"],
    choosing.never_chosen: ["never-chosen"],
    choosing.floor_too_high: ["floor-too-high"],
    choosing.alias_hides: ["alias-hides"],
    choosing.stand_in: ["stand-in"],
    upstreams.addresses: ["address-without-v1", "replica-twice", "key-in-the-clear"],
    upstreams.without_effect: ["without-effect"],
    upstreams.workers: ["tools-without-parser", "gpu-crowded"],
    examples.few_examples: ["few-examples"],
    examples.example_twice: ["example-twice"],
    examples.confusable_examples: ["confusable-examples"],
}
_LINE_END = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")  # as YAML counts lines
CODES = [code for codes in RULES.values() for code in codes]


@dataclass(frozen=True)
class Report:
    """`experts` and the `layers` that they were read from are None where the file is wrong. `findings` are in the order of the
    files and their lines; `lines` has those of each file by the name that it has in the findings."""

    path: Path
    findings: Sequence[Finding]
    lines: Mapping[str, Sequence[str]]
    experts: ExpertsFile | None = None
    layers: Layers | None = None

    def mismatch(self, expert: str, words: str) -> Finding:
        """What is wrong at an upstream, at the place of the file that says where the expert answers."""
        if self.layers is None:
            raise ValueError("a file that is wrong has no upstreams")
        problem = self.layers.problem(("experts", expert, "upstream"), words)
        return Finding("error", replace(problem, file=shown(self.path, problem.file)), "live")

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "warning"]


def examined(path: Path, ignored: Collection[str] = ()) -> Report:
    """The file at `path`, and what it extends; warnings whose code is `ignored` are left out."""
    try:
        experts = load_experts(path)
    except ConfigError as error:
        problems = [Finding("error", problem) for problem in error.problems]
        return Report(path, _named(problems, path), _lines(path, error.texts))
    sources = experts.sources or read_sources(path)
    layers = laid(sources).layers
    warned = [finding for finding in _warnings(experts, layers) if finding.code not in ignored]
    files = list(sources.texts)
    warned.sort(key=lambda f: (files.index(f.problem.file), f.problem.line, f.problem.column))
    return Report(path, _named(warned, path), _lines(path, sources.texts), experts, layers)


def _warnings(experts: ExpertsFile, layers: Layers) -> Iterator[Finding]:
    for rule in RULES:
        for code, place, words, at_key in rule(experts):
            yield Finding("warning", layers.problem(place, words, at_key), code)


def _named(findings: Sequence[Finding], path: Path) -> list[Finding]:
    """Each file by its path as one would name it from here."""
    return [replace(f, problem=replace(f.problem, file=shown(path, f.problem.file))) for f in findings]


def _lines(path: Path, texts: Mapping[str, str]) -> dict[str, list[str]]:
    return {shown(path, name): _LINE_END.split(text) for name, text in texts.items()}


def shown(path: Path, name: str) -> str:
    """The path from here of a file that the one at `path` knows by that name."""
    return os.path.normpath(path.parent / name)
