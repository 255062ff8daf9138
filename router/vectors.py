"""Vectors: what the encoders made of the training texts, so that retraining takes seconds and neighbours can be shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.encoder import quantised, restored

Floats = NDArray[np.float32]


class Vectors:
    """`keys` (texts,) are 64-bit hashes of the texts; each encoder's table is kept in 8 bits, one scale a row."""

    def __init__(
        self, keys: NDArray[np.uint64], tables: Mapping[str, tuple[NDArray[np.int8], NDArray[np.floating]]]
    ) -> None:
        if any(len(table) != len(keys) or len(scale) != len(keys) for table, scale in tables.values()):
            raise ValueError("keys and tables do not fit")
        self.keys, self._tables = keys, dict(tables)
        self._rows = {int(key): row for row, key in enumerate(keys)}

    @staticmethod
    def of(texts: Sequence[str], by_encoder: Mapping[str, Floats]) -> Vectors:
        """The vectors of `texts`, shape (len(texts), dimensions) for each encoder's name."""
        return Vectors(
            np.array([key_of(text) for text in texts], dtype=np.uint64),
            {name: quantised(vectors) for name, vectors in by_encoder.items()},
        )

    def table(self, encoder: str) -> Floats:
        """Every vector of the encoder so named, shape (texts, dimensions), as far as 8 bits hold it."""
        return restored(*self._tables[encoder])

    def find(self, encoder: str, texts: Sequence[str]) -> list[int | None]:
        """The row of each text, None where it is not here."""
        if encoder not in self._tables:
            return [None] * len(texts)
        return [self._rows.get(key_of(text)) for text in texts]

    def arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"keys": self.keys}
        for name, (table, scale) in self._tables.items():
            arrays[f"{name}.table"], arrays[f"{name}.scale"] = table, scale
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Vectors:
        names = [name.removesuffix(".table") for name in arrays if name.endswith(".table")]
        return Vectors(arrays["keys"], {n: (arrays[f"{n}.table"], arrays[f"{n}.scale"]) for n in names})


def key_of(text: str) -> int:
    """Names a text: the first 64 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")
