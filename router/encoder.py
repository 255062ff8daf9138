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
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for i, encoded in enumerate(self._tokenizer.encode_batch([_encodable(t) for t in texts])):
            # One by one: the 8-bit arithmetic scales over a whole batch, so that in company a text would get another
            # vector (cosine down to 0.97 was seen), and on a CPU a batch is no faster.
            ids = np.array([encoded.ids], dtype=np.int64)
            (vectors,) = self._session.run(["sentence_vector"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
            out[i] = vectors[0]
        return out


def _encodable(text: str) -> str:
    """JSON may carry half of a surrogate pair, which the tokenizer's UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


ENCODERS: dict[str, Callable[[Path], Encoder]] = {"transformer": TransformerEncoder}
