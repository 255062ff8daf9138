"""Encoders: text to vectors of length 1. Serving needs ONNX Runtime and tokenizers, never torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError

MAX_TOKENS = 128
BATCH = 32
FILES = ("model.onnx", "tokenizer.json", "encoder.json")


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

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        try:
            about = json.loads((folder / "encoder.json").read_text("utf-8"))
            self.name = str(about["name"])
            self.dimensions = int(about["dimensions"])
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._tokenizer.enable_truncation(max_length=int(about["max_tokens"]))
            self._tokenizer.no_padding()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or min(4, os.cpu_count() or 1)
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            # A spinning thread pool answers no faster at one request a time and burns a core while it waits.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ArtifactError(f"the encoder in {folder} cannot be loaded: {error}") from error

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        encoded = [e.ids for e in self._tokenizer.encode_batch([_encodable(t) for t in texts])]
        # Rows of like length share a batch, so that little of the work is padding.
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            out[rows] = self._run([encoded[i] for i in rows])
        return out

    def _run(self, ids: list[list[int]]) -> NDArray[np.float32]:
        width = max(len(row) for row in ids)
        tokens = np.zeros((len(ids), width), dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)] = row
            mask[i, : len(row)] = 1
        (vectors,) = self._session.run(["sentence_vector"], {"input_ids": tokens, "attention_mask": mask})
        return np.asarray(vectors, dtype=np.float32)


def _encodable(text: str) -> str:
    """JSON may carry half of a surrogate pair, which the tokenizer's UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


ENCODERS: dict[str, Callable[[Path], Encoder]] = {"transformer": TransformerEncoder}
