from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from router.dataset import Example, examples_of
from router.experts import BUILT_IN_DOMAINS
from router.training.finetune import (
    BATCH,
    LEAST_CROP,
    MOST_CROP,
    OFTEN,
    OTHERS,
    SWITCHED,
    Reader,
    Slips,
    batches,
    careless,
    crop,
    learn_characters,
    load_reader,
    optimiser_of,
    soft_cross_entropy,
    split_embedding,
    teach,
)
from router.training.switching import Switcher
from tests.fakes.bert import WIDTH, tiny_bert
from tests.fakes.corpora import small_corpus

# Torch sets off deprecation warnings of its own.
torch_test = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
WORDS = st.lists(st.text("abc", min_size=1, max_size=9), max_size=120).map(" ".join)
SEEDS = st.integers(0, 999)


def needs_torch(test: Any) -> Any:
    for mark in torch_test:
        test = mark(test)
    return test


def chance_of(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - it has to be repeatable, not secret


def silent(step: str, done: int, total: int) -> None:
    pass


# Texts


@given(WORDS | st.text(max_size=300), SEEDS)
@settings(deadline=None, max_examples=80)
def test_a_crop_is_a_part_of_the_text(text: str, seed: int) -> None:
    part = crop(text, chance_of(seed))
    assert part in text
    if len(text.split(" ")) > LEAST_CROP:
        assert LEAST_CROP <= len(part.split(" ")) <= MOST_CROP
    elif len(text) < 8 * LEAST_CROP:
        assert part == text
    else:
        assert len(part) == 4 * LEAST_CROP


def test_a_crop_may_begin_anywhere_and_often_at_the_start() -> None:
    text = " ".join(f"w{i}" for i in range(60))
    starts = [crop(text, chance_of(seed)).split(" ")[0] for seed in range(200)]
    assert 0.3 < starts.count("w0") / 200 < 0.7
    assert len(set(starts)) > 20


@given(st.text(max_size=200), SEEDS)
@settings(deadline=None, max_examples=60)
def test_what_is_read_carelessly_depends_on_text_and_chance_alone(text: str, seed: int) -> None:
    assert careless(text, chance_of(seed)) == careless(text, chance_of(seed))


def test_most_texts_are_read_as_they_are() -> None:
    text = "Write a function that sorts a list, please: it is for my homework, and it has to be quick."
    read = [careless(text, chance_of(seed)) for seed in range(400)]
    assert 0.5 < read.count(text) / 400 < 0.7


@given(st.lists(st.text(max_size=60), max_size=70), st.integers(1, 9), SEEDS)
@settings(deadline=None, max_examples=60)
def test_every_text_is_in_one_batch(texts: list[str], size: int, seed: int) -> None:
    found = batches(texts, size, chance_of(seed))
    assert sorted(i for batch in found for i in batch) == list(range(len(texts)))
    assert sum(len(batch) < size for batch in found) <= 1
    assert all(0 < len(batch) <= size for batch in found)


def test_texts_of_like_length_are_together_in_an_order_that_chance_settles() -> None:
    texts = ["x" * (10 * i) for i in range(100)]
    found = batches(texts, 10, chance_of(0))
    assert all(max(batch) - min(batch) < 20 for batch in found)
    assert found != batches(texts, 10, chance_of(1))
    assert [min(batch) for batch in found] != sorted(min(batch) for batch in found)


def test_english_is_read_with_words_of_other_languages_at_times_and_nothing_else_is() -> None:
    english, other = (Example("the loop the loop the loop", {"code": 1.0}, language=name) for name in ("en", "nl"))
    slips = Slips(Switcher({"de": {"loop": ["schleife"]}}), chance_of(0))
    read = [slips.read(english) for _ in range(400)]
    assert 0.5 * SWITCHED < np.mean(["schl" in text.lower() for text in read]) < SWITCHED + 0.05
    assert all("schl" not in slips.read(other).lower() for _ in range(100))


# Torch


@needs_torch
def test_soft_cross_entropy_is_what_the_formula_says() -> None:
    import torch

    chance = np.random.default_rng(0)
    logits, targets = chance.normal(size=(7, 3)), chance.dirichlet(np.ones(3), size=7)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -(targets * np.log(chances)).sum(axis=1).mean()
    assert float(soft_cross_entropy(torch.tensor(logits), torch.tensor(targets))) == pytest.approx(expected)


@needs_torch
def test_rates_rise_and_fall_and_each_group_has_its_own() -> None:
    import torch

    one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimiser, schedule = optimiser_of([([one], 1e-3), ([other], 1e-2)], 40)
    rates = []
    for _ in range(40):
        optimiser.step()
        rates.append([group["lr"] for group in optimiser.param_groups])
        schedule.step()
    first, second = zip(*rates, strict=True)
    assert np.allclose(np.array(second), 10 * np.array(first))
    highest = first.index(max(first))
    assert 0 < highest < 8
    assert list(first[: highest + 1]) == sorted(first[: highest + 1])
    assert list(first[highest:]) == sorted(first[highest:], reverse=True)
    assert 0 < first[-1] < 0.1 * max(first)


class Network:
    """As much of a transformer as has a word embedding."""

    def __init__(self, rows: int) -> None:
        import torch

        torch.manual_seed(0)
        self.embedding: Any = torch.nn.Embedding(rows, 4)

    def get_input_embeddings(self) -> Any:
        return self.embedding

    def set_input_embeddings(self, embedding: Any) -> None:
        self.embedding = embedding


@needs_torch
@pytest.mark.parametrize("original", [1, 6, 9])
def test_a_split_embedding_looks_words_up_as_one_table_does(original: int) -> None:
    import torch

    network = Network(9)
    whole, ids = network.embedding, torch.tensor([[0, 8, 5], [6, 1, 7]])
    split = split_embedding(network, original)
    assert network.embedding is split
    assert torch.equal(split(ids), whole(ids))
    assert torch.equal(split.joined().weight, whole.weight)
    assert (len(split.base), len(split.added)) == (original, 9 - original)
    split(ids).sum().backward()
    assert split.base.grad[0].tolist() == [1.0] * 4
    assert original == 9 or split.added.grad[-1].tolist() == [1.0] * 4


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@contextmanager
def glossary(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Iterator[None]:
    """A short glossary in place of the shipped one."""
    from router.training.glossary import load_glossary

    (folder / "de.tsv").write_text(text, "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("router.training.finetune.load_glossary", lambda: load_glossary(folder))
        yield


@pytest.fixture
def reader(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader that was taught nothing but three words."""
    from router.training.export import load_sentence_transformer

    with glossary(
        monkeypatch, tmp_path, "schleife\tloop\nfehler\tbug\nfehler\tprimes\nloop\tbug\ncasă\tloop\ncasa\tbug\n"
    ):
        return load_reader(load_sentence_transformer(str(model_folder)), 4, silent)


def word_vector(reader: Reader, word: str) -> Any:
    return reader.network.get_input_embeddings().weight.data[reader.tokenizer.convert_tokens_to_ids(word)]


def tokens(reader: Reader, text: str) -> list[str]:
    found = reader.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens
    return [token.strip() for token in found]


@needs_torch
def test_a_word_of_the_glossary_is_a_token_that_starts_as_its_gloss(reader: Reader) -> None:
    import torch

    assert tokens(reader, "Schleife fehler") == ["schleife", "fehler"]
    assert torch.allclose(word_vector(reader, "schleife"), word_vector(reader, "loop"))
    both = (word_vector(reader, "bug") + word_vector(reader, "primes")) / 2
    assert torch.allclose(word_vector(reader, "fehler"), both, atol=1e-6)
    assert not torch.allclose(word_vector(reader, "loop"), word_vector(reader, "bug"))


@needs_torch
def test_a_word_of_the_glossary_counts_only_between_spaces(reader: Reader) -> None:
    assert "fehler" not in tokens(reader, "fehlerhaft")


@needs_torch
def test_a_text_has_the_same_tokens_however_often_the_tokenizer_is_loaded(reader: Reader) -> None:
    """Of two tokens for the same letters, the one that was added last would win in one loading and not in another."""
    learn_characters(reader, ["ё й е и"] * OFTEN, silent)
    text = reader.tokenizer.backend_tokenizer.to_str()
    ids = [Tokenizer.from_str(text).encode("Casă, casa, schleife, ё й е и").ids for _ in range(12)]
    assert ids == ids[:1] * 12
    assert tokens(reader, "Casă casa") == ["casa"] * 2


@needs_torch
def test_a_character_that_stands_in_several_texts_gets_a_token(reader: Reader) -> None:
    import torch

    before = len(reader.tokenizer)
    texts = ["数 loop"] * OFTEN + ["学 loop"] * (OFTEN - 1) + ["→ loop"] * 9
    learn_characters(reader, texts, silent)
    assert len(reader.tokenizer) == before + 1 == len(reader.network.get_input_embeddings().weight)
    assert tokens(reader, "数loop") == ["数", "loop"]
    assert tokens(reader, "学") == ["[UNK]"]
    assert torch.equal(word_vector(reader, "数"), word_vector(reader, "[UNK]"))


@needs_torch
def test_what_is_read_comes_in_the_order_of_the_texts(reader: Reader) -> None:
    texts = ["fix the loop in my python function", "x", "prove a theorem about primes " * 20, "loop"] * 20
    vectors, probabilities = reader.read(texts, silent, "reading")
    assert (vectors.shape, probabilities.shape) == ((80, WIDTH), (80, 4))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(80), abs=1e-4)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(80), abs=1e-4)
    for i, text in enumerate(texts[:4]):
        alone, _ = reader.read([text], silent, "reading")
        assert float(alone[0] @ vectors[i]) > 0.999
        assert float(alone[0] @ vectors[i + 4]) > 0.999
    assert float(vectors[0] @ vectors[1]) < 0.99


def lessons() -> list[Example]:
    return [example for row in small_corpus() for example in examples_of(row)]


def told_right(reader: Reader, examples: list[Example]) -> float:
    """The mean probability of the right domain."""
    _, probabilities = reader.read([example.text for example in examples], silent, "reading")
    targets = np.array([example.target(BUILT_IN_DOMAINS) for example in examples])
    return float((probabilities * targets).sum(axis=1).mean())


@needs_torch
def test_two_steps_of_teaching_move_every_part_and_leave_one_table_of_words(reader: Reader) -> None:
    import torch

    examples, original, size = lessons(), 200, len(reader.tokenizer)
    assert original < size
    before = {name: weight.clone() for name, weight in reader.network.state_dict().items()}
    seen: list[tuple[str, int, int]] = []
    teach(reader, examples, BUILT_IN_DOMAINS, lambda *report: seen.append(report), original, 1)
    assert [report for report in seen if report[0] == "fine-tuning the encoder"] == [
        ("fine-tuning the encoder", 1, 2),
        ("fine-tuning the encoder", 2, 2),
    ]
    after = reader.network.state_dict()
    assert after.keys() == before.keys()
    assert {n for n in after if after[n].dtype.is_floating_point and torch.equal(after[n], before[n])} <= {
        n for n in after if "pooler" in n
    }
    assert len(reader.network.get_input_embeddings().weight) == size
    assert not reader.network.training


@needs_torch
def test_an_epoch_reads_what_is_not_english_more_often(reader: Reader) -> None:
    examples, seen = [replace(example, language="de") for example in lessons()], []
    teach(reader, examples, BUILT_IN_DOMAINS, lambda step, *report: seen.append((step, *report)), 200, 1)
    assert seen[-1] == ("fine-tuning the encoder", *[-(-OTHERS * len(examples) // BATCH)] * 2)


@needs_torch
def test_where_there_is_nothing_to_teach_nothing_is_taught(reader: Reader) -> None:
    before = reader.read(["loop"], silent, "reading")[0]
    teach(reader, [], BUILT_IN_DOMAINS, silent, 200)
    assert np.array_equal(reader.read(["loop"], silent, "reading")[0], before)


@needs_torch
def test_what_is_taught_is_learned_and_the_same_twice(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router.training.export import load_sentence_transformer

    examples, found = lessons(), []
    for _ in range(2):
        with glossary(monkeypatch, tmp_path, "schleife\tloop\n"):
            taught = load_reader(load_sentence_transformer(str(model_folder)), 4, silent)
        before = told_right(taught, examples)
        teach(taught, examples, BUILT_IN_DOMAINS, silent, len(taught.tokenizer), 8)
        found.append(told_right(taught, examples))
        assert found[-1] > before + 0.1
    assert found[0] == pytest.approx(found[1], abs=1e-5)
