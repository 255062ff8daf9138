"""Report: an experts file looked at whole: what is wrong in it, what will bite, and the lines to show for it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.checking import choosing, examples, fallbacks, prices, upstreams, windows
from gateway.checking.findings import Finding
from gateway.checking.rule import Rule
from router.errors import ConfigError, Problem
from router.experts import ExpertsFile, parse_sources
from router.sources import read_sources
from router.yamlfile import YamlFile

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
CODES = [code for codes in RULES.values() for code in codes]


@dataclass(frozen=True)
class Report:
    """`experts` is None where the file is wrong. `findings` are in the order of the files and their lines; `lines` has those of
    each file by the name that it has in the findings."""

    findings: Sequence[Finding]
    lines: Mapping[str, Sequence[str]]
    path: Path
    experts: ExpertsFile | None = None

    def mismatch(self, expert: str, words: str) -> Finding:
        """What is wrong at an upstream, at the place of the file that says where the expert answers."""
        problem = _places(self.experts).problem(("experts", expert, "upstream"), words)
        return Finding("error", replace(problem, file=_shown(self.path, problem.file)), "live")

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "warning"]


def examined(path: Path, ignored: Collection[str] = ()) -> Report:
    """The file at `path`, and what it extends; warnings whose code is `ignored` are left out."""
    try:
        sources = read_sources(path)
    except ConfigError as error:
        return Report(_findings(error.problems, path, [path.name]), {}, path)
    files = list(sources.texts)
    lines = {_shown(path, name): text.splitlines() for name, text in sources.texts.items()}
    try:
        experts = parse_sources(sources)
    except ConfigError as error:
        return Report(_findings(error.problems, path, files), lines, path)
    warned = [Finding("warning", problem, code) for code, problem in _warnings(experts) if code not in ignored]
    return Report(_placed(warned, path, files), lines, path, experts)


def _warnings(experts: ExpertsFile) -> list[tuple[str, Problem]]:
    places = _places(experts)
    said = (warned for rule in RULES for warned in rule(experts))
    return [(code, places.problem(place, words, at_key)) for code, place, words, at_key in said]


def _places(experts: ExpertsFile | None) -> YamlFile:
    """Where everything stands in what they were read from. Raises ValueError where that is not known."""
    if experts is None or experts.sources is None:
        raise ValueError("these experts were not read from a file")
    return YamlFile.parse(experts.sources.text, experts.sources.name)


def _findings(problems: Sequence[Problem], path: Path, files: Sequence[str]) -> list[Finding]:
    return _placed([Finding("error", problem) for problem in problems], path, files)


def _placed(findings: Sequence[Finding], path: Path, files: Sequence[str]) -> list[Finding]:
    """In the order of `files` and their lines, each file by its path as one would name it from here."""

    def order(finding: Finding) -> tuple[int, int, int]:
        problem = finding.problem
        return files.index(problem.file) if problem.file in files else len(files), problem.line, problem.column

    return [
        replace(finding, problem=replace(finding.problem, file=_shown(path, finding.problem.file)))
        for finding in sorted(findings, key=order)
    ]


def _shown(path: Path, name: str) -> str:
    return os.path.normpath(path.parent / name)
