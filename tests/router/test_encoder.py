from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.artifact import PACKAGED, Artifact
from router.dataset import load_corpus
from router.encoder import ENCODERS, FILES, MAX_TOKENS, TransformerEncoder
from router.errors import ArtifactError

Floats = NDArray[np.float32]
TEXTS = [
    "How do I sort a list of dictionaries by a key in Python?",
    "segfault",
    "Prove that the square root of 2 is irrational.",
    "¿Qué hace la mitocondria en la célula, y por qué se dice que es su central eléctrica?",
    "Tell me a joke about librarians.",
    "x",
    "A goods train 320 m long takes 48 seconds to clear a viaduct of 1.12 km. Give its speed in km/h. " * 3,
]


@pytest.fixture(scope="module")
def encoder(packaged: Artifact) -> TransformerEncoder:
    assert isinstance(packaged.encoder, TransformerEncoder)
    return packaged.encoder


@pytest.fixture
def copied(packaged: Artifact, tmp_path: Path) -> Path:
    """A copy of the packaged encoder that a test may damage."""
    return Path(shutil.copytree(PACKAGED / packaged.manifest.encoder_folder, tmp_path / "encoder"))


def one_by_one(encoder: TransformerEncoder, texts: list[str]) -> Floats:
    return np.vstack([encoder.encode([text]) for text in texts])


def test_an_encoder_knows_its_name_and_its_width(encoder: TransformerEncoder, packaged: Artifact) -> None:
    assert (encoder.name, encoder.dimensions) == (packaged.manifest.encoder, packaged.manifest.dimensions)


def test_every_text_becomes_one_row_of_single_precision(encoder: TransformerEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimensions)
    assert vectors.dtype == np.float32


def test_no_texts_become_no_rows(encoder: TransformerEncoder) -> None:
    vectors = encoder.encode([])
    assert vectors.shape == (0, encoder.dimensions)
    assert vectors.dtype == np.float32


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25)
def test_every_vector_has_length_one_whatever_the_text(encoder: TransformerEncoder, texts: list[str]) -> None:
    lengths = np.linalg.norm(encoder.encode(texts), axis=1)
    assert lengths == pytest.approx(np.ones(len(texts)), abs=1e-4)


@pytest.mark.parametrize("text", ["", " ", "\n", "\x00", "\u200b"])
def test_a_text_that_says_nothing_has_a_vector_too(encoder: TransformerEncoder, text: str) -> None:
    assert np.linalg.norm(encoder.encode([text])) == pytest.approx(1, abs=1e-4)


def test_the_same_text_has_the_same_vector(encoder: TransformerEncoder) -> None:
    assert np.array_equal(one_by_one(encoder, TEXTS), one_by_one(encoder, TEXTS))


def test_a_text_has_the_same_vector_in_whatever_company(encoder: TransformerEncoder) -> None:
    texts = [row.text for row in load_corpus()[::43]]
    alone = one_by_one(encoder, texts)
    assert np.array_equal(encoder.encode(texts), alone)
    assert np.array_equal(encoder.encode(texts[::-1]), alone[::-1])


def test_texts_of_like_meaning_are_nearer_than_others(encoder: TransformerEncoder) -> None:
    cat, kitten, sql = encoder.encode(["The cat sleeps.", "A kitten is napping.", "SELECT id FROM users JOIN orders"])
    assert cat @ kitten > cat @ sql + 0.3


def test_half_a_surrogate_pair_is_read_as_a_question_mark(encoder: TransformerEncoder) -> None:
    assert np.array_equal(encoder.encode(["what \ud83d is"]), encoder.encode(["what ? is"]))


def test_a_very_long_text_counts_by_its_first_tokens(encoder: TransformerEncoder) -> None:
    start = "word " * MAX_TOKENS
    assert np.array_equal(encoder.encode([start + "tail " * 50_000]), encoder.encode([start]))


def test_the_last_token_that_is_read_still_counts(encoder: TransformerEncoder) -> None:
    room = MAX_TOKENS - 2  # the first and the last token are the model's own marks
    short, full, over = encoder.encode(["word " * (room - 1), "word " * (room - 1) + "gene", "word " * room + "gene"])
    assert not np.allclose(short, full)
    assert not np.allclose(full, over)
    assert np.allclose(over, encoder.encode(["word " * room]), atol=2e-2)


def test_threads_may_encode_at_the_same_time(encoder: TransformerEncoder) -> None:
    alone = [encoder.encode([text]) for text in TEXTS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: encoder.encode([text]), TEXTS * 6))
    for i, vector in enumerate(together):
        assert np.array_equal(vector, alone[i % len(TEXTS)])


def test_the_number_of_threads_changes_no_vector(encoder: TransformerEncoder, packaged: Artifact) -> None:
    folder = PACKAGED / packaged.manifest.encoder_folder
    assert np.allclose(TransformerEncoder(folder, threads=1).encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


def test_the_folder_says_how_many_tokens_are_read(copied: Path) -> None:
    path = copied / "encoder.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "max_tokens": 5}), "utf-8")
    encoder = TransformerEncoder(copied)
    assert np.array_equal(encoder.encode(["one two three and more"]), encoder.encode(["one two three but less"]))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", ["missing", "empty", "cut"])
def test_a_folder_without_a_working_encoder_is_refused_by_name(copied: Path, file: str, harm: str) -> None:
    path = copied / file
    data = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(data[: len(data) // 2] if harm == "cut" else b"")
    with pytest.raises(ArtifactError) as caught:
        TransformerEncoder(copied)
    assert str(caught.value).startswith(f"the encoder in {copied} cannot be loaded: ")


@pytest.mark.parametrize("key", ["name", "dimensions", "max_tokens"])
def test_an_encoder_that_does_not_say_what_it_is_is_refused(copied: Path, key: str) -> None:
    path = copied / "encoder.json"
    about = json.loads(path.read_text("utf-8"))
    del about[key]
    path.write_text(json.dumps(about), "utf-8")
    with pytest.raises(ArtifactError, match=key):
        TransformerEncoder(copied)


def test_the_transformer_encoder_is_registered_by_the_kind_that_artifacts_name(packaged: Artifact) -> None:
    assert ENCODERS[packaged.manifest.encoder_kind] is TransformerEncoder
