"""Neighbours: the training prompts that are nearest to a text in an encoder's space."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.dataset import Example, Row, examples_of
from router.errors import ArtifactError, CorpusError, RouterError
from router.experts import BUILT_IN_DOMAINS
from router.vectors import Vectors, key_of

COUNT = 5


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training prompt; `similarity` is the cosine of its vector and the text's, in [-1, 1]."""

    similarity: float
    domain: str
    language: str
    text: str


class Neighbours:
    """`vectors` and `rows` give the trained vectors and the training rows. They are called once, when first needed, from
    any thread; that they fail is remembered as well."""

    def __init__(self, vectors: Callable[[], Vectors], rows: Callable[[], Sequence[Row]]) -> None:
        self._load_vectors, self._load_rows = vectors, rows
        self._lock = threading.Lock()
        self._learned: _Learned | str | None = None  # text: why there is nothing

    def nearest(self, encoder: str, vector: NDArray[np.float32], count: int = COUNT) -> list[Neighbour]:
        """The nearest first, at most `count`; `vector` (dimensions,) is the text's by the encoder so named.

        Takes some 20 ms, and a second the first time. Raises RouterError saying why where they are not known.
        """
        return self._known().nearest(encoder, vector, count)

    def _known(self) -> _Learned:
        with self._lock:
            if self._learned is None:
                self._learned = self._loaded()
        if isinstance(self._learned, str):
            raise RouterError(self._learned)
        return self._learned

    def _loaded(self) -> _Learned | str:
        """Says nothing of folders: whoever asks for an explanation need not know where things are."""
        try:
            return _Learned.of(self._load_vectors(), self._load_rows()) or "none of the texts it was trained on is here"
        except ArtifactError:
            return "the file of their vectors is missing or damaged; run: moe-gateway train"
        except CorpusError:
            return "the training prompts themselves are missing or damaged"


@dataclass(frozen=True)
class _Learned:
    """The examples that were trained on, and the row of `vectors` of each."""

    vectors: Vectors
    examples: list[Example]
    places: NDArray[np.intp]

    @staticmethod
    def of(vectors: Vectors, rows: Sequence[Row]) -> _Learned | None:
        """None where none of the rows is known. Keys are hashes of texts, which are looked for among the rows'."""
        places = {int(key): place for place, key in enumerate(vectors.keys)}
        examples: dict[int, Example] = {}
        for row in rows:
            for example in examples_of(row):
                place = places.get(key_of(example.text))
                if place is not None and _was_trained_on(example):
                    examples.setdefault(place, example)
        if not examples:
            return None
        return _Learned(vectors, list(examples.values()), np.array(list(examples), dtype=np.intp))

    def nearest(self, encoder: str, vector: NDArray[np.float32], count: int) -> list[Neighbour]:
        try:
            table = self.vectors.table(encoder)[self.places]
        except KeyError:
            raise RouterError(f"no vectors of the encoder {encoder} are kept") from None
        lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(vector)
        cosines = (table @ vector) / np.maximum(lengths, 1e-12)
        first = np.argsort(-cosines, kind="stable")[:count]
        return [_neighbour(float(cosines[i]), self.examples[i]) for i in first]


def _neighbour(similarity: float, example: Example) -> Neighbour:
    domain = max(example.shares, key=example.shares.__getitem__)
    return Neighbour(max(-1.0, min(1.0, similarity)), domain, example.language, example.text)


def _was_trained_on(example: Example) -> bool:
    """What is held out is measured on, not learned from; of an added domain nothing is held out."""
    return not example.held_out or any(domain not in BUILT_IN_DOMAINS for domain in example.shares)
