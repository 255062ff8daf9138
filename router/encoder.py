"""Encoders: text to vectors of length 1. Serving needs NumPy, tokenizers and ONNX Runtime, never torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.extensions import Registry
from router.ngrams import ngram_rows

MAX_TOKENS = 128  # that a transformer reads of a text
FILES = ("model.onnx", "tokenizer.json", "encoder.json")  # of an exported transformer
UNKNOWN = "[UNK]"  # the token of what a tokenizer does not know
SHARPNESS = 6.0  # of the hidden layer's input, which has length 1
_HALF = math.sqrt(0.5)  # the length of each half of a static vector

Floats = NDArray[np.float32]


class Encoder(Protocol):
    """`name` is the model's; `dimensions` the width of a vector."""

    name: str
    dimensions: int

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row a text, shape (len(texts), dimensions), each of Euclidean length 1. Safe to call from any thread."""


class TransformerEncoder:
    """A sentence-transformers model exported to ONNX (see export.py): a folder holding FILES.

    Raises ArtifactError where the folder does not hold a working encoder.
    """

    FILES = FILES

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        try:
            about = json.loads((folder / "encoder.json").read_text("utf-8"))
            self.name = str(about["name"])
            self.dimensions = int(about["dimensions"])
            self._tokenizer = _tokenizer(folder, int(about["max_tokens"]))
            options = onnxruntime.SessionOptions()
            # A text is a few milliseconds of work: the other cores are better used by the event loop and its neighbours.
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ArtifactError(f"the encoder in {folder} cannot be loaded: {error}") from error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for i, encoded in enumerate(self._tokenizer.encode_batch([_encodable(t) for t in texts])):
            # One by one: the 8-bit arithmetic scales over a whole batch, so that in company a text would get another
            # vector (cosine down to 0.97 was seen), and on a CPU a batch is no faster.
            ids = np.array([encoded.ids], dtype=np.int64)
            (vectors,) = self._session.run(["sentence_vector"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
            out[i] = vectors[0]
        return out


class StaticEncoder:
    """A table of n-grams and one small layer instead of a transformer: a tenth of a millisecond a text. A folder holding FILES.

    With s = Σ table[row] over the text's n-grams (ngrams.py), brought to length 1, and h = max(0, hidden · SHARPNESS · s +
    bias), brought to length 1, the vector is (s, h) / √2. The table is kept as 8-bit whole numbers with one scale a row.
    Raises ArtifactError where the folder does not hold a working encoder.
    """

    FILES = ("table.npz", "encoder.json")

    def __init__(self, folder: Path) -> None:
        try:
            about = json.loads((folder / "encoder.json").read_text("utf-8"))
            self.name = str(about["name"])
            self.dimensions = int(about["dimensions"])
            with (folder / "table.npz").open("rb") as file, np.load(file, allow_pickle=False) as table:
                self._table = _Rows(table["ngrams"], table["ngrams_scale"])
                self._hidden = np.ascontiguousarray(table["hidden"].T * (SHARPNESS / _HALF), dtype=np.float32)
                self._bias = table["bias"].astype(np.float32)
            if self._table.rows & (self._table.rows - 1) or self._table.rows < 2:
                raise ValueError(f"its table has {self._table.rows} rows, not a power of two")
            fitting = self._hidden.shape[0] == self._table.width and self._bias.shape == self._hidden.shape[1:]
            if not fitting or self.dimensions != sum(self._hidden.shape):
                raise ValueError("its tables do not fit together")
        except Exception as error:
            raise ArtifactError(f"the encoder in {folder} cannot be loaded: {error}") from error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for i, text in enumerate(texts):
            out[i] = self._vector(text)
        return out

    def _vector(self, text: str) -> Floats:
        """The vector of one text, shape (dimensions,): for so little, few and simple operations are the quickest."""
        total = self._table.sum(ngram_rows(text, self._table.rows))
        total *= _HALF / max(math.sqrt(total @ total), 1e-12)
        hidden = total @ self._hidden
        hidden += self._bias
        np.maximum(hidden, 0, out=hidden)
        hidden *= _HALF / max(math.sqrt(hidden @ hidden), 1e-12)
        return np.concatenate((total, hidden))


class _Rows:
    """A table of vectors as 8-bit whole numbers, each row with a scale of its own."""

    def __init__(self, table: NDArray[np.int8], scale: NDArray[np.floating]) -> None:
        if table.dtype != np.int8 or scale.shape != (len(table),):
            raise ValueError("a table is not what it should be")
        self._table, self._scale = table, scale.astype(np.float32)
        self.rows, self.width = table.shape

    def sum(self, rows: NDArray[np.int64]) -> Floats:
        """The sum of the vectors at `rows`, shape (width,)."""
        return np.asarray(self._scale.take(rows) @ self._table.take(rows, axis=0).astype(np.float32))


def quantised(vectors: Floats) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """`vectors`, shape (rows, width), as 8-bit whole numbers and a scale a row, shape (rows,)."""
    scale = (np.abs(vectors).max(axis=1) / 127).astype(np.float16)
    safe = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.clip(np.rint(vectors / safe[:, None]), -127, 127).astype(np.int8), scale


def restored(table: NDArray[np.int8], scale: NDArray[np.floating]) -> Floats:
    """What `quantised` was given, as far as 8 bits hold it."""
    return np.asarray(table.astype(np.float32) * scale.astype(np.float32)[:, None])


def _tokenizer(folder: Path, max_tokens: int) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.no_padding()
    return tokenizer


def _encodable(text: str) -> str:
    """JSON may carry half of a surrogate pair, which the tokenizer's UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


ENCODERS: Registry[Callable[[Path], Encoder]] = Registry(
    "moe_gateway.encoders", {"static": StaticEncoder, "transformer": TransformerEncoder}
)
