"""Suggestion: a domain that the traffic calls for, with the lines for experts.yaml."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.cataloguing.catalog import Catalog
from router.cataloguing.draft import Draft, domain_lines
from router.experts import LEAST_EXAMPLES, LISTED_QUALITY, RESERVED_IDS, VIRTUAL_MODELS, ExpertsFile
from router.suggesting.clusters import Cluster, clustered
from router.suggesting.examples import chosen
from router.suggesting.matching import Match, matching
from router.suggesting.naming import named, telling
from router.suggesting.pool import Background, Pool

LEAST_POOL = 30  # texts, of fewer nothing can be said
PLACE = "http://127.0.0.1:8001/v1"  # of a server that the operator has to start


@dataclass(frozen=True)
class Suggestion:
    """`members` are places in the pool's texts, those nearest to the centre first, `examples` those of them that are to be pasted.
    `requests` counts repetitions too; `lift` is how many times as frequent it is as in the corpus."""

    name: str
    terms: tuple[str, ...]
    members: tuple[int, ...]
    examples: tuple[str, ...]
    requests: int
    lift: float
    languages: Mapping[str, int]
    expert: str
    match: Match | None
    fallback: str

    @property
    def description(self) -> str:
        return ", ".join(self.terms)

    def domain_lines(self) -> list[str]:
        """The entry under `domains:`, its key at no indentation."""
        return domain_lines(self.name, self.description, self.examples)

    def expert_lines(self) -> list[str]:
        """The entry under `experts:`, its key at no indentation."""
        model = self.match.model if self.match else None
        return Draft(
            expert=self.expert,
            model=model.name if model else "your-org/your-model",
            domains={self.name: LISTED_QUALITY},
            about=self._about(),
            url=PLACE,
            price=model.price if model else None,
            context=model.context if model else None,
            fallbacks=(self.fallback,),
        ).lines()

    def _about(self) -> str:
        if self.match is None:
            return "No model of the catalogue is as small as asked for: name one of yours."
        served = f"How it is served: moe-gateway experts add {self.match.key} --dry-run"
        if self.match.task is not None:
            return served
        measured = "or measure this generalist with moe-gateway compare before you believe its quality"
        return f"No model of the catalogue is made for this: name a specialist of yours, {measured}. {served}"

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        match = self.match
        return {
            "name": self.name,
            "terms": list(self.terms),
            "prompts": len(self.members),
            "requests": self.requests,
            "lift": round(self.lift, 2),
            "languages": dict(self.languages),
            "examples": list(self.examples),
            "model": None
            if match is None
            else {"id": match.key, "name": match.model.name, "task": match.task, "why": match.why},
        }


def suggestions(
    pool: Pool, background: Background, file: ExpertsFile, catalog: Catalog, max_gb: float
) -> list[Suggestion]:
    """The domains that `pool` calls for, the largest first; none where it is too small or like the corpus.

    A cluster of which too few prompts are fit to be examples is left out. Models are those that need at most so many GB.
    """
    if len(pool.texts) < LEAST_POOL:
        return []
    clusters = clustered(pool.vectors, pool.domains, background)
    writer = _Writer(pool, background, file, catalog, max_gb, clusters)
    return [found for cluster in clusters if (found := writer.suggestion(cluster)) is not None]


class _Writer:
    """Makes suggestions of clusters; no two have the same name."""

    def __init__(
        self,
        pool: Pool,
        background: Background,
        file: ExpertsFile,
        catalog: Catalog,
        max_gb: float,
        clusters: Sequence[Cluster],
    ) -> None:
        self._pool, self._background, self._catalog, self._max_gb = pool, background, catalog, max_gb
        self._fallback = file.fallback
        self._domains = {*file.domain_names, *RESERVED_IDS}
        self._experts = {*file.experts, *file.aliases, *VIRTUAL_MODELS, *RESERVED_IDS}
        inside = {place for cluster in clusters for place in cluster.members.tolist()}
        self._others = [text for place, text in enumerate(pool.texts) if place not in inside]

    def suggestion(self, cluster: Cluster) -> Suggestion | None:
        """None where too few of its prompts are fit to be examples."""
        pool, members = self._pool, cluster.members.tolist()
        texts = [pool.texts[place] for place in members]
        examples = [texts[i] for i in chosen(texts, pool.vectors[cluster.members])]
        if len(examples) < LEAST_EXAMPLES:
            return None
        languages = [pool.languages[place] for place in members]
        terms = telling(texts, [*self._others, *self._elsewhere(cluster)])
        name, expert = self._names(cluster, terms)
        nearest = self._background.domains[cluster.neighbours].tolist()
        return Suggestion(
            name=name,
            terms=tuple(terms),
            members=tuple(members),
            examples=tuple(examples),
            requests=sum(pool.counts[place] for place in members),
            lift=cluster.lift,
            languages=dict(Counter(filter(None, languages)).most_common()),
            expert=expert,
            match=matching(self._catalog, [name, *terms], nearest, languages, self._max_gb),
            fallback=self._fallback,
        )

    def _elsewhere(self, cluster: Cluster) -> list[str]:
        """The corpus less the topic that the cluster lies in, whose words are the cluster's."""
        around = Counter(filter(None, self._background.topics[cluster.neighbours].tolist()))
        own = max(around, key=around.__getitem__, default=None)
        rows = zip(self._background.texts, self._background.topics.tolist(), strict=True)
        return [text for text, topic in rows if topic != own]

    def _names(self, cluster: Cluster, terms: Sequence[str]) -> tuple[str, str]:
        """Of the domain and of its expert."""
        topics = [topic for topic in self._background.topics[cluster.neighbours].tolist() if topic]
        name = named(terms, topics, self._domains)
        ids = (name, *(f"{name}-{number}" for number in range(2, len(self._experts) + 3)))
        expert = next(one for one in ids if one not in self._experts)
        self._domains.add(name)
        self._experts.add(expert)
        return name, expert
