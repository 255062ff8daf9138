"""A short contrastive fine-tuning of a sentence encoder, as SetFit does before it fits a head: what little training buys."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router.dataset import Example
from router.training.export import load_sentence_transformer

ROWS = 2000
BATCH = 32
RATE = 2e-5
SHARPNESS = 10.0  # 1 / temperature of the loss
TOKENS = 96
MOST_SECONDS = 420.0
SEED = 0

Progress = Callable[[str, int, int], None]


def make_contrastive(base: str, examples: Sequence[Example], folder: Path, progress: Progress) -> int:
    """Fine-tune the sentence-transformers model `base` on ROWS of `examples` for one epoch and save it in `folder`.

    A text is drawn towards those of its domain in its batch and away from the others: the supervised contrastive loss of
    Khosla et al. 2020. Stops after MOST_SECONDS; returns how many texts were seen. Needs the `train` extra.
    """
    import torch

    torch.manual_seed(SEED)
    chance = random.Random(SEED)  # noqa: S311 - it has to be repeatable, not secret
    sure = [example for example in examples if max(example.shares.values()) > 0.6]
    some = chance.sample(sure, min(ROWS, len(sure)))
    labels = [max(example.shares, key=lambda domain: example.shares[domain]) for example in some]
    domains = sorted(set(labels))
    model = load_sentence_transformer(base)
    optimiser = torch.optim.AdamW(model.parameters(), RATE)
    model.train()
    started, seen = time.monotonic(), 0
    for start in range(0, len(some), BATCH):
        if time.monotonic() - started > MOST_SECONDS:
            break
        batch = slice(start, start + BATCH)
        wanted = torch.tensor([domains.index(label) for label in labels[batch]])
        loss = _loss(_vectors(model, [example.text for example in some[batch]]), wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        seen += len(wanted)
        progress("contrastive fine-tuning", seen, len(some))
    model.eval()
    model.save(str(folder))
    return seen


def _vectors(model: Any, texts: Sequence[str]) -> Any:
    import torch

    batch = model.tokenizer(list(texts), padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model[0].auto_model(**{name: batch[name] for name in ("input_ids", "attention_mask")})
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden.last_hidden_state.float() * mask).sum(1) / mask.sum(1), dim=1)


def _loss(vectors: Any, labels: Any) -> Any:
    """The mean over texts of -log of the share that the others of the same label have of its nearness to all others."""
    import torch

    others = ~torch.eye(len(labels), dtype=torch.bool)
    near = (vectors @ vectors.T * SHARPNESS).masked_fill(~others, -1e9)
    shares = near - torch.logsumexp(near, dim=1, keepdim=True)
    same = (labels[:, None] == labels[None, :]) & others
    paired = same.any(dim=1)
    return -((shares * same).sum(dim=1)[paired] / same.sum(dim=1)[paired]).mean()
