"""Pool: the prompts that no specialist answers, each text once, and the corpus that they are seen against."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.conversation import clip, routed_text
from router.dataset import Row, training_rows
from router.decision import Decision
from router.experts import ExpertsFile
from router.rerouting import CHUNK, Prompt
from router.routing import Router

MOST_TEXTS = 4000  # that are clustered: it takes memory and time by their square
UNSURE = "low_confidence"

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pool:
    """`texts` are those that are clustered, each with how often it came, its vector, shape (texts, dimensions), its most probable
    domain and its language. Of `prompts` that were looked at, `unanswered` came to the fallback expert or left the router unsure:
    of those `unread` are in languages that the encoder cannot read, by language, and `noise` are no text at all. `left_out` are
    texts beyond MOST_TEXTS, the oldest."""

    texts: tuple[str, ...]
    counts: tuple[int, ...]
    vectors: Floats
    domains: tuple[str, ...]
    languages: tuple[str, ...]
    prompts: int
    unanswered: int
    unread: Mapping[str, int]
    noise: int
    left_out: int

    def described(self) -> dict[str, Any]:
        """As JSON has it; no text is in it."""
        return {
            "prompts": self.prompts,
            "unanswered": self.unanswered,
            "texts": len(self.texts),
            "noise": self.noise,
            "unread": dict(self.unread),
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class Background:
    """What the router was trained on, a text a row: vectors, shape (rows, dimensions), their labels and finer topics."""

    texts: tuple[str, ...]
    vectors: Floats
    domains: NDArray[np.str_]
    topics: NDArray[np.str_]

    def without(self, topics: Sequence[str]) -> Background:
        """Less the rows of those topics."""
        kept = ~np.isin(self.topics, list(topics))
        texts = tuple(text for text, keep in zip(self.texts, kept, strict=True) if keep)
        return Background(texts, self.vectors[kept], self.domains[kept], self.topics[kept])


def gather(router: Router, prompts: Sequence[Prompt], progress: Progress) -> Pool:
    """Route every prompt and read those that no specialist answers with the router's best encoder."""
    found: dict[str, tuple[str, int, Decision]] = {}
    unread: Counter[str] = Counter()
    noise = unanswered = 0
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        for prompt, decision in zip(chunk, router.decide_many([p.query for p in chunk]), strict=True):
            if not isinstance(decision, Decision) or not _is_unanswered(decision, router.file):
                continue
            unanswered += 1
            scores = decision.scores
            if scores is None or decision.doubt == "out_of_distribution":
                noise += 1
            elif decision.doubt == "unreadable_language":
                unread[scores.language] += 1
            else:
                text = routed_text((*prompt.query.earlier, prompt.query.text))
                key = _alike(text)
                count = found.pop(key, ("", 0, decision))[1]  # the newest stands last
                found[key] = (text, count + 1, decision)
        progress("routing", min(start + CHUNK, len(prompts)), len(prompts))
    kept = list(found.values())[-MOST_TEXTS:]
    texts = tuple(text for text, _, _ in kept)
    return Pool(
        texts,
        tuple(count for _, count, _ in kept),
        _read(router, texts, progress),
        tuple(d.scores.domain if d.scores else "" for _, _, d in kept),
        tuple(d.scores.language if d.scores else "" for _, _, d in kept),
        len(prompts),
        unanswered,
        dict(unread.most_common()),
        noise,
        len(found) - len(kept),
    )


def background_of(router: Router) -> Background:
    """The single prompts of the corpus, and the examples of the file, as the router's artifact keeps them."""
    kept = router.artifact.vectors()
    encoder = router.artifact.stages[-1].encoder.name
    rows = [row for row in training_rows(router.file) if len(row.turns) < 2]
    places = kept.find(encoder, [row.text for row in rows])
    there: list[tuple[Row, int]] = [(row, place) for row, place in zip(rows, places, strict=True) if place is not None]
    return Background(
        tuple(row.text for row, _ in there),
        kept.table(encoder)[[place for _, place in there]],
        np.array([row.domain for row, _ in there]),
        np.array([row.topic for row, _ in there]),
    )


def _is_unanswered(decision: Decision, file: ExpertsFile) -> bool:
    """Whether no specialist answers it, or one of its language alone, while the router is unsure what it is about."""
    return decision.expert == file.fallback or decision.reason == UNSURE


def _alike(text: str) -> str:
    """What texts have in common that differ in case, spaces and figures alone, as those that a program sends do."""
    return re.sub(r"\d+", "0", " ".join(text.casefold().split()))


def _read(router: Router, texts: Sequence[str], progress: Progress) -> Floats:
    encoder = router.artifact.stages[-1].encoder
    parts = [np.zeros((0, encoder.dimensions), dtype=np.float32)]
    for start in range(0, len(texts), CHUNK):
        parts.append(encoder.encode([clip(text) for text in texts[start : start + CHUNK]]))
        progress("reading what no specialist answers", min(start + CHUNK, len(texts)), len(texts))
    return np.concatenate(parts)
