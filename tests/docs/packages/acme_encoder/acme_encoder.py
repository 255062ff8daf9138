"""acme_encoder: texts as counts of their words."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class WordEncoder:
    """A place for each word, by its checksum; Python's own hash differs from process to process."""

    name = "acme-words"
    dimensions = 256

    def __init__(self, folder: Path) -> None:
        """`folder` is in the trained router and has nothing in it but encoder.json."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in text.lower().split() or [""]:
                vector[zlib.crc32(word.encode("utf-8", "replace")) % self.dimensions] += 1
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit
