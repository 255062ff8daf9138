"""Makes a table of n-grams, which needs no transformer, of a transformer: the cheap stage's encoder. Needs the `train` extra.

It learns what the transformer says of the corpus and of fragments of it: parts of prompts, prompts with slips or with words
of other languages, halves of two prompts put together. (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network".)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.dataset import Example
from router.encoder import SHARPNESS, quantised
from router.ngrams import ngram_rows
from router.perturb import PERTURBATIONS
from router.training.finetune import Progress, Reader, crop, soft_cross_entropy, step
from router.training.switching import Switcher

Floats = NDArray[np.float32]

FRAGMENTS = 3  # of each prompt
GOLD = 0.3  # how much a prompt's label counts beside what the teacher says of it
ROWS, WIDTH, HIDDEN = 1 << 17, 64, 128
BATCH, RATE, EPOCHS = 128, 2e-3, 4
START = 0.02  # the standard deviation of the table before it learns
FORGOTTEN = 0.1  # the share of n-grams that a text is read without
SEED = 1


@dataclass(frozen=True)
class Lesson:
    """Texts, and what is to be said of them: `targets` (texts, domains)."""

    texts: list[str]
    targets: Floats


def lesson(teacher: Reader, examples: Sequence[Example], domains: Sequence[str], progress: Progress) -> Lesson:
    """The examples twice, and FRAGMENTS of each of them, read by the teacher."""
    chance, switcher = random.Random(SEED), Switcher.load()
    texts = [example.text for example in examples]
    fragments = [_fragment(example, texts, switcher, chance) for _ in range(FRAGMENTS) for example in examples]
    told = [*texts, *fragments]
    _, targets = teacher.read(told, progress, "the teacher reads")
    labels = np.array([example.target(domains) for example in examples], dtype=np.float32)
    targets[: len(texts)] = (1 - GOLD) * targets[: len(texts)] + GOLD * labels
    return Lesson([*texts, *told], np.concatenate([targets[: len(texts)], targets]))


def _fragment(example: Example, texts: Sequence[str], switcher: Switcher, chance: random.Random) -> str:
    text, luck = example.text, chance.random()
    if luck < 0.2 and example.language == "en":
        return switcher.switched(text, chance)
    if luck < 0.55:
        return crop(text, chance)
    if luck < 0.8:
        return PERTURBATIONS[chance.choice(list(PERTURBATIONS))](text, chance)
    halves = (crop(text, chance).split(" "), crop(chance.choice(texts), chance).split(" "))
    return " ".join(word for half in halves for word in half[:25])


def static_table(lesson: Lesson, progress: Progress) -> dict[str, NDArray[Any]]:
    """The arrays of StaticEncoder's table.npz."""
    import torch

    torch.manual_seed(SEED)
    chance = np.random.default_rng(SEED)
    read = [ngram_rows(text, ROWS) for text in lesson.texts]
    model = _Static(ROWS, lesson.targets.shape[1])
    targets = torch.tensor(lesson.targets)
    steps = EPOCHS * -(-len(read) // BATCH)
    weights = [*model.table.parameters(), *model.hidden.parameters(), *model.out.parameters()]
    optimiser = torch.optim.Adam(weights, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
    done = 0
    for _ in range(EPOCHS):
        order = chance.permutation(len(read))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            kept = [read[i][chance.random(len(read[i])) > FORGOTTEN] for i in some]
            step(soft_cross_entropy(model.logits(kept), targets[some]), optimiser, schedule, [])
            done += 1
            progress("distilling the static table", done, steps)
    return model.arrays()


class _Static:
    """StaticEncoder as something to be trained, with a layer to the domains on top."""

    def __init__(self, rows: int, domains: int, width: int = WIDTH) -> None:
        import torch

        self.table = torch.nn.EmbeddingBag(rows, width, mode="sum")
        torch.nn.init.normal_(self.table.weight, std=START)
        self.hidden = torch.nn.Linear(width, HIDDEN)
        self.out = torch.nn.Linear(width + HIDDEN, domains)

    def logits(self, read: Sequence[NDArray[np.int64]]) -> Any:
        import torch

        starts = np.concatenate([[0], np.cumsum([len(rows) for rows in read])[:-1]])
        sums = self.table(torch.tensor(np.concatenate(read)), torch.tensor(starts))
        unit = torch.nn.functional.normalize(sums, dim=1)
        hidden = torch.nn.functional.normalize(torch.relu(self.hidden(unit * SHARPNESS)), dim=1)
        return self.out(torch.cat([unit, hidden], dim=1) * SHARPNESS)

    def arrays(self) -> dict[str, NDArray[Any]]:
        hidden, bias = self.hidden.weight.detach().numpy(), self.hidden.bias.detach().numpy()
        table, scale = quantised(self.table.weight.detach().numpy())
        return {"ngrams": table, "ngrams_scale": scale, "hidden": hidden, "bias": bias}
