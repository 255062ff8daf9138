"""Compares ways of routing by what they get right and what they cost, and writes the table and the plot of docs/routing.md.

    make bench-routing [EVAL='own=router/measuring/own.jsonl other=prompts.jsonl.gz'] [BENCH='--only cascade']

Everything learns from the rows of router/corpus that are not held out. The files given are measured on and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from router.dataset import Row, examples_of, load_corpus, read_rows
from router.experts import BUILT_IN_DOMAINS
from router.measuring.asking import asking_of
from router.measuring.evaluation import chosen
from router.measuring.measures import Report, pairs_of, score_probabilities
from router.measuring.timing import is_typical
from router.perturb import perturbed
from tests.benchmarks import routed
from tests.benchmarks.methods import METHODS, Bench, Lessons
from tests.benchmarks.models import Classifier, Floats, InTurn
from tests.benchmarks.readers import Library, NotHereError, Shelf
from tests.benchmarks.results import markdown, picture
from tests.benchmarks.serving_cost import ServedClassifier, ServedRouter, cost, keep

ROOT = Path(__file__).parents[2]
OWN_SET = ROOT / "router" / "measuring" / "own.jsonl"
CACHE = ROOT / ".cache" / "bench"
TABLE, PLOT = ROOT / "docs" / "routing-methods.md", ROOT / "docs" / "routing-methods.svg"
TIMED = 200
COPIED, COPIES = (
    150,
    ("typos", "careless", "capitals"),
)  # rows that are perturbed where a file has no such copies, and how
NAMES = (*METHODS, *(routed.name_of(sure) for sure in routed.SURENESSES))
QUIET = 20.0  # seconds between two reports of progress


@dataclass(frozen=True)
class Measured:
    """Labelled rows under a name that readers of the table understand."""

    name: str
    rows: list[Row]

    @staticmethod
    def of(argument: str) -> Measured:
        """`name=path`, or a path alone, whose name is then its own."""
        name, _, path = argument.rpartition("=")
        rows = [row for row in read_rows(Path(path)) if row.domain in BUILT_IN_DOMAINS]
        return Measured(name or Path(path).name, rows if pairs_of(rows) else [*rows, *copies(rows)])


def copies(rows: Sequence[Row]) -> list[Row]:
    """Perturbed copies of some rows, to see which answers flip; they belong to no part and count for nothing else."""
    single = [i for i, row in enumerate(rows) if len(row.turns) < 2 and row.id]
    return [
        replace(
            rows[i],
            text=text,
            turns=(text,),
            id=f"{rows[i].id}~{name}",
            origin=rows[i].id,
            part="",
            tags=frozenset({name}),
        )
        for i in chosen(single, rows, COPIED)
        for name in COPIES
        if (text := perturbed(rows[i].text, name)) != rows[i].text
    ]


def figures(rows: Sequence[Row], probabilities: Floats) -> dict[str, float | None]:
    """What the table says of one method on one file; None where the file has no such rows."""
    report = score_probabilities(rows, BUILT_IN_DOMAINS, probabilities)
    parts: dict[str, Report] = report.parts or {"plain": report}
    found = {name: part.macro_f1 if name == "plain" else part.accuracy for name, part in parts.items()}
    named = {name: found.get(name) for name in ("plain", "hard", "multilingual", "conversation")}
    there = [value for value in named.values() if value is not None]
    ece = parts["plain"].ece if "plain" in parts else report.ece
    return {**named, "mean": sum(there) / len(there), "flips": report.flips, "ece": ece}


def timed_prompts(rows: Sequence[Row]) -> list[str]:
    """TIMED prompts of the corpus that nothing was trained on, of typical length, the same in every run."""
    fitting = [i for i, row in enumerate(rows) if row.held_out and is_typical(row.text)]
    single = [i for i in fitting if len(rows[i].turns) < 2 and rows[i].language == "en"]
    return [rows[i].text for i in chosen(single, rows, TIMED)]


class Comparison:
    """Everything that is needed to measure one method after the other."""

    def __init__(self, args: argparse.Namespace, say: Callable[[str], None]) -> None:
        self.say = say
        rows = load_corpus()
        self.sets = [Measured.of(argument) for argument in args.files]
        self.prompts = timed_prompts(rows)
        taught = rows[:: args.every]
        examples = [e for row in taught for e in examples_of(row) if not e.held_out]
        self.cache: Path = args.cache
        self.config: Path = args.config
        self.shelf = Shelf(self.cache / "encoders", examples, self.progress, args.encoder)
        self.library = Library(self.shelf.folder, self.cache / "vectors", self.progress)
        self.bench = Bench(Lessons.of(taught), self.library.read)
        self._said = 0.0

    def progress(self, step: str, done: int, total: int) -> None:
        if time.monotonic() - self._said > QUIET:
            self.say(f"  {step} {done}/{total}")
            self._said = time.monotonic()

    def method(self, name: str) -> dict[str, Any]:
        """Every figure of the method so named. Raises NotHereError."""
        fitted, method = self.bench.fitted(name), METHODS[name]
        served = ServedClassifier(fitted, {source: self.library.folder(source) for source in fitted.sources})
        keep(served, self.served(name))
        return {
            "family": method.family,
            "label": method.label,
            "fit_s": self.bench.seconds[name],
            "sets": {measured.name: self._answers(fitted, measured.rows) for measured in self.sets},
        }

    def _answers(self, fitted: Classifier, rows: Sequence[Row]) -> dict[str, float | None]:
        texts = [row.text for row in rows]
        found = figures(rows, fitted.probabilities(texts, self.library.read))
        return found | ({"passed_on": fitted.passed_on(texts, self.library.read)} if isinstance(fitted, InTurn) else {})

    def router(self, sure: float) -> dict[str, Any]:
        """Every figure of the packaged router at the threshold `sure`. Raises NotHereError."""
        router = routed.router_at(sure, routed.packaged(), routed.experts(self.config), self.library)
        sets: dict[str, dict[str, float | None]] = {}
        for measured in self.sets:
            queries = [asking_of(row).query for row in measured.rows]
            turns = [turn for query in queries for turn in (*query.earlier, query.text)]
            for stage in router.artifact.stages:  # all at once: a decision at a time would save the vectors as often
                self.library.read(stage.encoder.name, turns)
            probabilities, share = routed.answered(router, measured.rows)
            sets[measured.name] = figures(measured.rows, probabilities) | {"passed_on": share}
        keep(ServedRouter(sure, self.config), self.served(routed.name_of(sure)))
        return {"family": routed.FAMILY, "label": routed.label_of(sure), "fit_s": None, "sets": sets}

    def served(self, name: str) -> Path:
        """Where the method so named is kept, to be timed."""
        return self.cache / "served" / f"{name}.pickle"


class Ledger:
    """The figures of this run and of those before it, by method, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def note(self, name: str, noted: Mapping[str, Any]) -> None:
        self.found[name] = self.found.get(name, {}) | dict(noted)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.found, indent=1), "utf-8")

    def whole(self) -> dict[str, dict[str, Any]]:
        """The methods of which everything is known, in the order of NAMES."""
        return {name: self.found[name] for name in NAMES if "cost" in self.found.get(name, {})}


def score_all(comparison: Comparison, names: Sequence[str], ledger: Ledger) -> None:
    """Note what each method so named gets right; what cannot be had here is left out, and said to be."""
    surenesses = {routed.name_of(sure): sure for sure in routed.SURENESSES}
    for name in names:
        try:
            found = comparison.router(surenesses[name]) if name in surenesses else comparison.method(name)
        except NotHereError as error:
            comparison.say(f"{name}: left out, {error}")
            continue
        ledger.note(name, found)
        comparison.say(f"{name}: " + ", ".join(f"{s} {f['mean']:.3f}" for s, f in found["sets"].items()))


def time_all(comparison: Comparison, names: Sequence[str], ledger: Ledger) -> None:
    """Note what each method so named costs, one after the other: only what is timed together can be compared."""
    for name in names:
        if comparison.served(name).is_file():
            found = cost(comparison.served(name), comparison.prompts)
            ledger.note(name, {"cost": found})
            comparison.say(f"{name}: {found['mean_us']:.0f} µs, {found['resident_mb']:.0f} MB")


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", nargs="*", help="labelled prompts, as path or name=path; the plot is of the first")
    parser.add_argument("--only", action="append", default=[], help="methods with this in their names; may be repeated")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="learn from every so-manieth row alone, to try things out; give it a cache of its own",
    )
    parser.add_argument("--encoder", type=Path, action="append", default=[], help="the folder of one more encoder")
    parser.add_argument("--config", type=Path, default=ROOT / "experts.yaml", help="the experts of the whole router")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where encoders and vectors are kept")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--plot", type=Path, default=PLOT)
    parser.add_argument("--step", choices=("score", "time", "draw"), help="this step alone, on what earlier runs left")
    args = parser.parse_args(arguments)
    args.files = args.files or [str(OWN_SET)]
    return args


def main(arguments: Sequence[str]) -> None:
    args = parsed(arguments)
    ledger = Ledger(args.cache / "figures.json")
    if args.step != "draw":
        comparison = Comparison(args, lambda line: print(line, flush=True))
        names = [name for name in NAMES if not args.only or any(part in name for part in args.only)]
        if args.step != "time":
            score_all(comparison, names, ledger)
        if args.step == "score":
            return
        time_all(comparison, names, ledger)
    whole = ledger.whole()
    if not whole:
        sys.exit("nothing is both scored and timed yet: run without --step")
    args.table.write_text(markdown(whole), "utf-8")
    args.plot.write_text(picture(whole), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
