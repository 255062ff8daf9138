"""Teaches a sentence encoder what the router has to tell apart. Needs the `train` extra (torch); serving does not.

The vectors are trained to tell the domains apart (cross entropy on the labels, alternates in shares) and the finer topics of
the corpus, and for English not to move further from the original encoder than that needs: domains that operators add later
are found by meaning.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.dataset import Example
from router.encoder import MAX_TOKENS
from router.perturb import PERTURBATIONS
from router.training.glossary import additions, load_glossary, normal
from router.training.switching import Switcher

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

EPOCHS = 3
OTHERS = 2  # how often an epoch reads a text that is not English: there are fewer of them, in many languages
BATCH = 32
RATE = 5e-5  # of the encoder's weights
ADDED_RATE = 1e-3  # of the vectors of words that the original encoder does not know: few texts have each of them
HEAD_RATE = 1e-2
WARM_UP = 0.1  # the share of the steps in which the rates rise
SMOOTHING = 0.05
TOPIC_WEIGHT = 0.2
STAY_WEIGHT = 0.5  # of the distance to the original vectors
SHARPNESS = 8.0  # vectors have length 1; the layers above them see them this much longer
OFTEN = 3  # texts with a character that is to get a token
LATIN = 0x24F  # the last code point of the Latin letters
PERTURBED, CROPPED = 0.25, 0.15  # the shares of prompts that are read with slips, and in part
SWITCHED = 0.2  # the share of English prompts that are read with words of another language
LEAST_CROP, MOST_CROP = 10, 48  # words
SEED = 0


class Reader:
    """A transformer with mean pooling, and a layer from its vectors to domains."""

    def __init__(self, network: Any, tokenizer: Any, domains: int) -> None:
        import torch

        self.network, self.tokenizer = network, tokenizer
        self.head = torch.nn.Linear(network.config.hidden_size, domains)

    def vectors(self, texts: Sequence[str]) -> Any:
        """Tensor (texts, dimensions), each row of length 1; half precision inside, where the processor has it."""
        import torch

        batch = self.tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.network(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((hidden.float() * mask).sum(1) / mask.sum(1), dim=1)

    def logits(self, vectors: Any) -> Any:
        return self.head(vectors * SHARPNESS)

    def add(self, words: Sequence[tuple[str, bool]], starts: Sequence[Any]) -> None:
        """A token for each of `words` (and whether it counts only between spaces), with the vectors to start from."""
        from tokenizers import AddedToken

        before = len(self.tokenizer)
        self.tokenizer.add_tokens([AddedToken(word, single_word=whole, normalized=True) for word, whole in words])
        self.network.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        table = self.network.get_input_embeddings().weight.data
        for (word, _), start in zip(words, starts, strict=True):
            row = self.tokenizer.convert_tokens_to_ids(word)
            if row >= before:
                table[row] = start

    def read(self, texts: Sequence[str], progress: Progress, step: str) -> tuple[Floats, Floats]:
        """Vectors (texts, dimensions) and probabilities (texts, domains) of every text."""
        import torch

        self.network.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.zeros((len(texts), self.network.config.hidden_size), dtype=np.float32)
        probabilities = np.zeros((len(texts), self.head.out_features), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(order), 2 * BATCH):
                some = order[start : start + 2 * BATCH]
                found = self.vectors([texts[i] for i in some])
                vectors[some], probabilities[some] = found.numpy(), torch.softmax(self.logits(found), dim=1).numpy()
                progress(step, min(start + 2 * BATCH, len(order)), len(order))
        return vectors, probabilities


def load_reader(model: Any, domains: int, progress: Progress) -> Reader:
    """A Reader made of a sentence-transformers `model`, its vocabulary widened by the glossary."""
    import torch

    torch.manual_seed(SEED)
    reader = Reader(model[0].auto_model, model.tokenizer, domains)
    backend = reader.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    entries = additions(load_glossary(), backend)
    table = reader.network.get_input_embeddings().weight.data
    starts = [torch.stack([table[_ids(backend, gloss)].mean(0) for gloss in e.glosses]).mean(0) for e in entries]
    reader.add([(entry.word, entry.whole) for entry in entries], starts)
    progress(f"{len(entries)} words of other languages learned", 1, 1)
    return reader


def learn_characters(reader: Reader, texts: Sequence[str], progress: Progress) -> None:
    """Give `reader` a token for every character of `texts` that it cannot read and that stands there OFTEN or more."""
    backend = reader.tokenizer.backend_tokenizer
    unknown = reader.tokenizer.unk_token_id
    counts = Counter(character for text in texts for character in set(text) if ord(character) > LATIN)
    often = [c for c, count in counts.items() if count >= OFTEN and c.isalpha() and unknown in _ids(backend, c)]
    new = sorted({normal(character, backend): character for character in sorted(often)}.values())
    table = reader.network.get_input_embeddings().weight.data
    reader.add([(character, False) for character in new], [table[unknown]] * len(new))
    progress(f"{len(new)} characters of other scripts learned", 1, 1)


def _ids(backend: Any, text: str) -> list[int]:
    return list(backend.encode(text, add_special_tokens=False).ids)


def teach(
    reader: Reader,
    examples: Sequence[Example],
    domains: Sequence[str],
    progress: Progress,
    original: int,
    epochs: int = EPOCHS,
) -> None:
    """Fine-tune `reader`, whose layer tells `domains` apart, on `examples`, in place.

    `original` is the size of the vocabulary that the encoder came with. About 25 ms an example and epoch on two cores, with
    six layers.
    """
    import torch

    if not examples:
        return
    torch.manual_seed(SEED)
    chance = random.Random(SEED)
    texts = [example.text for example in examples]
    before = torch.tensor(reader.read(texts, progress, "reading with the encoder as it is")[0])
    english = torch.tensor([float(example.language == "en") for example in examples])
    often = [i for i, example in enumerate(examples) for _ in range(1 if example.language == "en" else OTHERS)]
    slips = Slips(Switcher.load(), chance)
    topics = sorted({example.topic for example in examples} - {""})
    topic = torch.tensor([topics.index(e.topic) if e.topic else -1 for e in examples])
    targets = torch.tensor([e.target(domains) for e in examples]) * (1 - SMOOTHING) + SMOOTHING / len(domains)
    finer = torch.nn.Linear(reader.network.config.hidden_size, max(1, len(topics)))
    words = split_embedding(reader.network, original)
    groups = [
        ([p for p in reader.network.parameters() if p is not words.added], RATE),
        ([words.added], ADDED_RATE),
        ([*reader.head.parameters(), *finer.parameters()], HEAD_RATE),
    ]
    steps = epochs * -(-len(often) // BATCH)
    optimiser, schedule = optimiser_of(groups, steps)
    done = 0
    reader.network.train()
    for _ in range(epochs):
        for places in batches([texts[i] for i in often], BATCH, chance):
            some = [often[place] for place in places]
            vectors = reader.vectors([slips.read(examples[i]) for i in some])
            loss = soft_cross_entropy(reader.logits(vectors), targets[some])
            if (topic[some] >= 0).any():
                loss = loss + TOPIC_WEIGHT * torch.nn.functional.cross_entropy(
                    finer(vectors * SHARPNESS), topic[some], ignore_index=-1
                )
            away = 1 - (vectors * before[some]).sum(dim=1)
            loss = loss + STAY_WEIGHT * (away * english[some]).mean()
            step(loss, optimiser, schedule, reader.network.parameters())
            done += 1
            progress("fine-tuning the encoder", done, steps)
    reader.network.eval()
    reader.network.set_input_embeddings(words.joined())


def split_embedding(network: Any, original: int) -> Any:
    """Put into `network` a word embedding of two tables, `base` of `original` rows and `added`, that may learn at other rates;
    its `joined` gives one table again."""
    import torch

    class SplitEmbedding(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, table: Any) -> None:
            super().__init__()
            self.base = torch.nn.Parameter(table[:original].clone())
            self.added = torch.nn.Parameter(table[original:].clone())

        def forward(self, ids: Any) -> Any:
            look_up = torch.nn.functional.embedding
            base = look_up(ids.clamp(max=original - 1), self.base)
            if len(self.added) == 0:
                return base
            return torch.where((ids < original).unsqueeze(-1), base, look_up((ids - original).clamp(min=0), self.added))

        def joined(self) -> Any:
            return torch.nn.Embedding.from_pretrained(torch.cat([self.base, self.added]).detach(), freeze=False)

    split = SplitEmbedding(network.get_input_embeddings().weight.data)
    network.set_input_embeddings(split)
    return split


class Slips:
    """How texts are read in training: as they are, with slips, in part, and English ones with words of other languages."""

    def __init__(self, switcher: Switcher, chance: random.Random) -> None:
        self._switcher, self._chance = switcher, chance

    def read(self, example: Example) -> str:
        text = example.text
        if example.language == "en" and self._chance.random() < SWITCHED:
            text = self._switcher.switched(text, self._chance)
        return careless(text, self._chance)


def careless(text: str, chance: random.Random) -> str:
    """The text as it is, with slips, or a part of it."""
    luck = chance.random()
    if luck < PERTURBED:
        return PERTURBATIONS[chance.choice(list(PERTURBATIONS))](text, chance)
    return crop(text, chance) if luck < PERTURBED + CROPPED else text


def crop(text: str, chance: random.Random) -> str:
    """Some words in a row; of a text with few spaces, some characters."""
    words = text.split(" ")
    if len(words) <= LEAST_CROP:
        if len(text) < 8 * LEAST_CROP:
            return text
        start = chance.randrange(len(text) - 4 * LEAST_CROP)
        return text[start : start + 4 * LEAST_CROP]
    length = chance.randint(LEAST_CROP, min(MOST_CROP, len(words)))
    start = chance.randint(0, len(words) - length) if chance.random() < 0.6 else 0
    return " ".join(words[start : start + length])


def batches(texts: Sequence[str], size: int, chance: random.Random) -> list[list[int]]:
    """Every text's place once, texts of like length together, in random order."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]) + 40 * chance.random())
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    chance.shuffle(parts)
    return parts


def soft_cross_entropy(logits: Any, targets: Any) -> Any:
    """The mean over rows of -Σ target · log softmax(logits)."""
    import torch

    return -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def optimiser_of(groups: Sequence[tuple[Sequence[Any], float]], steps: int) -> tuple[Any, Any]:
    """AdamW over groups of weights, each with its rate; the rates rise at first and then fall to nearly nothing."""
    import torch

    optimiser = torch.optim.AdamW(
        [{"params": list(weights), "lr": rate} for weights, rate in groups], weight_decay=0.01
    )
    rise = max(1.0, WARM_UP * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda done: min(1.0, (done + 1) / rise) * max(0.02, 1 - done / steps)
    )
    return optimiser, schedule


def step(loss: Any, optimiser: Any, schedule: Any, clipped: Any) -> None:
    import torch

    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(clipped), 1.0)
    optimiser.step()
    schedule.step()
    optimiser.zero_grad()
