"""Makes tables that need no transformer of a transformer: the cheap stage's encoder. Needs the `train` extra.

They learn what the transformer says of the corpus and of fragments of it: parts of prompts, prompts with slips, halves of two
prompts put together. (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network".)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.encoder import SHARPNESS, STATIC_TOKENS, pair_rows, quantised
from router.perturb import PERTURBATIONS
from router.training.finetune import Progress, Reader, crop, soft_cross_entropy, step

Floats = NDArray[np.float32]

FRAGMENTS = 3  # of each prompt
WIDTH, HIDDEN, PAIRS = 128, 128, 1 << 14
STATIC_BATCH, STATIC_RATE, STATIC_HEAD_RATE, STATIC_EPOCHS = 128, 2e-3, 2e-3, 5
FORGOTTEN = 0.1  # the share of tokens that a text is read without
SEED = 1


@dataclass(frozen=True)
class Lesson:
    """Texts, and what the teacher says of them: `targets` (texts, domains)."""

    texts: list[str]
    targets: Floats


def lesson(teacher: Reader, texts: Sequence[str], progress: Progress) -> Lesson:
    """`texts` twice, and FRAGMENTS of each of them, read by the teacher."""
    chance = random.Random(SEED)
    fragments = [_fragment(text, texts, chance) for _ in range(FRAGMENTS) for text in texts]
    told = [*texts, *fragments]
    _, targets = teacher.read(told, progress, "the teacher reads")
    twice = np.concatenate([np.arange(len(texts)), np.arange(len(told))])
    return Lesson([told[i] for i in twice], targets[twice])


def _fragment(text: str, texts: Sequence[str], chance: random.Random) -> str:
    luck = chance.random()
    if luck < 0.55:
        return crop(text, chance)
    if luck < 0.8:
        return PERTURBATIONS[chance.choice(list(PERTURBATIONS))](text, chance)
    halves = (crop(text, chance).split(" "), crop(chance.choice(texts), chance).split(" "))
    return " ".join(word for half in halves for word in half[:25])


def static_tables(teacher: Reader, lesson: Lesson, progress: Progress) -> dict[str, NDArray[Any]]:
    """The arrays of StaticEncoder's table.npz."""
    import torch

    torch.manual_seed(SEED)
    chance = random.Random(SEED)
    ids = _token_ids(teacher, lesson.texts)
    model = _Static(torch.tensor(_first_table(teacher, progress)), lesson.targets.shape[1])
    targets = torch.tensor(lesson.targets)
    steps = STATIC_EPOCHS * -(-len(ids) // STATIC_BATCH)
    tables, layers = (
        [model.tokens.weight, model.pairs.weight, model.weights],
        [*model.hidden.parameters(), *model.out.parameters()],
    )
    groups = [{"params": tables, "lr": STATIC_RATE}, {"params": layers, "lr": STATIC_HEAD_RATE}]
    optimiser = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [STATIC_RATE, STATIC_HEAD_RATE], total_steps=steps + 1)
    order = list(range(len(ids)))
    done = 0
    for _ in range(STATIC_EPOCHS):
        chance.shuffle(order)
        for start in range(0, len(order), STATIC_BATCH):
            some = order[start : start + STATIC_BATCH]
            loss = soft_cross_entropy(model.logits([ids[i] for i in some]), targets[some])
            step(loss, optimiser, schedule, [])
            done += 1
            progress("distilling the static tables", done, steps)
    return model.arrays()


def _token_ids(teacher: Reader, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    backend = teacher.tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(STATIC_TOKENS)
    found = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    unknown = teacher.tokenizer.unk_token_id
    return [np.array(encoded.ids or [unknown], dtype=np.int64) for encoded in found]


def _first_table(teacher: Reader, progress: Progress) -> Floats:
    """What the teacher says of each token alone, its WIDTH strongest directions, rows of length 1 (as model2vec does)."""
    import torch

    size = len(teacher.tokenizer)
    start, end = teacher.tokenizer.cls_token_id, teacher.tokenizer.sep_token_id
    parts = []
    with torch.no_grad():
        for first in range(0, size, 512):
            tokens = torch.arange(first, min(size, first + 512))
            rows = torch.stack([torch.full_like(tokens, start), tokens, torch.full_like(tokens, end)], dim=1)
            hidden = teacher.network(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state
            parts.append(hidden.mean(dim=1))
            progress("reading every token alone", min(size, first + 512), size)
    table = torch.cat(parts).float().numpy()
    table = table - table.mean(axis=0)
    directions = np.linalg.svd(table[:: max(1, size // 8000)], full_matrices=False)[2][:WIDTH]
    small = table @ directions.T
    return np.asarray(small / (np.linalg.norm(small, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


class _Static:
    """StaticEncoder as something to be trained, with a layer to the domains on top."""

    def __init__(self, table: Any, domains: int) -> None:
        import torch

        self.tokens = torch.nn.Embedding.from_pretrained(table, freeze=False)
        self.pairs = torch.nn.Embedding(PAIRS, table.shape[1])
        torch.nn.init.zeros_(self.pairs.weight)
        self.weights = torch.nn.Parameter(torch.zeros(len(table)))
        self.hidden = torch.nn.Linear(table.shape[1], HIDDEN)
        self.out = torch.nn.Linear(table.shape[1] + HIDDEN, domains)

    def logits(self, texts: Sequence[NDArray[np.int64]]) -> Any:
        import torch

        ids = torch.tensor(np.concatenate(texts))
        of = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(t) for t in texts]))
        pairs = torch.tensor(np.concatenate([pair_rows(t, PAIRS) for t in texts]))
        of_pairs = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(t) - 1 for t in texts]))
        kept = torch.exp(self.weights[ids]).unsqueeze(1) * (torch.rand(len(ids), 1) > FORGOTTEN)
        sums = torch.zeros(len(texts), self.tokens.embedding_dim).index_add(0, of, self.tokens(ids) * kept)
        seen = self.pairs(pairs) * (torch.rand(len(pairs), 1) > FORGOTTEN)
        unit = torch.nn.functional.normalize(sums.index_add(0, of_pairs, seen), dim=1)
        hidden = torch.nn.functional.normalize(torch.relu(self.hidden(unit * SHARPNESS)), dim=1)
        return self.out(torch.cat([unit, hidden], dim=1) * SHARPNESS)

    def arrays(self) -> dict[str, NDArray[Any]]:
        import torch

        with torch.no_grad():
            tokens = (self.tokens.weight * torch.exp(self.weights).unsqueeze(1)).numpy()
            pairs = self.pairs.weight.numpy()
            hidden, bias = self.hidden.weight.numpy(), self.hidden.bias.numpy()
        arrays: dict[str, NDArray[Any]] = {"hidden": hidden, "bias": bias}
        for name, table in (("tokens", tokens), ("pairs", pairs)):
            arrays[name], arrays[f"{name}_scale"] = quantised(table)
        return arrays
