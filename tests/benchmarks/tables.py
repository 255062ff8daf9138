"""A static encoder made of an untouched sentence encoder, as model2vec makes one: what it says of each token alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.encoder import MAX_TOKENS, Encoder, StaticEncoder, TransformerEncoder
from router.training.export import load_sentence_transformer

WIDTH = 256
TOKENS_AT_ONCE = 512


class TokenTable:
    """The mean of the vectors of a text's tokens, brought to length 1. A folder holding table.npy, tokenizer.json, encoder.json."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        about = json.loads((folder / "encoder.json").read_text("utf-8"))
        self.name, self.dimensions = str(about["name"]), int(about["dimensions"])
        self._table = np.load(folder / "table.npy", allow_pickle=False).astype(np.float32)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for i, text in enumerate(texts):
            ids = self._tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids
            if ids:
                vector = self._table[ids].mean(axis=0)
                out[i] = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return out


def opened(folder: Path) -> Encoder:
    """The encoder in `folder`, whatever its kind."""
    kind = json.loads((folder / "encoder.json").read_text("utf-8")).get("kind", "transformer")
    if kind == "table":
        return TokenTable(folder)
    return StaticEncoder(folder) if kind == "static" else TransformerEncoder(folder)


def make_token_table(base: str, name: str, folder: Path) -> None:
    """Write the TokenTable of the sentence-transformers model `base` into `folder`. Needs the `train` extra.

    WIDTH directions of the tokens' vectors are kept, and rarer tokens weigh more: log(1 + rank), the vocabulary being
    sorted by frequency (Zipf), as in model2vec 0.3.
    """
    model = load_sentence_transformer(base)
    full = _alone(model)
    centred = full - full.mean(axis=0)
    directions = np.linalg.svd(centred[:: max(1, len(centred) // 8000)], full_matrices=False)[2][:WIDTH]
    table = centred @ directions.T * np.log(1 + np.arange(1, len(full) + 1))[:, None]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "table.npy", table.astype(np.float16))
    model.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    about = {"name": name, "kind": "table", "dimensions": table.shape[1]}
    (folder / "encoder.json").write_text(json.dumps(about), "utf-8")  # last: with it the folder is whole


def _alone(model: Any) -> NDArray[np.float32]:
    """The vector of each token of the vocabulary as a text of its own, shape (tokens, dimensions)."""
    import torch

    network, tokenizer = model[0].auto_model, model.tokenizer
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    network.eval()
    parts = []
    with torch.no_grad():
        for first in range(0, len(tokenizer), TOKENS_AT_ONCE):
            tokens = torch.arange(first, min(len(tokenizer), first + TOKENS_AT_ONCE))
            rows = torch.stack([torch.full_like(tokens, start), tokens, torch.full_like(tokens, end)], dim=1)
            hidden = network(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state
            parts.append(hidden.mean(dim=1).float().numpy())
    return np.concatenate(parts)
