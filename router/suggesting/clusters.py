"""Clusters: what traffic has more of than the corpus that the router learnt from, in vectors of its encoder.

The traffic alone always has clusters: general prompts are about cooking, travel, history. A domain is worth its own expert where
the traffic has much more of it than the corpus does. Vectors are taken less the corpus's mean, in the traffic's mix of domains, and
brought to length 1. Texts are then joined by average linkage (Sokal and Michener 1958) as long as they are on average more alike
than all but a share of random pairs of the corpus, so that no distance has to be set for an encoder.

A cluster is kept where texts as near to its centre as KEPT of its own are LEAST_LIFT times as frequent as in the corpus, and chance
alone would hardly make them so (a Poisson tail). docs/domains-suggest.md has what other ways found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.suggesting.pool import Background, Floats

LEAST_TEXTS = 10  # of a cluster: as many examples as a domain should have
TIGHT = 0.9  # the share of random pairs that texts of one cluster have to be more alike than
KEPT = 0.75
LEAST_LIFT = 1.5
CHANCE = 1e-3
LEAST_EXPECTED = 0.5  # texts: what is nowhere in the corpus is not taken to be impossible
PAIRS = 20_000
NEIGHBOURS = 50


@dataclass(frozen=True)
class Cluster:
    """`members` are places in the traffic, those nearest to the centre first. `lift` is how many times as frequent its texts are as
    in the corpus; `neighbours` are the places of the corpus's rows that are nearest to its centre."""

    members: NDArray[np.intp]
    lift: float
    neighbours: NDArray[np.intp]


# Labels of directions, shape (texts, dimensions), that are at least so much alike; -1 for those of no cluster.
Join = Callable[[Floats, float], NDArray[np.intp]]


def by_average(directions: Floats, least: float) -> NDArray[np.intp]:
    """Average linkage, as long as the mean cosine of two parts is not below `least`."""
    from sklearn.cluster import AgglomerativeClustering

    join = AgglomerativeClustering(n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - least)
    return np.asarray(join.fit_predict(directions))


def clustered(
    vectors: Floats, domains: Sequence[str], background: Background, join: Join = by_average
) -> list[Cluster]:
    """The clusters of texts, the largest first: `vectors` has shape (texts, dimensions), `domains` are their most probable ones."""
    weights = _weights(domains, background)
    used = np.flatnonzero(weights)
    if len(vectors) < LEAST_TEXTS or not len(used):
        return []
    corpus, weights = background.vectors[used], weights[used]
    middle = (weights @ corpus).astype(np.float32)
    space = _Space(_directions(vectors - middle), _directions(corpus - middle), weights)
    labels = join(space.traffic, space.likeness(TIGHT))
    parts = [members for members in _parts(labels) if len(members) >= LEAST_TEXTS and space.is_more(members)]
    clusters = [space.cluster(members, used) for members in space.joined(parts, background.topics[used])]
    return sorted(clusters, key=lambda cluster: -len(cluster.members))


def _weights(domains: Sequence[str], background: Background) -> NDArray[np.float64]:
    """What each row of the corpus counts, so that its domains are mixed as the traffic's are; shape (rows,), sum 1 or 0."""
    weights = np.zeros(len(background.vectors))
    for domain, count in Counter(domains).items():
        own = background.domains == domain
        if own.any():
            weights[own] = count / own.sum()
    return np.asarray(weights / max(weights.sum(), 1e-12))


def _parts(labels: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """The places of each label but -1."""
    return (np.flatnonzero(labels == label) for label in range(labels.max() + 1))


def _directions(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), dtype=np.float32)


@dataclass(frozen=True)
class _Space:
    """Directions of the traffic and of the corpus, and what each row of the corpus counts."""

    traffic: Floats
    corpus: Floats
    weights: NDArray[np.float64]

    def likeness(self, share: float) -> float:
        """The cosine that this share of random pairs of the corpus stays below; the same in every run."""
        rng = np.random.default_rng(0)
        one, other = rng.choice(len(self.corpus), size=(2, PAIRS), p=self.weights)
        return float(np.quantile(np.einsum("ij,ij->i", self.corpus[one], self.corpus[other]), share))

    def is_more(self, members: NDArray[np.intp]) -> bool:
        """Whether there is more of it than in the corpus, and not by chance."""
        from scipy.stats import poisson

        near, expected = self._counted(members)
        return near >= LEAST_LIFT * expected and bool(poisson.sf(near - 1, expected) < CHANCE)

    def _counted(self, members: NDArray[np.intp]) -> tuple[int, float]:
        """How many of its texts are near to its centre, and how many would be if the traffic were like the corpus."""
        own = self._own(members)
        reach = np.quantile(own, 1 - KEPT)
        share = self.weights[self._to_centre(self.corpus, members) >= reach].sum()
        return int((own >= reach).sum()), max(LEAST_EXPECTED, len(self.traffic) * float(share))

    def _own(self, members: NDArray[np.intp]) -> Floats:
        """How near each member is to the centre of the others."""
        vectors = self.traffic[members]
        whole = vectors.sum(axis=0)
        return np.asarray((vectors @ whole - np.einsum("ij,ij->i", vectors, vectors)) / max(1, len(members) - 1))

    def _to_centre(self, vectors: Floats, members: NDArray[np.intp]) -> Floats:
        return np.asarray(vectors @ self.traffic[members].mean(axis=0))

    def joined(self, parts: Sequence[NDArray[np.intp]], topics: NDArray[np.str_]) -> list[NDArray[np.intp]]:
        """Parts that lie in the same topic of the corpus are one; `topics` has one for each of its rows."""
        found: dict[str | int, list[NDArray[np.intp]]] = {}
        for number, members in enumerate(parts):
            topic, count = Counter(topics[self._neighbours(members)].tolist()).most_common(1)[0]
            found.setdefault(topic if topic and count > NEIGHBOURS / 2 else number, []).append(members)
        return [np.concatenate(members) for members in found.values()]

    def cluster(self, members: NDArray[np.intp], used: NDArray[np.intp]) -> Cluster:
        """`used` are the places, in the whole corpus, of the rows that are here."""
        nearest = np.argsort(-self._to_centre(self.traffic[members], members), kind="stable")
        near, expected = self._counted(members)
        return Cluster(members[nearest], near / expected, used[self._neighbours(members)])

    def _neighbours(self, members: NDArray[np.intp]) -> NDArray[np.intp]:
        """The places of the corpus's rows that are nearest to the centre."""
        return np.argsort(-self._to_centre(self.corpus, members), kind="stable")[:NEIGHBOURS]
