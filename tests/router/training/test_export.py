from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from router.encoder import FILES, MAX_TOKENS, StaticEncoder, TransformerEncoder, quantised
from router.errors import RouterError
from router.training.export import (
    DEFAULT_ENCODER,
    export_encoder,
    export_reader,
    export_static,
    load_sentence_transformer,
)
from router.training.finetune import Reader
from tests.fakes.bert import WIDTH, tiny_model

# Loading and exporting a model sets off deprecation warnings inside torch itself.
pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[3]
TEXTS = [
    "segfault",
    "How do I sort a list of dictionaries by a key in Python?",
    "thread 'main' panicked at src/parser.rs:141:38: called `Option::unwrap()` on a `None` value",
    "Prove that the square root of 2 is irrational.",
    "17% of 2,340",
    "\\int_0^{\\infty} x^3 e^{-2x}\\,dx",
    "mitochondria",
    "Been having headaches since Tuesday, mostly behind my left eye, and light makes it worse.",
    "Tell me a joke about librarians.",
    "¿Por qué desapareció la Liga Hanseática?",
    "なぜ空は青いのですか",
    "The minutes of the meeting of the parish council, in full. " * 40,
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_encoder(DEFAULT_ENCODER, tmp_path_factory.mktemp("export") / "not" / "there" / "yet")


def test_an_export_is_the_folder_that_serving_reads_and_nothing_besides(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == set(FILES)
    assert list(exported.parent.iterdir()) == [exported]
    about = json.loads((exported / "encoder.json").read_text("utf-8"))
    assert about == {"name": DEFAULT_ENCODER, "kind": "transformer", "dimensions": 384, "max_tokens": MAX_TOKENS}


def test_the_vectors_of_an_export_are_those_of_sentence_transformers(exported: Path) -> None:
    model = load_sentence_transformer(DEFAULT_ENCODER)
    model.max_seq_length = MAX_TOKENS
    theirs = model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    ours = TransformerEncoder(exported).encode(TEXTS)
    assert ours.shape == theirs.shape
    assert (ours * theirs).sum(axis=1).min() > 0.98


def test_an_export_is_named_by_model_and_content(exported: Path) -> None:
    name, _, digest = exported.name.rpartition("-")
    assert name == DEFAULT_ENCODER.lower()
    assert len(digest) == 12
    assert int(digest, 16) >= 0


def test_an_export_is_quantised(exported: Path) -> None:
    assert (exported / "model.onnx").stat().st_size < 30_000_000  # of some 90 million bytes in single precision


def test_the_exported_graph_takes_batches_of_any_size_and_length(exported: Path) -> None:
    encoder = TransformerEncoder(exported)
    for texts in (["a"], ["a b c"] * 2, TEXTS):
        assert np.linalg.norm(encoder.encode(texts), axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-4)


@pytest.mark.parametrize("name", ["no such model", "no/such/model", ""])
def test_an_unknown_model_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(RouterError, match=f"the encoder '{name}' cannot be loaded"):
        export_encoder(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_no_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RouterError, match=f"the encoder '{tmp_path}' cannot be loaded"):
        load_sentence_transformer(str(tmp_path))


# What was fine-tuned and distilled here


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A small reader with a word more than its model came with."""
    model = tiny_model(tmp_path_factory.mktemp("bert"))
    made = Reader(model[0].auto_model, model.tokenizer, 4)
    made.add([("schleife", True)], [made.network.get_input_embeddings().weight.data[7]])
    return made


@pytest.fixture(scope="module")
def exported_reader(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_reader("Taught", reader, tmp_path_factory.mktemp("reader"))


def test_an_exported_reader_is_the_folder_that_serving_reads(exported_reader: Path) -> None:
    assert {path.name for path in exported_reader.iterdir()} == set(FILES)
    assert list(exported_reader.parent.iterdir()) == [exported_reader]
    assert exported_reader.name.startswith("taught-")
    about = json.loads((exported_reader / "encoder.json").read_text("utf-8"))
    assert about == {"name": "Taught", "kind": "transformer", "dimensions": WIDTH, "max_tokens": MAX_TOKENS}


def test_the_vectors_of_an_exported_reader_are_its_own(reader: Reader, exported_reader: Path) -> None:
    texts = ["Fix the loop in my Python function", "schleife", "x", "", "Prove a theorem about primes. " * 20]
    theirs, _ = reader.read(texts, lambda *_: None, "reading")
    encoder = TransformerEncoder(exported_reader)
    ours = encoder.encode(texts)
    assert (ours * theirs).sum(axis=1).min() > 0.98
    for batch in ([texts[0]], texts):  # of any size and length
        assert np.array_equal(encoder.encode(batch)[0], ours[0])
    assert abs(float(ours[0] @ ours[1])) < 0.98


@pytest.mark.parametrize("fixture", ["exported", "exported_reader"])
def test_an_exported_graph_holds_no_notes_of_the_exporter(request: pytest.FixtureRequest, fixture: str) -> None:
    folder: Path = request.getfixturevalue(fixture)
    graph = (folder / "model.onnx").read_bytes()
    assert not [note for note in (b".py", b"stack_trace", b"site-packages") if note in graph]


def tables(seed: int = 0) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    chance = np.random.default_rng(seed)
    ngrams, scale = quantised(chance.normal(size=(256, 8)).astype(np.float32))
    hidden, bias = chance.normal(size=(6, 8)).astype(np.float32), np.ones(6, dtype=np.float32)
    return {"ngrams": ngrams, "ngrams_scale": scale, "hidden": hidden, "bias": bias}


def test_exported_tables_are_the_folder_that_serving_reads(tmp_path: Path) -> None:
    folder = export_static("Tables", tables(), tmp_path)
    assert {path.name for path in folder.iterdir()} == set(StaticEncoder.FILES)
    about = json.loads((folder / "encoder.json").read_text("utf-8"))
    assert about == {"name": "Tables", "kind": "static", "dimensions": 14}
    vectors = StaticEncoder(folder).encode(["schleife", "loop", "schleife loop"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert not np.allclose(vectors[0], vectors[1], atol=0.01)


def test_the_same_content_has_the_same_folder_and_is_left_alone(tmp_path: Path) -> None:
    first = export_static("tables", tables(), tmp_path)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.iterdir()}
    assert export_static("tables", tables(), tmp_path) == first
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in first.iterdir()} == before
    other = export_static("tables", tables(seed=1), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([first, other])
    assert first != other


def test_without_the_extra_the_error_names_the_command_that_installs_it() -> None:
    script = """
import sys
sys.modules["sentence_transformers"] = None
from router.errors import MissingExtraError
from router.training.export import DEFAULT_ENCODER, load_sentence_transformer
try:
    load_sentence_transformer(DEFAULT_ENCODER)
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "sentence-transformers is not installed; run: pip install 'moe-gateway[train]'\n"
