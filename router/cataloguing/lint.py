"""Lint: what is wrong with the catalogue beyond its form: facts without a source, and figures that cannot be."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from router.cataloguing.architectures import ARCHITECTURES
from router.cataloguing.catalog import Catalog, parse_catalog
from router.cataloguing.entry import Model
from router.cataloguing.words import BENCHMARKS, FAMILIES, LANGUAGES, NON_COMMERCIAL, PERMISSIVE
from router.errors import ConfigError, Problem
from router.upstream import OWN_FLAGS
from router.yamlfile import YamlFile

# Of dense models, total parameters over layers · hidden², which is 12 where the feed-forward part is four times as wide
# (https://arxiv.org/abs/2001.08361, table 1). Gemma's is eight times as wide and its vocabulary the largest.
LEAST_PER_LAYER, MOST_PER_LAYER = 5, 32
MOST_WORDS = 2 * 262_144
HEADS_OVER_HIDDEN = (0.5, 4.0)
FACTS = ("tuned_from", "released", "parameters", "architecture", "context", "licence", "languages", "serve")


@dataclass(frozen=True)
class Spot:
    """One entry, and how a problem in it is told."""

    file: YamlFile
    key: str
    model: Model

    def problem(self, *path: str | int, says: str) -> Problem:
        return self.file.problem(("models", self.key, *path), says)


def lint(path: Path) -> Catalog:
    """The catalogue at `path`. Raises ConfigError with every problem of form, else with every other one."""
    return lint_text(path.read_text("utf-8"), path.name)


def lint_text(text: str, name: str = "catalog.yaml") -> Catalog:
    """As lint."""
    catalog, file = parse_catalog(text, name)
    problems = list(_twice(catalog, file))
    for key, model in catalog.models.items():
        spot = Spot(file, key, model)
        for check in (_sources, _licence, _architecture, _parameters, _scores, _serve, _words):
            problems += check(spot)
    if problems:
        raise ConfigError(problems)
    return catalog


def _twice(catalog: Catalog, file: YamlFile) -> Iterator[Problem]:
    names = Counter(model.name.lower() for model in catalog.models.values())
    for key, model in catalog.models.items():
        if names[model.name.lower()] > 1:
            yield file.problem(("models", key, "name"), f"{model.name} stands in more than one entry")


def _sources(spot: Spot) -> Iterator[Problem]:
    """Every fact that is there has a source, and no source is there without its fact."""
    written = spot.model.model_fields_set
    for fact in ("maker", "tasks", *FACTS, "precision"):
        has = bool(getattr(spot.model, fact)) and fact in written
        source = getattr(spot.model.sources, fact)
        if has and source is None:
            yield spot.problem("sources", fact, says=f"{fact} has no source")
        if source is not None and not has and fact != "serve":
            yield spot.problem("sources", fact, says=f"is the source of {fact}, which is not there")


def _licence(spot: Spot) -> Iterator[Problem]:
    licence = spot.model.licence
    if licence is None:
        return
    if licence.kind == "permissive":
        if licence.id not in PERMISSIVE:
            yield spot.problem("licence", "id", says=f"permissive licences are {', '.join(PERMISSIVE)}")
        if licence.limits:
            yield spot.problem("licence", "limits", says="a permissive licence has none")
        return
    if licence.id in PERMISSIVE:
        yield spot.problem("licence", "kind", says=f"{licence.id} is permissive")
    if not licence.limits:
        yield spot.problem("licence", "limits", says="say in a sentence what the licence does not allow")
    if licence.kind == "conditional" and any(word in licence.id.upper() for word in NON_COMMERCIAL):
        yield spot.problem("licence", "kind", says=f"{licence.id} allows no commercial use: research")


def _architecture(spot: Spot) -> Iterator[Problem]:
    shape = spot.model.architecture
    if shape is None:
        return
    if shape.name not in ARCHITECTURES:
        yield spot.problem("architecture", "class", says=f"vLLM has no {shape.name}{_near(shape.name, ARCHITECTURES)}")
    if shape.heads and shape.kv_heads and shape.heads % shape.kv_heads:
        yield spot.problem("architecture", "kv_heads", says=f"{shape.heads} heads are no multiple of {shape.kv_heads}")
    if shape.heads and shape.head_dim and shape.hidden:
        over = shape.heads * shape.head_dim / shape.hidden
        if not HEADS_OVER_HIDDEN[0] <= over <= HEADS_OVER_HIDDEN[1]:
            says = f"heads · head_dim is {over:.2g} times hidden, which no architecture has"
            yield spot.problem("architecture", "head_dim", says=says)
    if shape.full_layers is not None and shape.layers is not None and shape.full_layers > shape.layers:
        yield spot.problem("architecture", "full_layers", says=f"there are {shape.layers} layers in all")
    if shape.window and spot.model.context and shape.window > spot.model.context:
        yield spot.problem("architecture", "window", says=f"is longer than the context of {spot.model.context}")


def _parameters(spot: Spot) -> Iterator[Problem]:
    parameters, shape = spot.model.parameters, spot.model.architecture
    if parameters is None:
        return
    total, active = parameters.total, parameters.active or parameters.total
    if active > total:
        yield spot.problem("parameters", "active", says=f"more than the {total:g} billion that there are")
    if active == total and shape and shape.layers and shape.hidden:
        body = shape.layers * shape.hidden**2 / 1e9
        low, high = LEAST_PER_LAYER * body, MOST_PER_LAYER * body + MOST_WORDS * shape.hidden / 1e9
        if not low <= total <= high:
            says = f"{shape.layers} layers of {shape.hidden} make a dense model of {low:.3g} to {high:.3g} billion"
            yield spot.problem("parameters", "total", says=says)


def _scores(spot: Spot) -> Iterator[Problem]:
    seen: set[str] = set()
    for i, score in enumerate(spot.model.scores):
        benchmark = BENCHMARKS.get(score.benchmark)
        if benchmark is None:
            says = f"no benchmark {score.benchmark!r} is known{_near(score.benchmark, BENCHMARKS)}"
            yield spot.problem("scores", i, "benchmark", says=says)
        elif not benchmark.low <= score.score <= benchmark.high:
            says = f"{score.benchmark} goes from {benchmark.low:g} to {benchmark.high:g}"
            yield spot.problem("scores", i, "score", says=says)
        if score.benchmark in seen:
            yield spot.problem("scores", i, "benchmark", says=f"{score.benchmark} stands twice")
        seen.add(score.benchmark)
        if spot.model.released and score.date < spot.model.released:
            yield spot.problem("scores", i, "date", says=f"is before the model's release in {spot.model.released}")


def _serve(spot: Spot) -> Iterator[Problem]:
    last = ""
    for i, word in enumerate(spot.model.serve):
        if not word.startswith("--") and not last.startswith("--"):
            yield spot.problem("serve", i, says=f"{word!r} is no flag and the value of none: flags start with --")
        if word.startswith("--") and word.partition("=")[0].removeprefix("--").replace("_", "-") in OWN_FLAGS:
            yield spot.problem("serve", i, says=f"{word.partition('=')[0]} is set by whoever starts the worker")
        last = word if word.startswith("--") and "=" not in word else ""


def _words(spot: Spot) -> Iterator[Problem]:
    if spot.model.family not in FAMILIES:
        says = f"no family {spot.model.family!r} is known{_near(spot.model.family, FAMILIES)}"
        yield spot.problem("family", says=says)
    for i, language in enumerate(spot.model.languages):
        if language not in LANGUAGES:
            yield spot.problem("languages", i, says=f"{language!r} is no language's two letters in ISO 639-1")
    for field in ("tasks", "languages"):
        for word, count in Counter(getattr(spot.model, field)).items():
            if count > 1:
                yield spot.problem(field, says=f"{word} stands twice")


def _near(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
