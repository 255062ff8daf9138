"""Adding a domain: how well it is found, what the four built-in ones lose by it, and what it costs.

    python -m tests.benchmarks.adding_domains [prompts.jsonl.gz] [--draws 5] [--output figures.json]

Each domain of tests/benchmarks/domains is added by itself, as a user adds it: through an experts.yaml and training.train, which
start from the packaged router. Prints Markdown tables. Without a file to measure on, what the four lose is not shown.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import PACKAGED, Artifact, load_artifact
from router.calibration import expected_calibration_error
from router.dataset import Row, load_corpus, read_rows, training_rows
from router.encoder import Encoder
from router.experts import BUILT_IN_DOMAINS, parse_experts
from router.training.train import Recipe, train
from tests.benchmarks.detector_methods import METHODS, Score

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FOLDER = Path(__file__).parent / "domains"
SIZES = (5, 10, 20, 50)
USUAL = 10
OWN_SHARE = 1 / 5  # of the prompts, where calibration is measured: one domain beside four
# Topics of the corpus that are the domain, and those of which some prompts are, which count neither way.
TOPICS = {"legal": {"law"}, "finance": {"finance", "economics"}, "sql": {"databases-sql"}}
BORDER = {"legal": set[str](), "finance": {"business", "finance-math"}, "sql": {"data-science"}}
# Which prompts of an evaluation set are of the domain, by its tags, or by what the prompt says.
TAGS = {
    "legal": re.compile(r"mmlu:.*(law|jurisprudence)|(expertqa|tqa):Law$"),
    "finance": re.compile(
        r"mmlu:.*(account|econom)|(expertqa|tqa):(Business|Econom|Financ)|intent:(.*account|.*card|.*credit|.*pin_|payday"
        r"|direct_deposit|income|order_checks|bill_|.*balance|rollover|taxes|transfer|exchange_rate|interest|apr|min_pay)"
    ),
}
SAYS = {
    "sql": re.compile(r"\bsql\b|sqlite|postgres|\bselect\b.*\bfrom\b|(primary|foreign) key|relational", re.I | re.S)
}


@dataclass(frozen=True)
class Texts:
    """Texts and what each encoder makes of them, worked out once: the encoders never change here."""

    rows: Sequence[Row]
    vectors: Mapping[str, NDArray[np.float32]]

    @staticmethod
    def read(rows: Sequence[Row], encoders: Sequence[Encoder]) -> Texts:
        return Texts(rows, {encoder.name: encoder.encode([row.text for row in rows]) for encoder in encoders})

    def probabilities(self, artifact: Artifact) -> tuple[Floats, Flags]:
        """Of every text the probabilities (texts, domains) that the cascade tells, and whether the cheap stage was sure."""
        told: Floats | None = None
        sure = np.zeros(len(self.rows), dtype=bool)
        for stage in artifact.stages:
            said = stage.of_vectors(self.vectors[stage.encoder.name], told)
            told = said if told is None else np.where(sure[:, None], told, said)
            sure |= (said.max(axis=1) >= stage.sure) & (stage is not artifact.stages[-1])
        assert told is not None
        return told, sure


def prompts_of(domain: str, split: str) -> list[str]:
    lines = (FOLDER / f"{domain}.jsonl").read_text("utf-8").splitlines()
    return [row["prompt"] for row in map(json.loads, lines) if row["split"] == split]


def experts_yaml(examples: Mapping[str, Sequence[str]]) -> str:
    """An experts.yaml that adds domains, each with its examples."""
    served = (*BUILT_IN_DOMAINS, *examples)
    lines = ["version: 1", "domains:"]
    for domain, prompts in examples.items():
        lines += [f"  {domain}:", "    examples:", *(f"      - {json.dumps(prompt)}" for prompt in prompts)]
    lines.append("experts:")
    lines += [f"  {d}: {{model: m, domains: [{d}], upstream: {{vllm: [http://127.0.0.1:1/v1]}}}}" for d in served]
    return "\n".join(lines)


def added(text: str, folder: Path) -> Artifact:
    """The router that the experts.yaml `text` makes, trained in `folder`."""
    file = parse_experts(text)
    train(training_rows(file), Recipe.of(file.router), folder)
    return load_artifact(folder)


def cost_of(text: str) -> dict[str, Any]:
    """Seconds and megabytes of adding a domain in a process of its own, and whether torch was there."""
    command = [sys.executable, "-m", "tests.benchmarks.adding_domains", "--alone"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def alone(text: str) -> dict[str, Any]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        added(text, Path(folder))
    status = Path("/proc/self/status").read_text("ascii")  # the peak that getrusage tells is inherited from the parent
    peak = int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0])
    return {"seconds": time.perf_counter() - start, "peak_mb": peak / 1024, "torch": "torch" in sys.modules}


def draws(domain: str, size: int, count: int) -> Iterator[list[str]]:
    prompts = prompts_of(domain, "example")
    for seed in range(count):
        chosen = np.random.default_rng([sorted(TOPICS).index(domain), size, seed]).permutation(len(prompts))[:size]
        yield [prompts[i] for i in chosen]


def alike(domain: str, size: int, count: int, encoder: Encoder) -> Iterator[list[str]]:
    """Narrow draws: one example and those nearest to it."""
    prompts = prompts_of(domain, "example")
    vectors = encoder.encode(prompts)
    for first in np.random.default_rng(0).permutation(len(prompts))[:count]:
        yield [prompts[i] for i in np.argsort(-(vectors @ vectors[first]))[:size]]


def is_of(row: Row, domain: str) -> bool:
    """Whether a row of an evaluation set is of the added domain."""
    if domain in TAGS:
        return any(TAGS[domain].match(tag) for tag in row.tags)
    return row.accepts("code") and SAYS[domain].search(row.text) is not None


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


class Bench:
    """What is measured on: the domain's own test prompts, the corpus's held-out rows with topics, and an evaluation set."""

    def __init__(self, public: Path | None) -> None:
        self.packaged = load_artifact(PACKAGED)
        encoders = [stage.encoder for stage in self.packaged.stages]
        tests = [Row(prompt, domain) for domain in TOPICS for prompt in prompts_of(domain, "test")]
        held = [row for row in load_corpus() if row.held_out and row.topic and not row.turns[1:]]
        plain = [row for row in read_rows(public) if row.part == "plain"] if public else []
        self.tests, self.held, self.plain = (Texts.read(rows, encoders) for rows in (tests, held, plain))

    def before(self) -> dict[str, float]:
        told, sure = self.plain.probabilities(self.packaged)
        labels = [self.packaged.manifest.domains[i] for i in told.argmax(axis=1)]
        held, held_sure = self.held.probabilities(self.packaged)
        right = _right(self.held.rows, held, self.packaged.manifest.domains)
        return {
            "f1": macro_f1(self.plain.rows, labels),
            "passed_on": 1 - float(sure.mean()) if len(sure) else float("nan"),
            "passed_on_held": 1 - float(held_sure.mean()),
            "ece": expected_calibration_error(held.max(axis=1), right),
        }

    def figures(self, artifact: Artifact, domain: str) -> dict[str, float]:
        domains = artifact.manifest.domains
        place = domains.index(domain)
        told, sure = self.tests.probabilities(artifact)
        own = np.array([row.domain == domain for row in self.tests.rows])
        found = told.argmax(axis=1) == place
        held, held_sure = self.held.probabilities(artifact)
        taken = held.argmax(axis=1) == place
        topics = [row.topic for row in self.held.rows]
        inside = np.array([t in TOPICS[domain] for t in topics])
        other = ~inside & np.array([t not in BORDER[domain] for t in topics])
        wrong = float(taken[other].mean())
        recall = float(found[own].mean())
        out = {
            "recall": recall,
            "precision": OWN_SHARE * recall / max(1e-9, OWN_SHARE * recall + (1 - OWN_SHARE) * wrong),
            "topic_recall": float(taken[inside].mean()),
            "taken": wrong,
            "lost_by_the_cheap_stage": float((sure & ~found)[own].mean()),
            "passed_on_held": 1 - float(held_sure.mean()),
            "ece": _calibration(told[own], found[own], held[other], _right(self.held.rows, held, domains)[other]),
        }
        return out | self._public(artifact, domain)

    def _public(self, artifact: Artifact, domain: str) -> dict[str, float]:
        if not self.plain.rows:
            return {}
        told, sure = self.plain.probabilities(artifact)
        labels = [artifact.manifest.domains[i] for i in told.argmax(axis=1)]
        moved = [row for row, label in zip(self.plain.rows, labels, strict=True) if label == domain]
        return {
            "f1": macro_f1(self.plain.rows, labels, *artifact.manifest.added),
            "f1_any_move_wrong": macro_f1(self.plain.rows, labels),
            "moved": len(moved),
            "moved_rightly": sum(is_of(row, domain) for row in moved),
            "passed_on": 1 - float(sure.mean()),
        }

    def of_method(self, fit: Callable[..., Score], examples: Sequence[str], domain: str) -> dict[str, float]:
        """A way to detect, by itself, in the best stage: how many of the tests, and of the rest, are found."""
        best = self.packaged.stages[-1].encoder
        score = fit(self.corpus_vectors(), best.encode(examples))
        own = np.array([row.domain == domain for row in self.tests.rows])
        other = np.array([row.topic not in TOPICS[domain] | BORDER[domain] for row in self.held.rows])
        found, taken = score(self.tests.vectors[best.name]), score(self.held.vectors[best.name])
        level = np.quantile(taken[other], 0.99)
        return {
            "recall": float((found[own] > 0.5).mean()),
            "taken": float((taken[other] > 0.5).mean()),
            "recall_at_1_percent": float((found[own] > level).mean()),
            "log_loss": -OWN_SHARE * float(np.log(np.maximum(found[own], 1e-9)).mean())
            - (1 - OWN_SHARE) * float(np.log(np.maximum(1 - taken[other], 1e-9)).mean()),
        }

    def corpus_vectors(self) -> NDArray[np.float32]:
        """The vectors of the corpus that the best stage's detectors are fitted against."""
        vectors, name = self.packaged.vectors(), self.packaged.stages[-1].encoder.name
        rows = vectors.find(name, [row.text for row in load_corpus() if not row.held_out and not row.turns[1:]])
        return vectors.table(name)[[row for row in rows if row is not None]]


def _right(rows: Sequence[Row], told: Floats, domains: Sequence[str]) -> Flags:
    return np.array([row.accepts(domains[i]) for row, i in zip(rows, told.argmax(axis=1), strict=True)], dtype=bool)


def _calibration(own: Floats, own_right: Flags, others: Floats, others_right: Flags) -> float:
    """ECE of the confidence where OWN_SHARE of the prompts are of the added domain: its prompts are repeated as needed."""
    times = max(1, round(OWN_SHARE / (1 - OWN_SHARE) * len(others) / len(own)))
    confidence = np.concatenate([np.tile(own.max(axis=1), times), others.max(axis=1)])
    return expected_calibration_error(confidence, np.concatenate([np.tile(own_right, times), others_right]))


def mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([figures[name] for figures in found])) for name in found[0]}


def run(public: Path | None, count: int) -> dict[str, Any]:
    bench = Bench(public)
    best = bench.packaged.stages[-1].encoder
    out: dict[str, Any] = {"before": bench.before(), "sizes": {}, "narrow": {}, "cost": {}, "methods": {}}

    def over(domain: str, some: Iterator[list[str]]) -> dict[str, float]:
        found = []
        for examples in some:
            with tempfile.TemporaryDirectory() as folder:
                found.append(bench.figures(added(experts_yaml({domain: examples}), Path(folder)), domain))
        return mean(found)

    for domain in TOPICS:
        out["sizes"][domain] = {size: over(domain, draws(domain, size, count)) for size in SIZES}
        out["narrow"][domain] = over(domain, alike(domain, USUAL, count, best))
        out["cost"][domain] = cost_of(experts_yaml({domain: next(draws(domain, USUAL, 1))}))
        print(domain, out["sizes"][domain], file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        together = {domain: next(draws(domain, 20, 1)) for domain in TOPICS}
        artifact = added(experts_yaml(together), Path(folder))
        out["together"] = {domain: bench.figures(artifact, domain) for domain in TOPICS}
    for name, fit in METHODS.items():
        out["methods"][name] = {
            size: mean([bench.of_method(fit, e, d) for d in TOPICS for e in draws(d, size, count)]) for size in SIZES
        }
    return out


def tables(out: Mapping[str, Any]) -> Iterator[str]:
    before = out["before"]
    names = (
        "recall",
        "precision",
        "topic_recall",
        "taken",
        "ece",
        "lost_by_the_cheap_stage",
        "f1",
        "moved_rightly",
        "moved",
    )
    yield f"before: macro-F1 {before['f1']:.4f}, passed on {before['passed_on']:.1%}, ECE {before['ece']:.3f}"
    yield "| domain | examples | " + " | ".join((*names, "passed_on")) + " |"
    yield "|---|---:|" + "---:|" * (len(names) + 1)
    rows = [(d, str(size), f) for d, sizes in out["sizes"].items() for size, f in sizes.items()]
    rows += [(d, f"{USUAL} alike", f) for d, f in out["narrow"].items()]
    rows += [(d, "20, all three added", f) for d, f in out["together"].items()]
    for domain, size, figures in rows:
        cells = [f"{figures.get(name, float('nan')):.{1 if 'moved' in name else 4}f}" for name in (*names, "passed_on")]
        yield f"| {domain} | {size} | " + " | ".join(cells) + " |"
    yield ""
    for domain, cost in out["cost"].items():
        yield f"{domain}: {cost['seconds']:.1f} s, {cost['peak_mb']:.0f} MB, torch imported: {cost['torch']}"
    yield ""
    for name, sizes in out["methods"].items():
        for size, f in sizes.items():
            yield f"| {name} | {size} | " + " | ".join(f"{k} {v:.3f}" for k, v in f.items()) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("public", nargs="?", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(sys.stdin.read())))
        return
    out = run(given.public, given.draws)
    if given.output:
        given.output.write_text(json.dumps(out, indent=1), "utf-8")
    print("\n".join(tables(out)))


if __name__ == "__main__":
    main()
