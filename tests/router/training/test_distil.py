from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.classifier import LinearHead
from router.dataset import Example, examples_of
from router.encoder import SHARPNESS, StaticEncoder
from router.experts import BUILT_IN_DOMAINS
from router.ngrams import ngram_rows
from router.training import distil
from router.training.distil import FRAGMENTS, GOLD, ROWS, WIDTH, Lesson, lesson, static_table
from router.training.export import export_static
from router.training.finetune import Reader
from router.training.switching import Switcher
from tests.fakes.bert import tiny_model
from tests.fakes.corpora import numbered_corpus, small_corpus

# Torch sets off deprecation warnings of its own.
pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

TEXTS = ["Fix the loop in my Python function", "loop", "Prove a theorem about primes and rings", "Fix Fix Fix"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    model = tiny_model(tmp_path_factory.mktemp("bert"))
    return Reader(model[0].auto_model, model.tokenizer, len(BUILT_IN_DOMAINS))


def silent(step: str, done: int, total: int) -> None:
    pass


def examples_of_small_corpus(*domains: str) -> list[Example]:
    return [example for row in small_corpus(*domains) for example in examples_of(row)]


def test_what_is_trained_and_what_is_served_are_the_same(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = distil._Static(512, 4)
    torch.nn.init.normal_(model.table.weight)
    encoder = StaticEncoder(export_static("s", model.arrays(), tmp_path))
    served = encoder.encode(TEXTS) * np.sqrt(2) * SHARPNESS
    model.out = torch.nn.Identity()
    with torch.no_grad():
        trained = model.logits([ngram_rows(text, 512) for text in TEXTS]).numpy()
    assert trained.shape == served.shape
    assert served == pytest.approx(trained, abs=0.02 * SHARPNESS)  # eight bits
    for one, other in zip(trained, served, strict=True):
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.9995


def test_a_lesson_has_every_text_twice_and_fragments_of_each(reader: Reader) -> None:
    examples = examples_of_small_corpus("code")
    texts = [example.text for example in examples]
    told = lesson(reader, examples, BUILT_IN_DOMAINS, silent)
    assert len(told.texts) == len(told.targets) == (2 + FRAGMENTS) * len(texts)
    assert told.texts[: 2 * len(texts)] == [*texts, *texts]
    assert np.array_equal(told.targets[: len(texts)], told.targets[len(texts) : 2 * len(texts)])
    assert told.targets.sum(axis=1) == pytest.approx(np.ones(len(told.targets)), abs=1e-4)
    _, alone = reader.read([told.texts[-1], texts[0]], silent, "reading")
    assert told.targets[-1] == pytest.approx(alone[0], abs=0.02)
    assert told.targets[0] == pytest.approx(alone[1] * (1 - GOLD) + np.array([GOLD, 0, 0, 0]), abs=0.02)
    assert lesson(reader, examples, BUILT_IN_DOMAINS, silent).texts == told.texts


def test_some_fragments_of_english_have_words_of_other_languages(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = Example("plain loop " * 4, {"code": 1.0})
    words = Switcher({"de": {"loop": ["größe"]}})
    monkeypatch.setattr(Switcher, "load", lambda: words)
    english, german = (
        lesson(reader, [replace(example, language=language)] * 60, BUILT_IN_DOMAINS, silent).texts
        for language in ("en", "de")
    )
    assert 0.02 < np.mean(["größe" in text for text in english]) < 0.25
    assert not any("größe" in text for text in german)


def test_the_table_learns_what_it_is_told(tmp_path: Path) -> None:
    rows, fresh = small_corpus(), numbered_corpus(2)
    targets = np.array([[float(row.domain == domain) for domain in BUILT_IN_DOMAINS] for row in rows])
    told = Lesson([row.text for row in rows], targets.astype(np.float32))
    seen: list[tuple[str, int, int]] = []
    arrays = static_table(told, lambda *report: seen.append(report))
    assert seen[-1][0] == "distilling the static table"
    assert seen[-1][1] == seen[-1][2]
    assert arrays["ngrams"].shape == (ROWS, WIDTH)
    encoder = StaticEncoder(export_static("taught", arrays, tmp_path))
    head = LinearHead.fit(encoder.encode(told.texts), targets.astype(np.float32))
    found = head.logits(encoder.encode([row.text for row in fresh])).argmax(axis=1)
    assert np.mean([BUILT_IN_DOMAINS[i] == row.domain for i, row in zip(found, fresh, strict=True)]) > 0.9
