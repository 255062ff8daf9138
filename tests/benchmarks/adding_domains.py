"""Adding a domain: how well it is found, what the four built-in ones lose by it, and what it costs.

    make bench-domains [EVAL='own=router/measuring/own.jsonl other=prompts.jsonl.gz'] [BENCH='--draws 3']

Each domain of tests/benchmarks/domains is added by itself to the packaged router, then all at once, and the table and the plot of
docs/adding-domains.md are written anew. The files given are measured on and nothing else. The encoders read every text once; the
detectors are fitted for each draw of examples, and what an operator would wait for is timed in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import PACKAGED, Artifact, load_artifact
from router.calibration import expected_calibration_error
from router.cascade import FLUENT, Stage
from router.dataset import OWN_SET, Example, Row, examples_of, load_corpus, read_rows, training_rows
from router.detectors import Detectors
from router.encoder import Encoder
from router.experts import BUILT_IN_DOMAINS, parse_experts
from router.language import language_of
from router.training.train import Recipe, train
from router.vectors import Vectors
from tests.benchmarks.detector_methods import METHODS, Score
from tests.benchmarks.domain_prompts import BORDER, TOPICS, alike, draws, experts_yaml, is_of, prompts_of
from tests.benchmarks.domain_tables import methods_table, page_with, picture, tables

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ROOT = Path(__file__).parents[2]
PAGE, PLOT = ROOT / "docs" / "adding-domains.md", ROOT / "docs" / "adding-domains.svg"
SIZES = (5, 10, 20, 50)
USUAL = 10
OWN_SHARE = 1 / 5  # of the prompts, where precision and calibration are measured: one domain beside four


@dataclass(frozen=True)
class Texts:
    """Texts and what each encoder makes of them, worked out once: the encoders never change here."""

    rows: Sequence[Row]
    vectors: Mapping[str, NDArray[np.float32]]

    @staticmethod
    def read(rows: Sequence[Row], encoders: Sequence[Encoder]) -> Texts:
        return Texts(rows, {encoder.name: encoder.encode([row.text for row in rows]) for encoder in encoders})

    @cached_property
    def fluent(self) -> Flags:
        """Whether a cheap stage may answer, of every text."""
        return np.array([language_of(row.text) in FLUENT for row in self.rows])

    def told(self, stages: Sequence[Stage]) -> tuple[Floats, Flags]:
        """Of every text the probabilities (texts, domains) that the cascade tells, and whether the cheap stage was sure."""
        told: Floats | None = None
        sure = np.zeros(len(self.rows), dtype=bool)
        for stage in stages:
            said = stage.of_vectors(self.vectors[stage.encoder.name], told)
            told = said if told is None else np.where(sure[:, None], told, said)
            sure |= (said.max(axis=1) >= stage.sure) & self.fluent & (stage is not stages[-1])
        assert told is not None
        return told, sure


@dataclass(frozen=True)
class Extended:
    """The stages of a router to which the domains `added` were added; `domains` are all that it tells."""

    stages: Sequence[Stage]
    added: tuple[str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        return (*BUILT_IN_DOMAINS, *self.added)


class Packaged:
    """The packaged router, to which domains are added as train adds them, without fitting again the heads, which stay."""

    def __init__(self, folder: Path = PACKAGED) -> None:
        self.artifact: Artifact = load_artifact(folder)
        kept = self.artifact.vectors()
        texts = _learnt_from(load_corpus())
        self.corpus = {e.name: _found(kept, e.name, texts) for e in self.encoders}

    @property
    def encoders(self) -> list[Encoder]:
        return [stage.encoder for stage in self.artifact.stages]

    def with_domains(self, examples: Mapping[str, Sequence[str]]) -> Extended:
        added = tuple(sorted(examples))
        stages: list[Stage] = []
        found: Floats | None = None
        for stage in reversed(self.artifact.stages):
            corpus = self.corpus[stage.encoder.name]
            own = [_in_8_bits(stage.encoder, examples[domain]) for domain in added]
            detectors = Detectors.fit(corpus, own, found)
            found = detectors.found(corpus) if found is None else found
            stages.insert(0, replace(stage, detectors=detectors))
        return Extended(stages, added)


def _learnt_from(rows: Iterable[Row]) -> list[str]:
    """The texts of the corpus that the detectors are fitted against, each once."""
    unique: dict[str, Example] = {}
    for row in rows:
        for example in examples_of(row):
            unique.setdefault(example.text, example)
    return [e.text for e in unique.values() if not e.held_out and sum(e.target(BUILT_IN_DOMAINS)) > 0.5]


def _found(kept: Vectors, name: str, texts: Sequence[str]) -> NDArray[np.float32]:
    places = [place for place in kept.find(name, texts) if place is not None]
    if len(places) < len(texts):
        lacks = len(texts) - len(places)
        sys.exit(
            f"the packaged router was trained on another corpus: it lacks {lacks} texts of this one; run make train"
        )
    return kept.table(name)[places]


def _in_8_bits(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    return Vectors.of(texts, {encoder.name: encoder.encode(texts)}).table(encoder.name)


def macro_f1(rows: Sequence[Row], labels: Sequence[str], *added: str) -> float:
    """Over the built-in domains; a row that moved to one of the `added` domains and is of it counts as right."""
    seen = [
        row.domain if label in added and is_of(row, label) else label for row, label in zip(rows, labels, strict=True)
    ]
    scores = []
    for known in BUILT_IN_DOMAINS:
        right = sum(label == known == row.domain for row, label in zip(rows, seen, strict=True))
        scores.append(2 * right / max(1, sum(label == known for label in seen) + sum(r.domain == known for r in rows)))
    return float(np.mean(scores))


@dataclass(frozen=True)
class OldDomains:
    """The plain prompts of an evaluation set, on which it shows what the built-in domains lose."""

    texts: Texts

    @staticmethod
    def read(path: Path, encoders: Sequence[Encoder]) -> OldDomains:
        """Raises CorpusError."""
        rows = [row for row in read_rows(path) if row.part in ("plain", "") and row.domain in BUILT_IN_DOMAINS]
        return OldDomains(Texts.read(rows, encoders))

    def before(self, stages: Sequence[Stage]) -> dict[str, float]:
        told, sure = self.texts.told(stages)
        labels = [BUILT_IN_DOMAINS[i] for i in told.argmax(axis=1)]
        return {"rows": len(sure), "f1": macro_f1(self.texts.rows, labels), "passed_on": 1 - float(sure.mean())}

    def after(self, router: Extended, domain: str) -> dict[str, float]:
        """Of the domain: how many rows are of it, were moved to it, and both."""
        told, sure = self.texts.told(router.stages)
        rows, labels = self.texts.rows, [router.domains[i] for i in told.argmax(axis=1)]
        moved = [row for row, label in zip(rows, labels, strict=True) if label == domain]
        return {
            "f1": macro_f1(rows, labels, *router.added),
            "f1_any_move_wrong": macro_f1(rows, labels),
            "inside": sum(is_of(row, domain) for row in rows),
            "moved": len(moved),
            "moved_rightly": sum(is_of(row, domain) for row in moved),
            "passed_on": 1 - float(sure.mean()),
        }


class NewDomain:
    """What the added domain itself is measured on: its own test prompts, and the corpus's held-out rows, which have topics."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        tests = [Row(prompt, domain) for domain in TOPICS for prompt in prompts_of(domain, "test")]
        held = [row for row in load_corpus() if row.held_out and row.topic and not row.turns[1:]]
        self.tests, self.held = Texts.read(tests, encoders), Texts.read(held, encoders)

    def own(self, domain: str) -> Flags:
        return np.array([row.domain == domain for row in self.tests.rows])

    def inside(self, domain: str) -> Flags:
        return np.array([row.topic in TOPICS[domain] for row in self.held.rows])

    def others(self, domain: str) -> Flags:
        return np.array([row.topic not in TOPICS[domain] | BORDER[domain] for row in self.held.rows])

    def figures(self, router: Extended, domain: str) -> dict[str, float]:
        """`taken` is the share of prompts about something else that went to the domain, `precision` and `ece` are where
        OWN_SHARE of the prompts are of it."""
        place = router.domains.index(domain)
        own, other = self.own(domain), self.others(domain)
        told, sure = self.tests.told(router.stages)
        held, held_sure = self.held.told(router.stages)
        found, taken = told.argmax(axis=1) == place, held.argmax(axis=1) == place
        recall, wrong = float(found[own].mean()), float(taken[other].mean())
        right = _right(self.held.rows, held, router.domains)
        return {
            "recall": recall,
            "precision": OWN_SHARE * recall / max(1e-9, OWN_SHARE * recall + (1 - OWN_SHARE) * wrong),
            "topic_recall": float(taken[self.inside(domain)].mean()),
            "taken": wrong,
            "lost_by_the_cheap_stage": float((sure & ~found)[own].mean()),
            "passed_on_held": 1 - float(held_sure.mean()),
            "ece": _calibration(told[own], found[own], held[other], right[other]),
        }

    def of_method(
        self, fit: Callable[..., Score], router: Packaged, examples: Sequence[str], domain: str
    ) -> dict[str, float]:
        """A way to detect, by itself, in the best stage: how many of the tests, and of the rest, are found."""
        best = router.encoders[-1]
        score = fit(router.corpus[best.name], best.encode(examples))
        own, other = self.own(domain), self.others(domain)
        found, taken = score(self.tests.vectors[best.name]), score(self.held.vectors[best.name])
        level = np.quantile(taken[other], 0.99)
        return {
            "recall": float((found[own] > 0.5).mean()),
            "taken": float((taken[other] > 0.5).mean()),
            "recall_at_1_percent": float((found[own] > level).mean()),
            "log_loss": -OWN_SHARE * float(np.log(np.maximum(found[own], 1e-9)).mean())
            - (1 - OWN_SHARE) * float(np.log(np.maximum(1 - taken[other], 1e-9)).mean()),
        }


def _right(rows: Sequence[Row], told: Floats, domains: Sequence[str]) -> Flags:
    return np.array([row.accepts(domains[i]) for row, i in zip(rows, told.argmax(axis=1), strict=True)], dtype=bool)


def _calibration(own: Floats, own_right: Flags, others: Floats, others_right: Flags) -> float:
    """ECE of the confidence where OWN_SHARE of the prompts are of the added domain: its prompts are repeated as needed."""
    times = max(1, round(OWN_SHARE / (1 - OWN_SHARE) * len(others) / len(own)))
    confidence = np.concatenate([np.tile(own.max(axis=1), times), others.max(axis=1)])
    return expected_calibration_error(confidence, np.concatenate([np.tile(own_right, times), others_right]))


def cost_of(text: str) -> dict[str, Any]:
    """Seconds, seconds of CPU and megabytes of adding a domain in a process of its own, and whether torch was there."""
    command = [sys.executable, "-m", "tests.benchmarks.adding_domains", "--alone"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


def alone(text: str) -> dict[str, Any]:
    """Adds what the experts.yaml `text` adds, from the packaged router, as the gateway's start does."""
    start, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        file = parse_experts(text)
        train(training_rows(file), Recipe.of(file.router), Path(folder))
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    status = Path("/proc/self/status").read_text("ascii")  # the peak that getrusage tells is inherited from the parent
    peak = int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0])
    return {"seconds": seconds, "cpu_s": cpu, "peak_mb": peak / 1024, "torch": "torch" in sys.modules}


def mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([figures[name] for figures in found])) for name in found[0]}


class Bench:
    """Measures what adding does, with the sets of which it shows what is lost, by name."""

    def __init__(self, files: Mapping[str, Path], say: Callable[[str], None]) -> None:
        self.say = say
        say("reading every text with the packaged encoders …")
        self.router = Packaged()
        self.new = NewDomain(self.router.encoders)
        self.sets = {name: OldDomains.read(path, self.router.encoders) for name, path in files.items()}

    def before(self) -> dict[str, dict[str, float]]:
        return {name: old.before(self.router.artifact.stages) for name, old in self.sets.items()}

    def alone(self, domain: str, some: Iterable[Sequence[str]]) -> dict[str, Any]:
        """The figures of `domain` added by itself, with each of `some` examples."""
        return self.figures(domain, [self.router.with_domains({domain: examples}) for examples in some])

    def figures(self, domain: str, routers: Sequence[Extended]) -> dict[str, Any]:
        """The mean figures of `domain` over routers to which it was added; of its recall the least and the most as well."""
        new = [self.new.figures(router, domain) for router in routers]
        recalls = [figures["recall"] for figures in new]
        sets = {name: mean([old.after(router, domain) for router in routers]) for name, old in self.sets.items()}
        return {"new": mean(new) | {"recall_least": min(recalls), "recall_most": max(recalls)}, "sets": sets}

    def methods(self, count: int) -> Iterator[tuple[str, dict[int, dict[str, float]]]]:
        for name, fit in METHODS.items():
            self.say(f"method: {name}")
            yield (
                name,
                {
                    size: mean(
                        [self.new.of_method(fit, self.router, e, d) for d in TOPICS for e in draws(d, size, count)]
                    )
                    for size in SIZES
                },
            )


def measured(bench: Bench, count: int, methods: bool = False) -> dict[str, Any]:
    """Every figure, with `count` draws of examples; `methods` compares ways to detect, too."""
    best = bench.router.encoders[-1]
    out: dict[str, Any] = {
        "draws": count,
        "tests": int(bench.new.own(next(iter(TOPICS))).sum()),
        "router": bench.router.artifact.name,
        "before": bench.before(),
        "sizes": {},
        "narrow": {},
        "cost": {},
        "methods": {},
    }
    for domain in TOPICS:
        out["sizes"][domain] = {}
        for size in SIZES:
            found = bench.alone(domain, draws(domain, size, count))
            out["sizes"][domain][size] = found
            bench.say(f"{domain}, {size} examples: {found['new']['recall']:.0%} of its prompts found")
        out["narrow"][domain] = bench.alone(domain, alike(domain, USUAL, count, best))
        bench.say(f"{domain}: timing what an operator waits for …")
        out["cost"][domain] = cost_of(experts_yaml({domain: next(draws(domain, USUAL, 1))}))
    bench.say("all at once …")
    drawn = zip(*(draws(domain, USUAL, count) for domain in TOPICS), strict=True)
    together = [bench.router.with_domains(dict(zip(TOPICS, examples, strict=True))) for examples in drawn]
    out["together"] = {domain: bench.figures(domain, together) for domain in TOPICS}
    if methods:
        out["methods"] = dict(bench.methods(count))
    return out


def files_of(arguments: Sequence[str]) -> dict[str, Path]:
    """`name=path`, or a path alone, whose name is then its own; the project's own set where nothing is given."""
    split = [argument.rpartition("=") for argument in arguments or [f"own={OWN_SET}"]]
    return {name or Path(path).name: Path(path) for name, _, path in split}


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", nargs="*", help="labelled prompts, as path or name=path; the project's own by default")
    parser.add_argument("--draws", type=int, default=5, help="of examples, over which figures are averaged")
    parser.add_argument("--methods", action="store_true", help="compare ways to detect as well; takes minutes more")
    parser.add_argument("--json", type=Path, help="write every figure into this file")
    parser.add_argument("--from-json", type=Path, help="draw from the figures of an earlier run, and measure nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page whose tables are written anew")
    parser.add_argument("--plot", type=Path, default=PLOT)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parsed(arguments)
    if args.alone:
        print(json.dumps(alone(sys.stdin.read())))
        return
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:4.0f} s] {line}", file=sys.stderr, flush=True)

    if args.from_json:
        out = json.loads(args.from_json.read_text("utf-8"))
    else:
        out = measured(Bench(files_of(args.files), say), args.draws, args.methods)
        out = json.loads(json.dumps(out))  # as a file would give it: sizes are text
    if args.json:
        args.json.write_text(json.dumps(out, indent=1), "utf-8")
    shown = "\n".join(tables(out))
    args.page.write_text(page_with(args.page.read_text("utf-8"), shown), "utf-8")
    args.plot.write_text(picture(out), "utf-8")
    print(shown)
    print("\n".join(methods_table(out)))


if __name__ == "__main__":
    main(sys.argv[1:])
