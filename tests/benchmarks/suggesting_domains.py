"""Whether `moe-gateway domains suggest` finds domains that nobody serves, in traffic that was authored for it.

    python -m tests.benchmarks.suggesting_domains [--draws 5] [--write]

Ordinary traffic are prompts that the router was never trained on: the project's own set, or held-out prompts of the corpus. Among
them are hidden so many of the 120 authored prompts of legal and of finance. The corpus has some of both under the label general, as
any traffic does: 4 % each. `unknown` leaves those out of what the traffic is compared with, as for a domain that it has nothing of.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.artifact import PACKAGED
from router.dataset import OWN_SET, Row, load_corpus, read_rows
from router.experts import load_experts
from router.rerouting import Prompt, silent
from router.routing import Router
from router.suggesting.clusters import Join, by_average, clustered
from router.suggesting.examples import chosen
from router.suggesting.pool import Background, Pool, background_of, gather
from tests.benchmarks.domain_prompts import BORDER, TOPICS, prompts_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "domains-suggest.md"
START = "<!-- figures: python -m tests.benchmarks.suggesting_domains --write writes them -->"
END = "<!-- end of figures -->"
HIDDEN = ("legal", "finance")
SIZES = (20, 40, 60, 100)
LARGE = 1000  # prompts of the corpus
NOTHING = (300, 1000, 2500)  # texts in which nothing is hidden
OWN, HELD_OUT = "own set (383)", f"held-out corpus ({LARGE:,})"

HEAD = (
    "found",
    "of its texts, where found",
    "proposals a draw",
    "purity",
    "ordinary texts in proposals",
    "ordinary examples",
    "strange proposals",
)

Floats = NDArray[np.float32]


def complete(directions: Floats, least: float) -> NDArray[np.intp]:
    """Complete linkage, where the farthest two of a part may be as far as random pairs are on average."""
    from sklearn.cluster import AgglomerativeClustering

    join = AgglomerativeClustering(n_clusters=None, metric="cosine", linkage="complete", distance_threshold=1.0)
    return np.asarray(join.fit_predict(directions))


def hdbscan(directions: Floats, least: float) -> NDArray[np.intp]:
    from sklearn.cluster import HDBSCAN

    join = HDBSCAN(min_cluster_size=10, min_samples=2, cluster_selection_method="leaf", copy=True)
    return np.asarray(join.fit_predict(directions))


METHODS: Mapping[str, Join] = {"average linkage": by_average, "complete linkage": complete, "HDBSCAN": hdbscan}


@dataclass(frozen=True)
class Texts:
    """Texts that no specialist answers, with what each is about: one of HIDDEN, `ordinary`, or `border`, which is neither."""

    pool: Pool
    labels: NDArray[np.str_]

    @staticmethod
    def read(router: Router, rows: Sequence[Row]) -> Texts:
        """Those of `rows` that come to the fallback expert or leave the router unsure."""
        by_text = {text: _label(row) for row in rows for text in [Prompt.of(row.text).query.text]}
        pool = gather(router, [Prompt.of(row.text) for row in rows], silent)
        return Texts(pool, np.array([by_text.get(text, "ordinary") for text in pool.texts]))

    def drawn(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Places of so many of them."""
        return rng.permutation(len(self.labels))[:count]


def _label(row: Row) -> str:
    if row.domain in HIDDEN:
        return row.domain
    for domain in HIDDEN:
        if row.topic in TOPICS[domain]:
            return domain
        if row.topic in BORDER[domain]:
            return "border"
    return "ordinary"


@dataclass(frozen=True)
class Found:
    """Of one draw: by hidden domain the share of its texts that proposals of it have, None where there was no such proposal.
    `proposed` counts the texts of all proposals, `pure` those that are what most of their proposal is, `wrong` the ordinary ones;
    `examples` and `wrong_examples` likewise; `strange` are proposals that are mostly of no hidden domain."""

    recall: Mapping[str, float | None]
    proposals: int
    proposed: int
    pure: int
    wrong: int
    examples: int
    wrong_examples: int
    strange: int


class Bench:
    def __init__(self) -> None:
        self.router = Router.load(load_experts(ROOT / "experts.yaml"), PACKAGED)
        self.known = background_of(self.router)
        self.unknown = self.known.without(sorted({t for d in HIDDEN for t in TOPICS[d] | BORDER[d]}))
        own = [row for row in read_rows(OWN_SET) if row.part in ("plain", "")]
        held = [row for row in load_corpus() if row.held_out and len(row.turns) < 2]
        some = np.random.default_rng(0).permutation(len(held))[:LARGE]
        self.ordinary = {
            OWN: Texts.read(self.router, own),
            HELD_OUT: Texts.read(self.router, [held[i] for i in sorted(some)]),
        }
        self.hidden = {
            domain: Texts.read(
                self.router, [Row(p, domain) for split in ("example", "test") for p in prompts_of(domain, split)]
            )
            for domain in HIDDEN
        }

    def found(self, ordinary: str, size: int, seed: int, background: Background, join: Join = by_average) -> Found:
        """With `size` prompts of each hidden domain among the ordinary ones."""
        rng = np.random.default_rng([size, seed])
        parts = [(texts, texts.drawn(size, rng)) for texts in self.hidden.values()]
        parts.append((self.ordinary[ordinary], np.arange(len(self.ordinary[ordinary].labels))))
        vectors = np.concatenate([texts.pool.vectors[places] for texts, places in parts])
        labels = np.concatenate([texts.labels[places] for texts, places in parts])
        said = [texts.pool.domains[i] for texts, places in parts for i in places]
        words = [texts.pool.texts[i] for texts, places in parts for i in places]
        clusters = [cluster.members for cluster in clustered(vectors, said, background, join)]
        return _judged(clusters, labels, words, vectors)

    def proposals_of_nothing(self, size: int, seed: int) -> int:
        """How many domains are proposed where so many general prompts of the corpus are the traffic, against the rest of it."""
        general = np.flatnonzero(self.known.domains == "general")
        drawn = np.random.default_rng([size, seed]).permutation(general)[:size]
        left = np.ones(len(self.known.texts), dtype=bool)
        left[drawn] = False
        texts = tuple(text for text, kept in zip(self.known.texts, left, strict=True) if kept)
        rest = Background(texts, self.known.vectors[left], self.known.domains[left], self.known.topics[left])
        return len(clustered(self.known.vectors[drawn], ["general"] * size, rest))


def _judged(
    clusters: Sequence[NDArray[np.intp]], labels: NDArray[np.str_], texts: Sequence[str], vectors: Floats
) -> Found:
    whole, right = Counter(labels.tolist()), Counter[str]()
    examples: list[str] = []
    strange = pure = 0
    for members in clusters:
        most, count = Counter(labels[members].tolist()).most_common(1)[0]
        examples += [labels[members[i]] for i in chosen([texts[m] for m in members], vectors[members])]
        strange += most not in HIDDEN
        pure += count
        if most in HIDDEN and count > len(members) / 2:
            right[most] += count
    proposed = [label for members in clusters for label in labels[members]]
    return Found(
        {domain: right[domain] / whole[domain] if right[domain] else None for domain in HIDDEN},
        len(clusters),
        len(proposed),
        pure,
        proposed.count("ordinary"),
        len(examples),
        examples.count("ordinary"),
        strange,
    )


def row_of(name: str, some: Sequence[Found]) -> str:
    """A row of the table: over draws, how often the hidden domains were found, how much of them, and what was wrong."""
    recalls = [recall for found in some for recall in found.recall.values()]
    there = [recall for recall in recalls if recall is not None]
    proposed, examples = sum(f.proposed for f in some), sum(f.examples for f in some)
    cells = (
        name,
        f"{len(there)} of {len(recalls)}",
        f"{np.mean(there):.0%}" if there else "–",
        f"{sum(f.proposals for f in some) / len(some):.1f}",
        f"{sum(f.pure for f in some) / proposed:.0%}" if proposed else "–",
        f"{sum(f.wrong for f in some) / proposed:.0%}" if proposed else "–",
        f"{sum(f.wrong_examples for f in some)} of {examples}" if examples else "–",
        f"{sum(f.strange for f in some)}",
    )
    return f"| {' | '.join(cells)} |"


def measured(bench: Bench, draws: int) -> Iterator[str]:
    head = " | ".join(HEAD)
    for ordinary, texts in bench.ordinary.items():
        size = len(texts.labels)
        yield f"Among the {size} texts of the {ordinary} that no specialist answers, {draws} draws:"
        yield ""
        yield f"| hidden, of legal and of finance each | {head} |"
        yield "|---|" + "---:|" * len(HEAD)
        for hidden in (0, *SIZES):
            times = draws if hidden else 1
            yield row_of(str(hidden), [bench.found(ordinary, hidden, seed, bench.known) for seed in range(times)])
        for hidden in SIZES:
            found = [bench.found(ordinary, hidden, seed, bench.unknown) for seed in range(draws)]
            yield row_of(f"{hidden}, unknown to the corpus", found)
        yield ""
    nothing = [bench.proposals_of_nothing(size, seed) for size in NOTHING for seed in range(2)]
    sizes = ", ".join(f"{size:,}" for size in NOTHING)
    yield f"Of {sizes} general prompts of the corpus against the rest of it, two draws each: {sum(nothing)} proposals."
    yield ""
    yield f"Ways to cluster, 60 hidden of each in the {OWN}, {draws} draws:"
    yield ""
    yield f"| way | {head} |"
    yield "|---|" + "---:|" * len(HEAD)
    for name, join in METHODS.items():
        yield row_of(name, [bench.found(OWN, 60, seed, bench.known, join) for seed in range(draws)])


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--draws", type=int, default=5, help="of hidden prompts, over which figures are taken")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    args = parser.parse_args(arguments)
    figures = "\n".join(measured(Bench(), args.draws)).strip()
    print(figures)
    if args.write:
        before, _, rest = PAGE.read_text("utf-8").partition(START)
        PAGE.write_text(f"{before}{START}\n\n{figures}\n\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
