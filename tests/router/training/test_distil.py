from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.classifier import LinearHead
from router.encoder import SHARPNESS, StaticEncoder
from router.experts import BUILT_IN_DOMAINS
from router.training import distil
from router.training.distil import FRAGMENTS, Lesson, lesson, static_tables
from router.training.export import export_static
from router.training.finetune import Reader
from tests.fakes.bert import tiny_model
from tests.fakes.corpora import numbered_corpus, small_corpus
from tests.fakes.encoders import word_tokenizer

# Torch sets off deprecation warnings of its own.
pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

TEXTS = ["Fix the loop in my Python function", "loop", "Prove a theorem about primes and rings", "Fix Fix Fix"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    model = tiny_model(tmp_path_factory.mktemp("bert"))
    return Reader(model[0].auto_model, model.tokenizer, len(BUILT_IN_DOMAINS))


def silent(step: str, done: int, total: int) -> None:
    pass


def static_folder(folder: Path, tokenizer: Any, arrays: dict[str, Any]) -> Path:
    """A folder for StaticEncoder with these arrays."""
    np.savez(folder / "table.npz", allow_pickle=False, **arrays)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"name": "s", "kind": "static", "dimensions": sum(arrays["hidden"].shape), "max_tokens": 256}
    (folder / "encoder.json").write_text(json.dumps(about), "utf-8")
    return folder


def test_what_is_trained_and_what_is_served_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(distil, "FORGOTTEN", -1.0)  # every token is read
    tokenizer, chance = word_tokenizer(TEXTS), np.random.default_rng(0)
    model = distil._Static(torch.tensor(chance.normal(size=(tokenizer.get_vocab_size(), 24)).astype(np.float32)), 4)
    with torch.no_grad():
        model.pairs.weight.copy_(torch.tensor(chance.normal(size=model.pairs.weight.shape) * 0.3))
        model.weights.copy_(torch.tensor(chance.normal(size=model.weights.shape)))
    encoder = StaticEncoder(static_folder(tmp_path, tokenizer, model.arrays()))
    served = encoder.encode(TEXTS) * np.sqrt(2) * SHARPNESS
    model.out = torch.nn.Identity()
    ids = [np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64) for text in TEXTS]
    with torch.no_grad():
        trained = model.logits(ids).numpy()
    assert trained.shape == served.shape
    assert served == pytest.approx(trained, abs=0.02 * SHARPNESS)  # eight bits
    for one, other in zip(trained, served, strict=True):
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.9995


def test_a_lesson_has_every_text_twice_and_fragments_of_each(reader: Reader) -> None:
    texts = [row.text for row in small_corpus("code")]
    told = lesson(reader, texts, silent)
    assert len(told.texts) == len(told.targets) == (2 + FRAGMENTS) * len(texts)
    assert told.texts[: 2 * len(texts)] == [*texts, *texts]
    assert np.array_equal(told.targets[: len(texts)], told.targets[len(texts) : 2 * len(texts)])
    assert told.targets.sum(axis=1) == pytest.approx(np.ones(len(told.targets)), abs=1e-4)
    _, alone = reader.read([told.texts[-1]], silent, "reading")
    assert told.targets[-1] == pytest.approx(alone[0], abs=0.02)
    assert lesson(reader, texts, silent).texts == told.texts


def test_tables_learn_what_they_are_told(reader: Reader, tmp_path: Path) -> None:
    rows, fresh = small_corpus(), numbered_corpus(2)
    targets = np.array([[float(row.domain == domain) for domain in BUILT_IN_DOMAINS] for row in rows])
    told = Lesson([row.text for row in rows], targets.astype(np.float32))
    seen: list[tuple[str, int, int]] = []
    arrays = static_tables(reader, told, lambda *report: seen.append(report))
    assert seen[-1][0] == "distilling the static tables"
    assert seen[-1][1] == seen[-1][2]
    assert len(arrays["tokens"]) == len(reader.tokenizer)
    encoder = StaticEncoder(export_static("taught", arrays, reader, tmp_path))
    head = LinearHead.fit(encoder.encode(told.texts), targets.astype(np.float32))
    found = head.logits(encoder.encode([row.text for row in fresh])).argmax(axis=1)
    assert np.mean([BUILT_IN_DOMAINS[i] == row.domain for i, row in zip(found, fresh, strict=True)]) > 0.9


def test_a_text_without_tokens_is_taught_as_it_is_served(reader: Reader, tmp_path: Path) -> None:
    empty, unknown = distil._token_ids(reader, ["", "→"])
    assert empty.tolist() == unknown.tolist() == [reader.tokenizer.unk_token_id]
    arrays = distil._Static(_table(reader), 4).arrays()
    served = StaticEncoder(export_static("empty", arrays, reader, tmp_path)).encode(["", "→"])
    assert np.array_equal(served[0], served[1])


def _table(reader: Reader) -> Any:
    import torch

    torch.manual_seed(0)
    return torch.randn(len(reader.tokenizer), 16)
