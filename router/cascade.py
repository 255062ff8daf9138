"""Cascade: a cheap stage answers where it is sure, and the next one reads what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.calibration import TINY, Calibrator
from router.classifier import Head
from router.decision import Doubt, Scores
from router.decision import Stage as StageName
from router.detectors import Detectors
from router.encoder import Encoder, TransformerEncoder

# The languages that a cheap stage may answer for. It learned others too, and what it says of them counts, but it errs twice
# as often there, at the same confidence. What has no language is short, code or formulas.
FLUENT = frozenset({"en", ""})

Probabilities = NDArray[np.float64]
Language = Callable[[str], str]
DoubtOf = Callable[[str, str], Doubt | None]


@dataclass(frozen=True)
class Stage:
    """One classifier: text to vector to logits to calibrated probabilities. It is sure from the confidence `sure` on, in a
    language that is FLUENT.

    `blend` is how much what the stage before it says counts beside its own logits, 0 to 1: two readers err less than one.
    """

    name: StageName
    encoder: Encoder
    head: Head
    calibrator: Calibrator
    detectors: Detectors
    sure: float = 0.0
    blend: float = 0.0

    def probabilities(self, texts: Sequence[str], before: Probabilities | None = None) -> Probabilities:
        """Shape (len(texts), domains), each row summing to 1; `before` is the same by the stage before, where there is one."""
        return self.of_vectors(self.encoder.encode(texts), before)

    def of_vectors(self, vectors: NDArray[np.float32], before: Probabilities | None = None) -> Probabilities:
        """The same for vectors that are there already, shape (rows, dimensions)."""
        return self.detectors.extended(self.calibrator.probabilities(self.logits(vectors, before)), vectors)

    def logits(self, vectors: NDArray[np.float32], before: Probabilities | None = None) -> NDArray[np.floating]:
        """What is calibrated, of the domains that the head knows: shape (rows, those domains)."""
        own = self.head.logits(vectors)
        if before is None or not self.blend:
            return own
        said = before[:, : own.shape[1]]  # less what a detector found
        said = said / np.maximum(said.sum(axis=1, keepdims=True), TINY)
        return np.asarray((1 - self.blend) * own + self.blend * np.log(np.maximum(said, TINY)))


class Cascade:
    """Stages from the cheapest to the best, over the same domains. Calls are safe from any thread.

    `language_of` names a text's language and `doubt_of` says why a text cannot be judged at all (see language.py).
    """

    def __init__(
        self,
        domains: Sequence[str],
        stages: Sequence[Stage],
        language_of: Language = lambda text: "",
        doubt_of: DoubtOf = lambda text, language: None,
    ) -> None:
        self.domains, self.stages = tuple(domains), tuple(stages)
        self._language_of, self._doubt_of = language_of, doubt_of

    def quick(self, text: str) -> Scores | None:
        """The scores where the first stage is sure or nothing can be known, else None. Takes a fraction of a millisecond.

        None as well where the first stage is a transformer, alone or as the cheap one: it would hold up an event loop.
        """
        first = self.stages[0]
        if first.name == "transformer" or isinstance(first.encoder, TransformerEncoder):
            return None
        language = self._language_of(text)
        doubt = self._doubt_of(text, language)
        may_pass = doubt is None and len(self.stages) > 1
        if may_pass and language not in FLUENT:
            return None
        (row,) = first.probabilities([text]).tolist()
        if may_pass and max(row) < first.sure:
            return None
        return Scores(dict(zip(self.domains, row, strict=True)), first.name, doubt, language)

    def score_many(self, texts: Sequence[str]) -> list[Scores]:
        """The scores of every text, each from the first stage that is sure of it; a text in doubt goes no further."""
        languages = [self._language_of(text) for text in texts]
        doubts = [self._doubt_of(text, language) for text, language in zip(texts, languages, strict=True)]
        rows: dict[int, tuple[list[float], StageName]] = {}
        left = list(range(len(texts)))
        before: Probabilities | None = None
        for stage in self.stages:
            if not left:
                break
            found = stage.probabilities([texts[i] for i in left], before)
            rows.update((i, (row, stage.name)) for i, row in zip(left, found.tolist(), strict=True))
            if stage is self.stages[-1]:
                break
            unsure = found.max(axis=1) < stage.sure
            unsure |= [languages[i] not in FLUENT for i in left]
            unsure &= [doubts[i] is None for i in left]
            left, before = [i for i, further in zip(left, unsure, strict=True) if further], found[unsure]
        return [
            Scores(dict(zip(self.domains, rows[i][0], strict=True)), rows[i][1], doubts[i], languages[i])
            for i in range(len(texts))
        ]
